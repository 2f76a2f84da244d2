"""One iteration of pix2pixHD against its transcription in plain PyTorch, and each of its parts (spec 4.4 to 5.7)."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
from plain_pix2pix import randomise
from plain_pix2pixhd import (
    PlainEncoder,
    PlainGlobal,
    PlainLocal,
    PlainMultiscale,
    PlainVGG19,
    plain_edges,
    plain_hd_step,
    plain_one_hot,
)
from torch import Tensor, nn

from torchp2p.models import GlobalGenerator, InstanceEncoder, LocalEnhancer, MultiscaleDiscriminator
from torchp2p.train import ImagePool, Pix2PixHDStep

STEPS = 3
LABELS = 4
SIZE = (32, 64)


# --- helpers ----------------------------------------------------------------------------------------------


def filled(ours: nn.Module, plain: nn.Module) -> nn.Module:
    """``ours`` in float64, filled entry by entry in the order of the state_dicts, which is the same."""
    ours.double().load_state_dict(dict(zip(ours.state_dict(), plain.state_dict().values(), strict=True)))
    return ours


class Setting:
    """Plain networks, and ours with the same weights."""

    def __init__(
        self,
        netG: str = "global",
        norm: str = "instance",
        num_D: int = 2,
        n_layers_D: int = 2,
        features: bool = False,
        vgg: bool = False,
        condition_nc: int = LABELS + 1,
        feat_num: int = 2,
        no_ganFeat_loss: bool = False,
    ) -> None:
        input_nc = condition_nc + (feat_num if features else 0)
        sizes_D = (condition_nc + 3, 3, n_layers_D, num_D, norm, not no_ganFeat_loss)
        if netG == "global":
            sizes_G = (input_nc, 3, 2, 2, 1, norm)
            plain_G, G = PlainGlobal(*sizes_G), GlobalGenerator(*sizes_G)
        else:
            sizes_G = (input_nc, 3, 2, 1, 1, int(netG[-1]), 1, norm)
            plain_G, G = PlainLocal(*sizes_G), LocalEnhancer(*sizes_G)
        self.plain = {"G": plain_G, "D": PlainMultiscale(*sizes_D)}
        self.ours = {"G": G, "D": MultiscaleDiscriminator(*sizes_D)}
        if features:
            self.plain["E"] = PlainEncoder(3, feat_num, 2, 1, norm)
            self.ours["E"] = InstanceEncoder(3, feat_num, 2, 1, norm)
        for seed, (label, net) in enumerate(self.plain.items()):
            randomise(net.double(), seed)
            filled(self.ours[label], net)
        self.n_layers_D, self.num_D, self.no_ganFeat_loss = n_layers_D, num_D, no_ganFeat_loss
        self.vgg = PlainVGG19(width=2).double().requires_grad_(False) if vgg else None
        if self.vgg is not None:
            randomise(self.vgg, 9)

    def step(self, **options) -> Pix2PixHDStep:
        options = {"label_nc": LABELS, "no_vgg_loss": self.vgg is None, "vgg": self.vgg, **options}
        return Pix2PixHDStep(**self.ours, no_ganFeat_loss=self.no_ganFeat_loss, **options)

    def plain_step(self, optimizer_G, optimizer_D, batch, pool=lambda images: images, label_nc=LABELS, **options):
        nets = {**self.plain, "vgg": self.vgg}
        return plain_hd_step(
            nets, optimizer_G, optimizer_D, batch, label_nc, self.n_layers_D, self.num_D, pool,
            no_ganFeat_loss=self.no_ganFeat_loss, **options,
        )  # fmt: skip

    def plain_adam(self, *labels: str, only: str = "", lr: float = 2e-4) -> torch.optim.Adam:
        """Over E as a whole and, of the others, over what begins with ``only``."""
        parameters = [
            parameter
            for label in labels
            if label in self.plain
            for name, parameter in self.plain[label].named_parameters()
            if label == "E" or name.startswith(only)
        ]
        return torch.optim.Adam(parameters, lr=lr, betas=(0.5, 0.999), eps=1e-8)


def draw_batch(label_nc: int = LABELS, dtype: torch.dtype = torch.float64, **more: Tensor) -> dict[str, Tensor]:
    inst = torch.randint(0, 5, (2, 1, 4, 8)).repeat_interleave(8, 2).repeat_interleave(8, 3)
    label = inst % label_nc if label_nc else torch.rand(2, 3, *SIZE, dtype=dtype) * 2 - 1
    image = torch.rand(2, 3, *SIZE, dtype=dtype) * 2 - 1
    return {"label": label.to(torch.uint8) if label_nc else label, "inst": inst + 26000, "image": image, **more}


def assert_agree(ours: Tensor, plain: Tensor, what: str, floor: float) -> None:
    """To 1e-9 of the largest value, or of ``floor`` where all values are smaller (biases that have no effect)."""
    error, scale = (ours - plain).abs().max().item(), max(plain.abs().max().item(), floor)
    assert error <= 1e-9 * scale, f"{what} is off by {error:.1e} where values reach {scale:.1e}"


def assert_same_losses(ours: dict[str, Tensor], plain: dict[str, Tensor], when: object) -> None:
    assert ours.keys() == plain.keys()
    for name, loss in ours.items():
        assert_agree(loss, plain[name], f"{name} of step {when}", floor=0.0)


def assert_same_networks(setting: Setting) -> None:
    for label, net in setting.ours.items():
        pairs = zip(net.state_dict().items(), setting.plain[label].state_dict().values(), strict=True)
        for (name, mine), theirs in pairs:
            assert_agree(mine.double(), theirs.double(), f"{label}.{name}", floor=0.02)


def compare_steps(setting: Setting, batches: list[dict[str, Tensor]] | None = None, **options: object) -> None:
    """Take STEPS steps both ways and compare every loss, and at the end every weight and running statistic."""
    step = setting.step(**options)
    optimizers = setting.plain_adam("G", "E"), setting.plain_adam("D")
    before = copy.deepcopy({label: net.state_dict() for label, net in setting.ours.items()})
    for number, batch in enumerate(batches or [draw_batch() for _ in range(STEPS)]):
        assert_same_losses(step(batch), setting.plain_step(*optimizers, batch, **options), number + 1)
    assert_same_networks(setting)
    for label, net in setting.ours.items():
        assert any(
            not torch.equal(old, new) for old, new in zip(before[label].values(), net.parameters(), strict=False)
        )


# --- equal to the specification -----------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("netG", ["global", "local1", "local2"])
def test_three_steps_equal_three_steps_of_the_plain_procedure(netG: str, norm: str) -> None:
    compare_steps(Setting(netG, norm))


@pytest.mark.parametrize("netG", ["global", "local1"])
@pytest.mark.parametrize("vgg", [False, True])
def test_with_features_E_is_trained_as_in_the_plain_procedure(netG: str, vgg: bool) -> None:
    compare_steps(Setting(netG, features=True, vgg=vgg))


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_the_vgg_loss_equals_the_plain_one(norm: str) -> None:
    compare_steps(Setting(norm=norm, vgg=True))


@pytest.mark.parametrize(("num_D", "n_layers_D"), [(1, 3), (2, 1), (3, 2)])
def test_any_number_of_scales_and_layers_equals_the_plain_procedure(num_D: int, n_layers_D: int) -> None:
    compare_steps(Setting(num_D=num_D, n_layers_D=n_layers_D))


@pytest.mark.parametrize("gan_mode", ["vanilla", "hinge"])
@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_the_other_gan_modes_equal_the_plain_procedure(gan_mode: str, norm: str) -> None:
    compare_steps(Setting(norm=norm), gan_mode=gan_mode)


def test_without_feature_matching_equals_the_plain_procedure() -> None:
    compare_steps(Setting(no_ganFeat_loss=True, vgg=True))


def test_without_instances_equals_the_plain_procedure() -> None:
    batches = [draw_batch() for _ in range(STEPS)]
    for batch in batches:
        del batch["inst"]
    compare_steps(Setting(condition_nc=LABELS), batches, no_instance=True)


@pytest.mark.parametrize("no_instance", [True, False])
def test_with_images_for_labels_equals_the_plain_procedure(no_instance: bool) -> None:
    batches = [draw_batch(label_nc=0) for _ in range(STEPS)]
    compare_steps(Setting(condition_nc=4 - no_instance), batches, label_nc=0, no_instance=no_instance)


def test_pooling_over_labels_equals_the_plain_procedure() -> None:
    compare_steps(Setting(features=True), label_feat=True)


def test_features_that_come_with_the_batch_equal_the_plain_procedure() -> None:
    setting = Setting(condition_nc=LABELS + 1, features=True)
    del setting.ours["E"], setting.plain["E"]
    compare_steps(setting, [draw_batch(feat=torch.rand(2, 2, *SIZE).double()) for _ in range(STEPS)])


def test_another_weight_of_the_features_equals_the_plain_procedure() -> None:
    compare_steps(Setting(vgg=True), lambda_feat=3.0)


def test_a_pool_shows_D_what_the_plain_procedure_shows_it() -> None:
    setting, pool = Setting(), ImagePool(3, seed=5)
    step = setting.step(pool_size=3, seed=5)
    optimizers = setting.plain_adam("G"), setting.plain_adam("D")
    shown = []

    def query(images: Tensor) -> Tensor:
        shown.append((images, pool.query(images)))
        return shown[-1][1]

    for number in range(5):
        batch = draw_batch()
        assert_same_losses(step(batch), setting.plain_step(*optimizers, batch, query), number + 1)
    assert any(not torch.equal(asked, got) for asked, got in shown)
    assert_same_networks(setting)


@pytest.mark.parametrize("features", [False, True])
@pytest.mark.parametrize("netG", ["local1", "local2"])
def test_the_frozen_phase_and_its_release_equal_the_plain_procedure(netG: str, features: bool) -> None:
    setting = Setting(netG, features=features)
    step = setting.step(fix_global=True)
    frozen = [parameter.clone() for parameter in setting.ours["G"].get_submodule("model").parameters()]
    optimizer_G = setting.plain_adam("G", "E", only=f"model{netG[-1]}_")
    optimizer_D = setting.plain_adam("D")
    for number in range(2):
        batch = draw_batch()
        assert_same_losses(step(batch), setting.plain_step(optimizer_G, optimizer_D, batch), number + 1)
    assert all(map(torch.equal, frozen, setting.ours["G"].get_submodule("model").parameters()))
    step.set_lr(1e-5)
    step.release_global()
    optimizer_G = setting.plain_adam("G", "E")
    for group in optimizer_D.param_groups:
        group["lr"] = 1e-5
    for number in range(2):
        batch = draw_batch()
        assert_same_losses(step(batch), setting.plain_step(optimizer_G, optimizer_D, batch), f"{number + 1}, released")
    assert_same_networks(setting)


def test_plain_modules_are_accepted() -> None:
    setting = Setting("local1", "batch", features=True)
    setting.ours = copy.deepcopy(setting.plain)
    compare_steps(setting)


def test_given_optimisers_are_used_and_see_the_halved_loss_of_D() -> None:
    setting = Setting()
    sgd = {
        label: [torch.optim.SGD(nets[label].parameters(), lr=1e-3) for nets in (setting.ours, setting.plain)]
        for label in "GD"
    }
    step = setting.step(optimizer_G=sgd["G"][0], optimizer_D=sgd["D"][0])
    for number in range(STEPS):
        batch = draw_batch()
        assert_same_losses(step(batch), setting.plain_step(sgd["G"][1], sgd["D"][1], batch), number + 1)
    assert_same_networks(setting)


# --- its parts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, ["G_GAN", "G_GAN_Feat", "D_real", "D_fake"]),
        ({"vgg": True}, ["G_GAN", "G_GAN_Feat", "G_VGG", "D_real", "D_fake"]),
        ({"no_ganFeat_loss": True}, ["G_GAN", "D_real", "D_fake"]),
    ],
)
def test_losses_have_the_names_and_order_of_the_original_and_are_detached_scalars(options, names) -> None:
    losses = Setting(**options).step()(draw_batch())
    assert list(losses) == names
    assert all(loss.shape == () and not loss.requires_grad for loss in losses.values())


class Constant(nn.Module):
    """A discriminator that says the same of everything, and counts how often it is asked."""

    def __init__(self, logit: float) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.tensor(logit, dtype=torch.float64))
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> list[list[Tensor]]:
        self.seen.append(x.detach())
        feature = x[:, :1] * 2
        return [[feature, self.logit.expand(len(x), 1, 2, 2) + 0 * x.mean()]] * 2


def constant_step(logit: float = 0.5, **options) -> Pix2PixHDStep:
    setting = Setting()
    return Pix2PixHDStep(setting.ours["G"], Constant(logit), label_nc=LABELS, no_vgg_loss=True, **options)


def test_losses_are_summed_over_scales_and_those_of_D_are_not_halved() -> None:
    losses = constant_step(0.5)(draw_batch())
    assert losses["D_real"].item() == pytest.approx(2 * 0.25)
    assert losses["D_fake"].item() == pytest.approx(2 * 0.25)
    assert losses["G_GAN"].item() == pytest.approx(2 * 0.25)


def test_G_and_D_are_judged_by_the_same_weights() -> None:
    step = constant_step(0.0, lr=0.1)
    losses = step(draw_batch())
    assert step.D.logit.item() != 0.0
    assert losses["G_GAN"].item() == pytest.approx(2 * 1.0)


def test_D_sees_labels_edges_and_the_image_and_no_features() -> None:
    setting = Setting(features=True)
    D = Constant(0.0)
    batch = draw_batch()
    step = Pix2PixHDStep(setting.ours["G"], D, setting.ours["E"], label_nc=LABELS, no_vgg_loss=True)
    step(batch)
    condition = plain_one_hot(batch["label"], LABELS), plain_edges(batch["inst"])
    for seen, image in zip(D.seen, (batch["image"], step.fake), strict=True):
        assert torch.equal(seen, torch.cat([*condition, image], 1))


@pytest.mark.parametrize(("options", "times"), [({}, 2), ({"pool_size": 5}, 3)])
def test_D_judges_the_fake_once_where_that_is_exact(options: dict[str, int], times: int) -> None:
    step = constant_step(**options)
    step(draw_batch())
    assert len(step.D.seen) == times


def test_a_D_with_running_statistics_sees_the_fake_twice_as_in_the_original() -> None:
    setting = Setting(norm="batch")
    setting.step()(draw_batch())
    counts = [value for name, value in setting.ours["D"].named_buffers() if name.endswith("num_batches_tracked")]
    assert counts
    assert all(count == 3 for count in counts)


def test_D_convolves_the_labels_once_and_gets_no_gradient_of_them() -> None:
    setting = Setting(num_D=3)
    D, shared, images = setting.ours["D"], [], []
    share = D.share
    D.share = lambda condition: shared.append(condition) or share(condition)
    D.register_forward_pre_hook(lambda _module, inputs: images.append(inputs[0]))
    setting.step()(draw_batch())
    assert [tuple(each.shape) for each in shared] == [(2, LABELS + 1, *SIZE)]
    assert [tuple(each.shape) for each in images] == [(2, 3, *SIZE)] * 2
    assert not shared[0].requires_grad


def test_a_frozen_global_part_gets_no_gradient_and_builds_no_graph() -> None:
    setting = Setting("local1")
    step = setting.step(fix_global=True)
    seen = []
    setting.ours["G"].model.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    step(draw_batch())
    (output,) = seen
    assert not getattr(output, "raw", output).requires_grad
    assert all(parameter.grad is None for parameter in setting.ours["G"].model.parameters())
    step.release_global()
    step(draw_batch())
    assert any(parameter.grad is not None for parameter in setting.ours["G"].model.parameters())


def test_the_fake_of_the_step_is_kept_without_its_graph() -> None:
    setting = Setting()
    batch = draw_batch()
    with torch.no_grad():
        condition = [plain_one_hot(batch["label"], LABELS), plain_edges(batch["inst"])]
        expected = setting.plain["G"](torch.cat(condition, 1).double())
    step = setting.step()
    step(batch)
    assert step.fake is not None
    assert not step.fake.requires_grad
    torch.testing.assert_close(step.fake, expected, rtol=1e-9, atol=1e-9)


def test_set_lr_reaches_both_optimisers() -> None:
    step = Setting().step(lr=1e-3)
    step.set_lr(5e-5)
    groups = [*step.optimizer_G.param_groups, *step.optimizer_D.param_groups]
    assert [group["lr"] for group in groups] == [5e-5, 5e-5]


def test_the_optimisers_are_adam_as_the_paper_has_it() -> None:
    step = Setting(features=True).step()
    for optimizer in (step.optimizer_G, step.optimizer_D):
        assert isinstance(optimizer, torch.optim.Adam)
        (group,) = optimizer.param_groups
        assert (group["lr"], group["betas"], group["eps"]) == (2e-4, (0.5, 0.999), 1e-8)
        assert group["weight_decay"] == 0


# --- precision ----------------------------------------------------------------------------------------------


class Single(Setting):
    """The networks in float32."""

    def __init__(self, **options) -> None:
        super().__init__(**options)
        for net in (*self.ours.values(), *([self.vgg] if self.vgg is not None else [])):
            net.float()


@pytest.mark.parametrize("netG", ["global", "local1"])
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_keeps_parameters_and_losses_in_float32_and_stays_near_it(precision: str, netG: str) -> None:
    batch = draw_batch(dtype=torch.float32)
    losses, dtypes = {}, set()
    for each in ("float32", precision):
        setting = Single(netG=netG, features=True, vgg=True)
        if each == precision:
            for net in (setting.ours["D"].get_submodule("scale0_layer1")[0], setting.vgg.features[0]):
                net.register_forward_hook(lambda _module, _inputs, output: dtypes.add(output.dtype))
        step = setting.step(precision=each)
        losses[each] = step(batch)
        step(batch)
        for net in setting.ours.values():
            assert {parameter.dtype for parameter in net.parameters()} == {torch.float32}
            assert all(parameter.isfinite().all() for parameter in net.parameters())
    assert dtypes == {getattr(torch, precision)}
    for name, loss in losses[precision].items():
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(losses["float32"][name].item(), rel=0.05)


def test_float16_scales_the_losses_of_G_and_of_D_apart() -> None:
    setting = Single()
    step = setting.step(precision="float16")
    step.scaler_G = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    step.scaler_D = torch.amp.GradScaler("cpu", init_scale=2.0**4)
    before = copy.deepcopy({label: net.state_dict() for label, net in setting.ours.items()})
    step(draw_batch(dtype=torch.float32))
    assert (step.scaler_G.get_scale(), step.scaler_D.get_scale()) == (2.0**39, 2.0**4)
    assert all(torch.equal(value, before["G"][name]) for name, value in setting.ours["G"].state_dict().items())
    assert not all(torch.equal(value, before["D"][name]) for name, value in setting.ours["D"].state_dict().items())


def test_a_processor_without_float16_is_told_so(monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError('"slow_conv2d" not implemented for Half\nand a trace')

    monkeypatch.setattr(torch.nn.functional, "conv2d", refuse)
    with pytest.raises(ValueError, match=r"^precision 'float16' cannot run on this cpu, take 'bfloat16': .* for Half$"):
        Setting().step(precision="float16")


# --- what cannot go on --------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_changes_no_weight_and_is_counted() -> None:
    setting = Setting("local1", features=True, vgg=True)
    step = setting.step(max_skipped=3)
    step(draw_batch())
    before = copy.deepcopy({label: net.state_dict() for label, net in setting.ours.items()})
    moments = copy.deepcopy([step.optimizer_G.state_dict(), step.optimizer_D.state_dict()])
    poisoned = draw_batch()
    poisoned["image"][0, 0, 3, 5] = float("nan")
    losses = step(poisoned)
    assert losses["D_real"].isnan()
    assert step.skipped == 1
    for label, net in setting.ours.items():
        assert all(torch.equal(value, before[label][name]) for name, value in net.state_dict().items())
    assert str(moments) == str([step.optimizer_G.state_dict(), step.optimizer_D.state_dict()])
    step(draw_batch())
    assert step.skipped == 0
    assert not torch.equal(setting.ours["D"].scale0_layer0[0].weight, before["D"]["scale0_layer0.0.weight"])


def skip_until_refused(step: Pix2PixHDStep, batch: dict[str, Tensor]) -> str:
    for _ in range(step.max_skipped - 1):
        step(batch)
    with pytest.raises(FloatingPointError) as caught:
        step(batch)
    return str(caught.value)


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("G", "model.4"),
        ("G", "model.10.conv_block.5"),
        ("G", "model1_2.1"),
        ("D", "scale1_layer2.0"),
        ("E", "model.4"),
        ("vgg", "features.5"),
    ],
)
def test_the_first_layer_whose_output_is_not_finite_is_named(label: str, name: str) -> None:
    setting = Setting("local1" if "1_" in name else "global", features=True, vgg=True)
    net = setting.vgg if label == "vgg" else setting.ours[label]
    with torch.no_grad():
        net.get_parameter(f"{name}.weight").view(-1)[0] = float("inf")
    message = skip_until_refused(setting.step(max_skipped=2), draw_batch())
    assert message.startswith("losses were not finite for 2 steps in a row (G_GAN ")
    assert message.endswith(f"the first output that is not finite is that of {label}.{name}")


def test_an_input_that_is_not_finite_is_named() -> None:
    batch = draw_batch()
    batch["image"][0, 0, 3, 5] = float("inf")
    message = skip_until_refused(Setting().step(max_skipped=1), batch)
    assert message.endswith("batch['image'] itself is not finite")


def test_a_label_out_of_range_is_named_with_its_place() -> None:
    batch = draw_batch()
    batch["label"][1, 0, 3, 5] = 255
    message = rf"label must be ids 0..{LABELS - 1} \(label_nc {LABELS}\), got 255 in sample 1 at row 3, column 5"
    with pytest.raises(ValueError, match=message):
        Setting().step()(batch)


@pytest.mark.parametrize(
    ("missing", "features", "options"),
    [("inst", False, {}), ("image", False, {}), ("label", False, {}), ("inst", True, {"no_instance": True})],
)
def test_a_batch_without_what_the_options_ask_for_is_refused(missing, features, options) -> None:
    batch = draw_batch()
    del batch[missing]
    setting = Setting(features=features, condition_nc=LABELS + (not options))
    with pytest.raises(ValueError, match=f"batch must have '{missing}' with these options, got '"):
        setting.step(**options)(batch)


def test_features_must_not_come_from_two_sides() -> None:
    with pytest.raises(ValueError, match="batch must not have 'feat' where E is there"):
        Setting(features=True).step()(draw_batch(feat=torch.rand(2, 2, *SIZE).double()))


def test_a_size_that_G_does_not_keep_is_refused() -> None:
    batch = {name: value[..., :30] for name, value in draw_batch().items()}
    with pytest.raises(ValueError, match=r"image must have a shape that G makes, \(2, 3, 32, 32\) of these labels"):
        Setting().step()(batch)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "half"}, "precision must be one of float32, bfloat16, float16, got 'half'"),
        ({"gan_mode": "wgangp"}, "gan_mode must be one of lsgan, vanilla, hinge, got 'wgangp'"),
        ({"no_vgg_loss": False}, "vgg must be given, or the loss be switched off with no_vgg_loss=True, got None"),
        ({"fix_global": True}, "G must have local enhancers with fix_global, got a GlobalGenerator"),
        ({"max_skipped": 0}, "max_skipped must be at least 1, got 0"),
        ({"pool_size": -1}, "size must not be negative, got -1"),
    ],
)
def test_what_cannot_work_is_refused_when_the_step_is_made(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        Setting().step(**options)


def test_sizes_of_D_that_are_not_those_it_has_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must be 3 scales \(num_D\)"):
        Setting(num_D=2).step(num_D=3)(draw_batch())


# --- at full size -------------------------------------------------------------------------------------------

AT_FULL_SIZE = """
import resource, sys, torch
from torchp2p.models import LocalEnhancer, MultiscaleDiscriminator, VGG19Features
from torchp2p.train import Pix2PixHDStep

step = Pix2PixHDStep(LocalEnhancer(36, 3), MultiscaleDiscriminator(39, num_D=3), vgg=VGG19Features(sys.argv[1]))
ids = torch.arange(32 * 64).reshape(1, 1, 32, 64).repeat_interleave(32, 2).repeat_interleave(32, 3)
for _ in range(2):
    step({"label": (ids % 35).to(torch.uint8), "inst": ids, "image": torch.rand(1, 3, 1024, 2048) * 2 - 1})
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


@pytest.mark.slow
def test_a_step_at_2048_by_1024_stays_within_12_GiB(tmp_path) -> None:
    torch.save(PlainVGG19().state_dict(), tmp_path / "vgg19.pth")
    command = [sys.executable, "-c", AT_FULL_SIZE, str(tmp_path / "vgg19.pth")]
    peak = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert float(peak) < 12
