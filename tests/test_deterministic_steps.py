"""Two trainings from one seed are equal bit for bit on the CPU, in any precision, algorithm and number of threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.plain.pix2pixhd import PlainVGG19
from torchp2p.models import (
    GlobalGenerator,
    InstanceEncoder,
    LocalEnhancer,
    MultiscaleDiscriminator,
    PatchDiscriminator,
    unet_128,
)
from torchp2p.train import Lean, Pix2PixHDStep, Pix2PixStep

STEPS = 5
ON_TWO_THREADS = 2
"""Steps are slow where two threads wait for each other and for other tests."""

Step = Callable[[dict[str, Tensor]], dict[str, Tensor]]


def pix2pix(precision: str, algorithm: str | None) -> tuple[Step, dict[str, Tensor], list[nn.Module]]:
    """With dropout, batch norm and the gradient penalty, whose random numbers are drawn as well."""
    G, D = unet_128(3, 3, ngf=8), PatchDiscriminator(6, ndf=8)
    batch = {name: torch.rand(2, 3, 128, 128) * 2 - 1 for name in "AB"}
    step = Pix2PixStep(G, D, precision=precision, gan_mode="wgangp", lean=Lean(algorithm=algorithm))
    return step, batch, [G, D]


def pix2pixhd(
    netG: type[nn.Module], precision: str, algorithm: str | None
) -> tuple[Step, dict[str, Tensor], list[nn.Module]]:
    """With an encoder, VGG and a pool."""
    G, D = netG(5 + 1 + 3, 3, 8, 2, 2), MultiscaleDiscriminator(5 + 1 + 3, 8)
    E, vgg = InstanceEncoder(3, 3, 4, 2), PlainVGG19(width=4).requires_grad_(False)
    ids = torch.arange(2 * 4 * 8).reshape(2, 1, 4, 8).repeat_interleave(16, 2).repeat_interleave(16, 3)
    batch = {"label": ids % 5, "inst": ids, "image": torch.rand(2, 3, 64, 128) * 2 - 1}
    lean = Lean(algorithm=algorithm)
    step = Pix2PixHDStep(G, D, E, label_nc=5, vgg=vgg, precision=precision, pool_size=2, lean=lean)
    return step, batch, [G, D, E]


TRAININGS = {
    "pix2pix": pix2pix,
    "pix2pixhd_global": lambda *how: pix2pixhd(GlobalGenerator, *how),
    "pix2pixhd_local": lambda *how: pix2pixhd(LocalEnhancer, *how),
}


def trained(training: Callable[..., Any], steps: int, *how: str | None) -> list[Tensor]:
    """Every loss of every step, and then every weight and running statistic."""
    torch.manual_seed(0)
    step, batch, networks = training(*how)
    found = [loss for _ in range(steps) for loss in step(batch).values()]
    return found + [value for net in networks for value in net.state_dict().values()]


def assert_deterministic(name: str, steps: int, *how: str | None) -> None:
    first, second = (trained(TRAININGS[name], steps, *how) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    assert all(value.isfinite().all() for value in first)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", TRAININGS)
def test_two_trainings_are_equal_bit_for_bit(name: str, precision: str) -> None:
    assert_deterministic(name, STEPS, precision, None)


@pytest.mark.parametrize("algorithm", ["vendor", "winograd"])
def test_with_every_algorithm_two_trainings_are_equal_bit_for_bit(algorithm: str) -> None:
    assert_deterministic("pix2pixhd_global", STEPS, "float32", algorithm)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["pix2pix", "pix2pixhd_global"])
def test_on_two_threads_two_trainings_are_equal_bit_for_bit(name: str, precision: str) -> None:
    torch.set_num_threads(2)
    assert_deterministic(name, ON_TWO_THREADS, precision, None)
