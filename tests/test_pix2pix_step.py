"""One iteration of pix2pix against its transcription in plain PyTorch, and each of its parts (spec 4, 5.1)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from network_testing import randomise
from pix2pix_case import SAVINGS, adam, draw_batch, our_networks, plain_networks, with_the_weights_of
from torch import Tensor, nn

from benchmarks.plain.pix2pix import PlainPatchDiscriminator, PlainPixelDiscriminator, PlainUnet
from benchmarks.plain.steps import plain_gan_loss, plain_step
from torchp2p.models import PatchDiscriminator, PixelDiscriminator, unet_128
from torchp2p.train import Lean, Pix2PixStep, TrainConfig, build_step

STEPS = 3
ABLATIONS = {
    "L1": {"use_GAN": False},
    "GAN": {"use_L1": False, "condition_GAN": False},
    "cGAN": {"use_L1": False},
    "L1+GAN": {"condition_GAN": False},
    "L1+cGAN": {},
    "L2+cGAN": {"pixel_loss": "l2"},
}
"""The matrix of spec section 4.6, and the mean squared difference instead of L1."""


every_saving = pytest.mark.parametrize("lean", SAVINGS.values(), ids=SAVINGS.keys())


# --- helpers ----------------------------------------------------------------------------------------------


def sgd(net: nn.Module) -> torch.optim.Optimizer:
    """Unlike Adam it does not cancel a constant factor of the loss, such as the halving of D's."""
    return torch.optim.SGD(net.parameters(), lr=1e-3)


def assert_agree(ours: Tensor, plain: Tensor, what: str, floor: float) -> None:
    """To 1e-9 of the largest value, or of ``floor`` where all values are smaller (biases that have no effect)."""
    error, scale = (ours - plain).abs().max().item(), max(plain.abs().max().item(), floor)
    assert error <= 1e-9 * scale, f"{what} is off by {error:.1e} where values reach {scale:.1e}"


def assert_same_networks(ours: nn.Module, plain: nn.Module) -> None:
    pairs = zip(ours.state_dict().items(), plain.state_dict().values(), strict=True)
    for (name, mine), theirs in pairs:
        assert_agree(mine.double(), theirs.double(), name, floor=0.02)


def compare_steps(
    nets: tuple[nn.Module, nn.Module],
    plain_nets: tuple[nn.Module, nn.Module],
    size: int = 16,
    optimizer: Callable[[nn.Module], torch.optim.Optimizer] | None = None,
    lean: Lean = SAVINGS["all"],
    **options: object,
) -> None:
    """Take STEPS steps both ways and compare every loss, and at the end every weight and running statistic."""
    (G, D), (plain_G, plain_D) = nets, plain_nets
    given = {} if optimizer is None else {"optimizer_G": optimizer(G), "optimizer_D": optimizer(D)}
    step = Pix2PixStep(G, D, seed=4, lean=lean, **given, **options)
    plain_optimizers = [(optimizer or adam)(net) for net in plain_nets]
    generator = torch.Generator().manual_seed(4)
    before = [parameter.clone() for parameter in plain_G.parameters()]
    for number in range(STEPS):
        batch = draw_batch(size)
        torch.manual_seed(number)
        losses = step(batch)
        torch.manual_seed(number)
        expected = plain_step(*plain_nets, *plain_optimizers, batch["A"], batch["B"], generator, **options)
        assert losses.keys() == expected.keys()
        for name, loss in losses.items():
            assert_agree(loss, expected[name], f"{name} of step {number + 1}", floor=0.0)
    assert_same_networks(G, plain_G)
    assert_same_networks(D, plain_D)
    assert any(not torch.equal(old, new) for old, new in zip(before, plain_G.parameters(), strict=True))


# --- equal to the specification -----------------------------------------------------------------------------


@every_saving
@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
@pytest.mark.parametrize("gan_mode", ["vanilla", "lsgan", "hinge", "wgangp"])
def test_three_steps_equal_three_steps_of_the_plain_procedure(gan_mode: str, norm: str, lean: Lean) -> None:
    plain = plain_networks(norm)
    compare_steps(our_networks(norm, *plain), plain, lean=lean, gan_mode=gan_mode)


@every_saving
@pytest.mark.parametrize("options", ABLATIONS.values(), ids=ABLATIONS.keys())
def test_every_ablation_equals_the_plain_procedure(options: dict[str, object], lean: Lean) -> None:
    plain = plain_networks("batch", bool(options.get("condition_GAN", True)))
    compare_steps(our_networks("batch", *plain), plain, lean=lean, **options)


