"""Fifty steps of training in float64 end where fifty steps of the original procedure end, from one seed.

Three steps of every option are compared in ``test_pix2pix_step.py`` and ``test_pix2pixhd_step.py``. Fifty let grow
whatever was left out, counted twice or updated in another order. The bound is 1e-8 of the largest value of each loss,
weight and running statistic.

What rounding does: 1e-11 in what has an effect. Biases in front of an instance norm have none, and a gradient that is
exactly 0 in ours and rounding noise of 1e-17 in the original, which Adam divides by sqrt(v) + 1e-8: they drift by up
to 1e-9 in fifty steps and are held to the same bound.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
from network_testing import randomise
from pix2pix_case import adam, our_networks, plain_networks, with_the_weights_of
from pix2pix_case import draw_batch as draw_pair
from pix2pixhd_case import Setting, draw_batch
from torch import Tensor, nn

from benchmarks.plain.pix2pix import PlainPatchDiscriminator, PlainUnet
from benchmarks.plain.steps import plain_step
from torchp2p.models import PatchDiscriminator, unet_128, unet_256
from torchp2p.train import Lean, Pix2PixStep

STEPS = 50
BATCHES = 4
"""Drawn once and shown in turn: a data set so small that the networks do learn it."""
BOUND = 1e-8

Losses = Mapping[str, Tensor]
Pair = tuple[nn.Module, nn.Module]


# --- helpers ----------------------------------------------------------------------------------------------


def largest_difference(ours: Losses, plain: Losses) -> tuple[float, str]:
    """In units of the largest value of each tensor; and which tensor it is of."""
    assert ours.keys() == plain.keys()
    return max(
        (((mine.double() - plain[name].double()).abs().max() / plain[name].double().abs().max()).item(), name)
        for name, mine in ours.items()
    )


def state_difference(ours: nn.Module, plain: nn.Module) -> tuple[float, str]:
    """Of weights and running statistics, which are paired by their order."""
    names, values = list(ours.state_dict()), plain.state_dict().values()
    return largest_difference(ours.state_dict(), dict(zip(names, values, strict=True)))


def train(
    step: Callable[[dict[str, Tensor]], Losses],
    plain: Callable[[dict[str, Tensor]], Losses],
    batches: list[dict[str, Tensor]],
    steps: int = STEPS,
) -> tuple[float, str]:
    """Both for so many steps; the largest difference of a loss."""
    worst = (0.0, "")
    for number in range(steps):
        batch = batches[number % len(batches)]
        difference, name = largest_difference(step(batch), plain(batch))
        worst = max(worst, (difference, f"{name} of step {number + 1}"))
    return worst


def assert_same_training(of_losses: tuple[float, str], networks: Mapping[str, Pair]) -> None:
    found = {"losses": of_losses} | {label: state_difference(*pair) for label, pair in networks.items()}
    assert all(difference <= BOUND for difference, _ in found.values()), found


def u_nets(levels: int = 7, ngf: int = 2) -> tuple[Pair, Pair]:
    """Batch norm, no dropout."""
    plain_G = PlainUnet(3, 2, levels, ngf, norm="batch").double()
    plain_D = PlainPatchDiscriminator(5, ndf=ngf, n_layers=3, norm="batch").double()
    randomise(plain_G, 1)
    randomise(plain_D, 2)
    G = (unet_128 if levels == 7 else unet_256)(3, 2, ngf=ngf, use_dropout=False)
    ours = with_the_weights_of(plain_G, G), with_the_weights_of(plain_D, PatchDiscriminator(5, ndf=ngf))
    return ours, (plain_G, plain_D)


def resnets() -> tuple[Pair, Pair]:
    """Instance norm."""
    plain = plain_networks("instance")
    return our_networks("instance", *plain), plain


def train_pix2pix(
    nets: tuple[Pair, Pair], size: int, steps: int = STEPS, **options: object
) -> tuple[tuple[float, str], dict[str, Pair]]:
    """The largest difference of a loss, and the networks that have been trained."""
    ours, plain = nets
    optimizers = [adam(net) for net in plain]

    def original(batch: dict[str, Tensor]) -> Losses:
        return plain_step(*plain, *optimizers, batch["A"], batch["B"], torch.Generator())

    batches = [draw_pair(size) for _ in range(BATCHES)]
    found = train(Pix2PixStep(*ours, **options), original, batches, steps)
    return found, {"G": (ours[0], plain[0]), "D": (ours[1], plain[1])}


def train_pix2pixhd(setting: Setting, steps: int = STEPS) -> tuple[tuple[float, str], dict[str, Pair]]:
    optimizers = setting.plain_adam("G", "E"), setting.plain_adam("D")
    batches = [draw_batch() for _ in range(BATCHES)]
    found = train(setting.step(), lambda batch: setting.plain_step(*optimizers, batch), batches, steps)
    return found, {label: (net, setting.plain[label]) for label, net in setting.ours.items()}


# --- the proofs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("networks", "size"), [(u_nets, 128), (resnets, 16)], ids=["u_net", "resnet"])
def test_pix2pix_ends_where_the_original_ends(networks: Callable[[], tuple[Pair, Pair]], size: int) -> None:
    assert_same_training(*train_pix2pix(networks(), size))


@pytest.mark.parametrize("netG", ["global", "local1"])
def test_pix2pixhd_with_feature_matching_and_vgg_ends_where_the_original_ends(netG: str) -> None:
    assert_same_training(*train_pix2pixhd(Setting(netG, vgg=True)))


def test_pix2pixhd_with_an_encoder_ends_where_the_original_ends() -> None:
    assert_same_training(*train_pix2pixhd(Setting(features=True)))


def test_the_savings_and_the_work_they_save_end_in_the_same_place() -> None:
    wasteful = Lean(share_condition=False, one_batch=False)
    assert_same_training(*train_pix2pix(resnets(), 16, lean=wasteful))


def test_a_learning_rate_that_is_off_by_a_ten_thousandth_would_be_seen() -> None:
    of_losses, networks = train_pix2pix(resnets(), 16, lr=2e-4 * (1 + 1e-4))
    assert of_losses[0] > 100 * BOUND
    assert all(state_difference(*pair)[0] > 10 * BOUND for pair in networks.values())


@pytest.mark.slow
def test_two_hundred_steps_of_wider_u_nets_end_where_the_original_ends() -> None:
    assert_same_training(*train_pix2pix(u_nets(levels=8, ngf=8), 256, steps=200))


@pytest.mark.slow
def test_two_hundred_steps_with_two_enhancers_and_three_scales_end_where_the_original_ends() -> None:
    setting = Setting("local2", norm="batch", num_D=3, n_layers_D=3, features=True, vgg=True)
    assert_same_training(*train_pix2pixhd(setting, steps=200))
