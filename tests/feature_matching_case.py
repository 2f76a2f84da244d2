"""Pairs of tensors for ``feature_matching_loss``, and the loss and its gradients: ours, eager's, the oracle's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from op_testing import assert_as_exact_as_eager, leaf, ulps_from
from torch import Tensor

from torchp2p.ops import feature_matching_loss
from torchp2p.reference.norm_act import statistics_dtype

SHAPES = ((2, 3, 9, 11), (1, 64, 5, 7), (3000,), (1,), ())
WEIGHTS = [1.0, -0.5, 3.0, 0.0, 10.0]

Tensors = Sequence[Tensor]
Result = tuple[Tensor, list[Tensor]]
"""The loss, and the gradients of the fake tensors."""


def random_pairs(
    shapes: Sequence[tuple[int, ...]], dtype: torch.dtype, device: torch.device | str = "cpu"
) -> tuple[list[Tensor], list[Tensor]]:
    """Fake and real tensors. Some values are equal, so that all three signs occur."""
    fake = [torch.randn(shape).to(device, dtype) for shape in shapes]
    real = [torch.where(torch.rand_like(f, dtype=torch.float32) < 0.2, f, torch.randn_like(f)) for f in fake]
    return fake, real


def ours(
    fake: Tensors, real: Tensors, weights: Sequence[float], grad: float = 1.0, backend: str | None = None
) -> Result:
    leaves = [leaf(f) for f in fake]
    loss = feature_matching_loss(leaves, real, weights, backend=backend)
    return loss.detach(), list(torch.autograd.grad(loss, leaves, torch.full_like(loss, grad)))


def eager(fake: Tensors, real: Tensors, weights: Sequence[float], grad: float = 1.0) -> Result:
    """By torch's own function; the loss then in the dtype in which ours is."""
    leaves = [leaf(f) for f in fake]
    loss = torch.stack([F.l1_loss(f, r) * w for f, r, w in zip(leaves, real, weights, strict=True)]).sum()
    grads = torch.autograd.grad(loss, leaves, torch.full_like(loss, grad))
    return loss.detach().to(statistics_dtype(loss.dtype)), list(grads)


def assert_exact(
    fake: Tensors, real: Tensors, weights: Sequence[float], backend: str | None, grad: float = 1.0
) -> None:
    """The loss within the bound of eager's error; every gradient, being a rounded number, within two ULP."""
    loss, grads = ours(fake, real, weights, grad, backend)
    in_eager, _ = eager(fake, real, weights, grad)
    exact, exact_grads = eager([f.double() for f in fake], [r.double() for r in real], weights, grad)
    pairs = zip(fake, real, weights, strict=True)
    magnitude = sum(abs(w) * (f.double() - r.double()).abs().mean().item() for f, r, w in pairs)
    assert_as_exact_as_eager("loss", loss, in_eager, exact, 4 * magnitude)
    for i, (found, wanted) in enumerate(zip(grads, exact_grads, strict=True)):
        assert found.dtype == fake[i].dtype
        assert ulps_from(found, wanted).max() <= 2, f"gradient {i}"