@every_saving
@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
def test_the_discriminator_of_pixels_equals_the_plain_one(norm: str, lean: Lean) -> None:
    plain_G, _ = plain_networks(norm)
    plain_D = PlainPixelDiscriminator(5, ndf=4, norm=norm).double()
    randomise(plain_D, 2)
    G, _ = our_networks(norm, *plain_networks(norm))
    D = with_the_weights_of(plain_D, PixelDiscriminator(5, ndf=4, norm=norm))
    compare_steps((G, D), (plain_G, plain_D), lean=lean)


def test_given_optimisers_are_used_and_see_the_halved_loss_of_D() -> None:
    plain = plain_networks("batch")
    compare_steps(our_networks("batch", *plain), plain, optimizer=sgd)


def test_another_weight_of_the_pixel_loss_equals_the_plain_procedure() -> None:
    plain = plain_networks("batch")
    compare_steps(our_networks("batch", *plain), plain, lambda_L1=7.5, optimizer=sgd)


def test_the_u_net_with_dropout_equals_the_plain_procedure_under_the_same_masks() -> None:
    plain_G = PlainUnet(3, 2, levels=7, ngf=2, norm="batch", dropout_levels=(4, 5)).double()
    plain_D = PlainPatchDiscriminator(5, ndf=2, n_layers=3, norm="batch").double()
    randomise(plain_G, 1)
    randomise(plain_D, 2)
    G = with_the_weights_of(plain_G, unet_128(3, 2, ngf=2))
    D = with_the_weights_of(plain_D, PatchDiscriminator(5, ndf=2))
    compare_steps((G, D), (plain_G, plain_D), size=128)


def test_plain_modules_without_a_size_multiple_are_accepted() -> None:
    plain = plain_networks("batch")
    copies = plain_networks("batch")
    assert not hasattr(copies[0], "size_multiple")
    compare_steps(copies, plain)


# --- its parts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, ["D_real", "D_fake", "G_GAN", "G_L1"]),
        ({"gan_mode": "wgangp"}, ["D_real", "D_fake", "D_GP", "G_GAN", "G_L1"]),
        ({"use_GAN": False}, ["G_L1"]),
        ({"use_L1": False}, ["D_real", "D_fake", "G_GAN"]),
    ],
)
def test_losses_have_the_names_of_the_original_and_are_detached_scalars(options, names: list[str]) -> None:
    losses = Pix2PixStep(*plain_networks("batch"), **options)(draw_batch())
    assert sorted(losses) == sorted(names)
    assert all(loss.shape == () and not loss.requires_grad for loss in losses.values())


