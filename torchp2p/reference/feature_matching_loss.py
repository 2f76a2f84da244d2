"""Weighted mean absolute differences of tensor pairs in plain PyTorch (spec sections 4.3, 4.4, 4.5).

loss = sum over pairs of weight * mean |fake - real|, the mean over all elements of a pair.
d loss / d fake = weight * sign(fake - real) / numel, sign(0) = 0. ``real`` is a constant.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from torchp2p.reference.norm_act import statistics_dtype


def feature_matching_loss(fake: Sequence[Tensor], real: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """A float32 scalar (float64 for float64 tensors)."""
    acc = statistics_dtype(fake[0].dtype)
    terms = [(f.to(acc) - r.to(acc)).abs().mean() * w for f, r, w in zip(fake, real, weights, strict=True)]
    return torch.stack(terms).sum()


def feature_matching_signs(fake: Sequence[Tensor], real: Sequence[Tensor]) -> list[Tensor]:
    """sign(fake - real) as int8. A nan has none: 0, as in torch."""
    return [(f > r).to(torch.int8) - (f < r).to(torch.int8) for f, r in zip(fake, real, strict=True)]


def feature_matching_loss_with_signs(
    fake: Sequence[Tensor], real: Sequence[Tensor], weights: Sequence[float], wanted: Sequence[bool]
) -> tuple[Tensor, list[Tensor]]:
    """The loss, and the signs of the ``wanted`` pairs, laid out as fake is; of the others nothing."""
    signs = feature_matching_signs(fake, real) if any(wanted) else fake
    return feature_matching_loss(fake, real, weights), [
        torch.empty_like(f, dtype=torch.int8).copy_(sign) if keep else f.new_empty(0, dtype=torch.int8)
        for f, sign, keep in zip(fake, signs, wanted, strict=True)
    ]


def feature_matching_gradients(
    grad: Tensor, fake: Sequence[Tensor], signs: Sequence[Tensor], weights: Sequence[float]
) -> list[Tensor]:
    """The gradient with respect to each of ``fake``, in its dtype, for the gradient ``grad`` of the loss."""
    acc = statistics_dtype(fake[0].dtype)
    return [
        (s.to(acc) * (grad.to(acc) * (w / f.numel()))).to(f.dtype) for f, s, w in zip(fake, signs, weights, strict=True)
    ]
