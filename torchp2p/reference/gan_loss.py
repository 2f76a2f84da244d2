"""PatchGAN loss reduction in plain PyTorch: mean over each map, sum over maps.

Modes (spec sections 4.1, 4.2; M = elements of one map p; d = for_discriminator):

=========  ==============================  ==============================
mode       target real                     target fake
=========  ==============================  ==============================
vanilla    mean softplus(-p)               mean softplus(p)
lsgan      mean (p - 1)^2                  mean p^2
hinge, d   mean relu(1 - p)                mean relu(1 + p)
hinge      -mean p                         (refused)
wgan       -mean p                         mean p
=========  ==============================  ==============================
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from torchp2p.reference.norm_act import statistics_dtype


def gan_loss(maps: Sequence[Tensor], target_is_real: bool, mode: str, for_discriminator: bool) -> Tensor:
    """Sum over maps of the mean loss; a float32 scalar (float64 for float64 maps). An empty map gives nan."""
    acc = statistics_dtype(maps[0].dtype)
    terms = [_pointwise(p.to(acc), target_is_real, mode, for_discriminator).mean() for p in maps]
    return torch.stack(terms).sum()


def gan_loss_slopes(maps: Sequence[Tensor], target_is_real: bool, mode: str, for_discriminator: bool) -> list[Tensor]:
    """The gradient of ``gan_loss`` with respect to each map, float32 (float64), in the map's layout.

    Not in the map's dtype: one part in ten thousand pixels of a slope is below what float16 holds.
    """
    acc = statistics_dtype(maps[0].dtype)
    return [_pointwise_slope(p.to(acc), target_is_real, mode, for_discriminator) / max(p.numel(), 1) for p in maps]


def gan_loss_with_slopes(
    maps: Sequence[Tensor], target_is_real: bool, mode: str, for_discriminator: bool, with_slopes: bool
) -> tuple[Tensor, list[Tensor]]:
    """``gan_loss`` and, where asked for, ``gan_loss_slopes``: what a kernel takes in one read of the maps."""
    options = (target_is_real, mode, for_discriminator)
    return gan_loss(maps, *options), gan_loss_slopes(maps, *options) if with_slopes else []


def _pointwise(p: Tensor, real: bool, mode: str, for_discriminator: bool) -> Tensor:
    if mode == "vanilla":
        # Not F.softplus: that switches to the identity at 20 and is a little off just above.
        return -F.logsigmoid(p if real else -p)
    if mode == "lsgan":
        return (p - (1.0 if real else 0.0)).square()
    if mode == "hinge" and for_discriminator:
        return F.relu(1 - p if real else 1 + p)
    return -p if real else p


def _pointwise_slope(p: Tensor, real: bool, mode: str, for_discriminator: bool) -> Tensor:
    if mode == "vanilla":
        return -torch.sigmoid(-p) if real else torch.sigmoid(p)
    if mode == "lsgan":
        return 2 * (p - (1.0 if real else 0.0))
    if mode == "hinge" and for_discriminator:
        margin = 1 - p if real else 1 + p
        return torch.full_like(p, -1.0 if real else 1.0).masked_fill(margin <= 0, 0.0)
    return torch.full_like(p, -1.0 if real else 1.0)
