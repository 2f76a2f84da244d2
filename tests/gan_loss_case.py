"""One call of ``gan_loss``, and the same loss in torch's own functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from op_testing import leaf
from torch import Tensor

from torchp2p.ops import gan_loss
from torchp2p.reference import gan_loss as reference


@dataclass(frozen=True)
class Loss:
    """One row of the definition's table."""

    mode: str
    real: bool
    for_discriminator: bool = True

    def __str__(self) -> str:
        return f"{self.mode}-{'real' if self.real else 'fake'}-{'D' if self.for_discriminator else 'G'}"

    @property
    def options(self) -> tuple[bool, str, bool]:
        return self.real, self.mode, self.for_discriminator

    def __call__(self, predictions: Any, backend: str | None = None) -> Tensor:
        return gan_loss(
            predictions, self.real, self.mode, for_discriminator=self.for_discriminator, backend=backend
        )  # fmt: skip

    def eager(self, p: Tensor) -> Tensor:
        """The mean loss of one map in torch's own functions."""
        if self.mode == "vanilla":
            return F.binary_cross_entropy_with_logits(p, torch.full_like(p, float(self.real)))
        if self.mode == "lsgan":
            return F.mse_loss(p, torch.full_like(p, float(self.real)))
        if self.mode == "hinge" and self.for_discriminator:
            return F.relu(1 - p if self.real else 1 + p).mean()
        return -p.mean() if self.real else p.mean()


EVERY_LOSS = [
    Loss(mode, real, for_discriminator)
    for mode in ("vanilla", "lsgan", "hinge", "wgan")
    for real in (True, False)
    for for_discriminator in (True, False)
    if (mode, real, for_discriminator) != ("hinge", False, False)
]
ONE_OF_EACH_MODE = (Loss("vanilla", True), Loss("lsgan", True), Loss("hinge", False), Loss("wgan", True))

SHAPES = ((2, 1, 30, 31), (1, 1, 14, 14), (3, 1, 5, 7))


def maps_of(dtype: torch.dtype, device: torch.device, shapes: Sequence[tuple[int, ...]] = SHAPES) -> list[Tensor]:
    return [(2 * torch.randn(shape)).to(device, dtype) for shape in shapes]


def with_gradients(function: Callable[[list[Tensor]], Tensor], maps: list[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
    """(value, gradients) of a function of the maps."""
    leaves = [leaf(p) for p in maps]
    value = function(leaves)
    return value.detach(), torch.autograd.grad(value, leaves)


def exact(loss: Loss, maps: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """(value, gradients) by the definition in float64."""
    doubles = [p.double() for p in maps]
    return reference.gan_loss(doubles, *loss.options), reference.gan_loss_slopes(doubles, *loss.options)