class Constant(nn.Module):
    """A discriminator that says the same of everything, whatever it is shown."""

    def __init__(self, logit: float) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.tensor(logit, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.logit.expand(len(x), 1, 2, 2) + 0 * x.mean()


def test_the_reported_losses_of_D_are_not_halved_and_G_L1_includes_its_weight() -> None:
    plain_G, _ = plain_networks("batch")
    batch = draw_batch()
    with torch.no_grad():
        difference = (plain_G(batch["A"]) - batch["B"]).abs().mean()
    losses = Pix2PixStep(plain_G, Constant(0.5), gan_mode="lsgan", lambda_L1=30.0)(batch)
    assert losses["D_real"].item() == pytest.approx(0.25)
    assert losses["D_fake"].item() == pytest.approx(0.25)
    assert losses["G_L1"].item() == pytest.approx(30 * difference.item())


def test_G_is_judged_by_the_updated_D() -> None:
    plain_G, _ = plain_networks("batch")
    D = Constant(0.0)
    # D learns from a gradient of 0.5 ((0 - 0) 2 + (0 - 1) 2) = -1.
    optimizer_D = torch.optim.SGD(D.parameters(), lr=0.25)
    losses = Pix2PixStep(plain_G, D, gan_mode="lsgan", optimizer_D=optimizer_D)(draw_batch())
    assert D.logit.item() == pytest.approx(0.25)
    assert losses["G_GAN"].item() == pytest.approx((0.25 - 1) ** 2)


def test_D_gets_no_gradient_from_the_step_of_G() -> None:
    G, D = plain_networks("instance")
    still = torch.optim.SGD(D.parameters(), lr=0.0)
    batch = draw_batch()
    Pix2PixStep(G, D, optimizer_G=torch.optim.SGD(G.parameters(), lr=0.0), optimizer_D=still)(batch)
    found = [parameter.grad.clone() for parameter in D.parameters()]
    D.requires_grad_(True).zero_grad()
    fake = torch.cat([batch["A"], G(batch["A"]).detach()], 1)
    real = torch.cat([batch["A"], batch["B"]], 1)
    (0.5 * (plain_gan_loss("vanilla", D(fake), False) + plain_gan_loss("vanilla", D(real), True))).backward()
    for ours, parameter in zip(found, D.parameters(), strict=True):
        torch.testing.assert_close(ours, parameter.grad, rtol=1e-9, atol=1e-15)


def test_G_gets_no_gradient_from_the_step_of_D() -> None:
    G, D = plain_networks("batch")
    step = Pix2PixStep(G, D, use_L1=False)
    gradients = []

    def look(*_: object) -> None:
        gradients.append([parameter.grad for parameter in G.parameters()])

    step.optimizer_D.register_step_post_hook(look)
    step(draw_batch())
    assert all(gradient is None for gradient in gradients[0])


def test_without_GAN_no_discriminator_is_touched() -> None:
    G, D = plain_networks("batch")

    def refuse(*_: object) -> None:
        raise AssertionError("D was run")

    D.register_forward_pre_hook(refuse)
    before = [value.clone() for value in D.state_dict().values()]
    step = Pix2PixStep(G, D, use_GAN=False)
    step(draw_batch())
    assert step.D is None
    assert step.optimizer_D is None
    assert all(torch.equal(old, new) for old, new in zip(before, D.state_dict().values(), strict=True))


def test_without_GAN_no_discriminator_need_be_given_or_is_built() -> None:
    G, _ = plain_networks("batch")
    assert Pix2PixStep(G, None, use_GAN=False)(draw_batch()).keys() == {"G_L1"}
    config = TrainConfig(use_GAN=False, netG="resnet_6blocks", ngf=2, ndf=2)
    assert build_step(config).D is None


class Linear(nn.Module):
    """A discriminator whose gradient in its input is the same everywhere, of a length we choose."""

    def __init__(self, length: float, shape: tuple[int, ...]) -> None:
        super().__init__()
        direction = torch.rand(shape, dtype=torch.float64) - 0.5
        self.weight = nn.Parameter(direction / direction.norm() * length)

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.weight).sum(dim=(1, 2, 3)).reshape(-1, 1, 1, 1)


@pytest.mark.parametrize("length", [0.5, 1.0, 3.0])
def test_the_gradient_penalty_is_ten_times_the_squared_distance_of_the_slope_to_one(length: float) -> None:
    G, _ = plain_networks("batch")
    losses = Pix2PixStep(G, Linear(length, (5, 16, 16)), gan_mode="wgangp")(draw_batch())
    assert losses["D_GP"].item() == pytest.approx(10 * (length - 1) ** 2, abs=1e-9)


def test_the_gradient_penalty_brings_the_slope_of_D_to_one() -> None:
    G, _ = plain_networks("batch")
    D = Linear(3.0, (5, 16, 16))
    step = Pix2PixStep(G, D, gan_mode="wgangp", optimizer_D=torch.optim.SGD(D.parameters(), lr=0.02))
    penalties = [step(draw_batch())["D_GP"].item() for _ in range(20)]
    assert penalties[-1] < 0.1 * penalties[0]


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_bfloat16_keeps_parameters_and_losses_in_float32_and_stays_near_it(norm: str) -> None:
    plain = [net.float() for net in plain_networks(norm)]
    batch = draw_batch(dtype=torch.float32)
    losses, dtypes = {}, set()
    for precision in ("float32", "bfloat16"):
        G, D = (net.float() for net in our_networks(norm, *(net.double() for net in plain)))
        hook = next(module for module in D.modules() if isinstance(module, nn.Conv2d))
        if precision == "bfloat16":
            hook.register_forward_hook(lambda _module, _inputs, output: dtypes.add(output.dtype))
        step = Pix2PixStep(G, D, precision=precision)
        losses[precision] = step(batch)
        for net in (G, D):
            assert {parameter.dtype for parameter in net.parameters()} == {torch.float32}
            assert {buffer.dtype for buffer in net.buffers() if buffer.is_floating_point()} <= {torch.float32}
        step(batch)
    assert dtypes == {torch.bfloat16}, "the convolutions of D did not run in bfloat16"
    for name, loss in losses["bfloat16"].items():
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(losses["float32"][name].item(), rel=0.05)


