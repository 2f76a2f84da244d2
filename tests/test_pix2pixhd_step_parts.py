"""The parts of a pix2pixHD step: what each network is shown, precision, what cannot go on (spec 3.3, 5.2 to 5.7)."""

from __future__ import annotations

import copy
import importlib
from collections import Counter

import pytest
import torch
from pix2pixhd_case import LABELS, SIZE, Setting, draw_batch
from torch import Tensor, nn

from benchmarks.plain.steps import plain_edges, plain_one_hot
from torchp2p.models import LabelMap
from torchp2p.train import Lean, Pix2PixHDStep


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
    (labels,) = shared
    assert labels.tensor().shape == (2, LABELS + 1, *SIZE)
    assert not labels.tensor().requires_grad
    assert [tuple(each.shape) for each in images] == [(2, 3, *SIZE)] * 2


def test_the_loss_of_G_takes_no_gradient_of_the_weights_of_D(monkeypatch) -> None:
    conv_norm_act = importlib.import_module("torchp2p.ops.conv_norm_act")
    run, weights_of = conv_norm_act._OP_BACKWARD, []

    def recorded(*args):
        weight, weight_grad = args[12], args[20]
        if weight_grad:
            weights_of.append(weight.data_ptr())
        return run(*args)

    monkeypatch.setattr(conv_norm_act, "_OP_BACKWARD", recorded)
    setting = Setting(num_D=2)
    D = {parameter.data_ptr() for parameter in setting.ours["D"].parameters()}
    setting.step()(draw_batch())
    times = Counter(weight for weight in weights_of if weight in D)
    assert times
    assert set(times.values()) == {2}  # of the real image and of the fake


@pytest.mark.parametrize(("label_conv", "made"), [(True, 0), (False, 1)])
def test_no_one_hot_channels_are_made_where_only_the_full_size_is_looked_at(label_conv, made, monkeypatch) -> None:
    calls, one_hot = [], LabelMap._one_hot
    monkeypatch.setattr(LabelMap, "_one_hot", lambda self: calls.append(self) or one_hot(self))
    Setting("global", num_D=1).step(lean=Lean(label_conv=label_conv))(draw_batch())
    assert len(calls) == made


@pytest.mark.parametrize("netG", ["global", "local2"])
def test_the_channels_of_coarser_levels_are_made_once_for_G_and_D(netG: str, monkeypatch) -> None:
    calls, one_hot = [], LabelMap._one_hot
    monkeypatch.setattr(LabelMap, "_one_hot", lambda self: calls.append(self) or one_hot(self))
    Setting(netG, num_D=3, features=True).step()(draw_batch())
    assert len(calls) == 1


def test_a_plain_G_is_shown_one_hot_labels_edges_and_features() -> None:
    setting = Setting(features=True)
    seen = []
    G = setting.plain["G"]
    G.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    Pix2PixHDStep(G, setting.ours["D"], setting.ours["E"], label_nc=LABELS, no_vgg_loss=True)(draw_batch())
    assert seen[0].shape[1] == LABELS + 1 + 2


def test_a_frozen_global_part_gets_no_gradient_and_builds_no_graph() -> None:
    setting = Setting("local1")
    step = setting.step(fix_global=True, lean=Lean(step_in_backward=False))
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


def test_a_network_that_is_no_module_is_named() -> None:
    with pytest.raises(TypeError, match=r"^vgg must be a torch\.nn\.Module, got str$"):
        Setting().step(vgg="vgg19.pth")


def test_sizes_of_D_that_are_not_those_it_has_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must be 3 scales \(num_D\)"):
        Setting(num_D=2).step(num_D=3)(draw_batch())