@pytest.mark.parametrize("size", [(13, 18), (16, 17), (5, 6)])
def test_images_of_any_size_are_padded_for_G_and_cropped_back(size: tuple[int, int]) -> None:
    G, _ = our_networks("instance", *plain_networks("instance"))
    A, B = torch.rand(1, 3, *size).double(), torch.rand(1, 2, *size).double()
    bottom, right = (-side % G.size_multiple for side in size)
    with torch.no_grad():
        expected = G(F.pad(A, (0, right, 0, bottom), mode="reflect"))[..., : size[0], : size[1]]
    step = Pix2PixStep(G, None, use_GAN=False)
    losses = step({"A": A, "B": B})
    assert step.fake is not None
    assert step.fake.shape == B.shape
    torch.testing.assert_close(step.fake, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(losses["G_L1"], 100 * (expected - B).abs().mean())


def test_a_network_that_is_no_module_is_named() -> None:
    G, D = plain_networks("batch")
    for networks, name in (((3, D), "G"), ((G, "D"), "D")):
        with pytest.raises(TypeError, match=rf"^{name} must be a torch\.nn\.Module, got (int|str)$"):
            Pix2PixStep(*networks)


def test_a_batch_without_an_image_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^batch must have 'B' with these options, got 'A'$"):
        Pix2PixStep(*plain_networks("batch"))({"A": draw_batch()["A"]})


def test_the_fake_of_the_step_is_kept_without_its_graph() -> None:
    G, D = plain_networks("batch")
    batch = draw_batch()
    with torch.no_grad():
        expected = G(batch["A"])
    step = Pix2PixStep(G, D)
    step(batch)
    assert step.fake is not None
    assert not step.fake.requires_grad
    assert torch.equal(step.fake, expected)


class Looking(Constant):
    """A discriminator that keeps what it is shown."""

    def __init__(self, seen: list[Tensor]) -> None:
        super().__init__(0.0)
        self.seen = seen

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach())
        return super().forward(x)


def test_D_sees_the_input_first_then_the_image() -> None:
    G, _ = plain_networks("batch")
    seen: list[Tensor] = []
    batch = draw_batch()
    step = Pix2PixStep(G, Looking(seen))
    step(batch)
    fake, real, again = seen
    assert torch.equal(real, torch.cat([batch["A"], batch["B"]], 1))
    assert torch.equal(fake, torch.cat([batch["A"], step.fake], 1))
    assert torch.equal(again, fake)


def test_the_pool_shows_D_earlier_pairs() -> None:
    G, _ = plain_networks("batch")
    seen: list[Tensor] = []
    step = Pix2PixStep(G, Looking(seen), pool_size=2)
    batches = [draw_batch() for _ in range(10)]
    for batch in batches:
        step(batch)
    first = torch.cat([batch["A"] for batch in batches])
    shown = torch.cat(seen[::3])[:, :3]
    newest = (shown == first).flatten(1).all(1)
    assert 0 < newest.sum() < len(newest), "D saw only new pairs, or only old ones"
    for pair in shown:
        assert (pair == first).flatten(1).all(1).any(), "D saw a pair that never was"


def test_set_lr_reaches_both_optimisers() -> None:
    step = Pix2PixStep(*plain_networks("batch"), lr=1e-3)
    step.set_lr(5e-5)
    groups = [*step.optimizer_G.param_groups, *step.optimizer_D.param_groups]
    assert [group["lr"] for group in groups] == [5e-5, 5e-5]


def test_the_optimisers_are_adam_as_the_paper_has_it() -> None:
    step = Pix2PixStep(*plain_networks("batch"))
    for optimizer in (step.optimizer_G, step.optimizer_D):
        assert isinstance(optimizer, torch.optim.Adam)
        (group,) = optimizer.param_groups
        assert (group["lr"], group["betas"], group["eps"]) == (2e-4, (0.5, 0.999), 1e-8)
        assert group["weight_decay"] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "float16"}, "precision must be one of float32, bfloat16, got 'float16'"),
        ({"pixel_loss": "ssim"}, "pixel_loss must be one of l1, l2, got 'ssim'"),
        ({"gan_mode": "lsgam"}, "gan_mode must be one of .*, got 'lsgam'"),
        ({"use_GAN": False, "use_L1": False}, "use_GAN and use_L1 must not both be off"),
        ({"D": None}, "D must be given with use_GAN=True, got None"),
        ({"pool_size": -1}, "size must not be negative, got -1"),
    ],
)
def test_what_cannot_work_is_refused_when_the_step_is_made(options: dict[str, object], message: str) -> None:
    G, D = plain_networks("batch")
    with pytest.raises(ValueError, match=f"^{message}"):
        Pix2PixStep(G, **{"D": D, **options})
