"""The image pyramid that the local enhancer and the multiscale discriminator look at (spec sections 2.6, 3.3)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def pyramid(x: Tensor, levels: int) -> list[Tensor]:
    """``x`` and ``levels - 1`` times its half, the finest first.

    Args:
        x: (N, C, H, W).
        levels: at least 1.

    Returns:
        (N, C, H, W), (N, C, ceil(H / 2), ceil(W / 2)), and so on.
    """
    found = [x]
    while len(found) < levels:
        found.append(half(found[-1]))
    return found


def half(x: Tensor) -> Tensor:
    """The mean over windows of 3x3 pixels at every other pixel, of the pixels that are inside the image.

    The border keeps its brightness. (N, C, H, W) to (N, C, ceil(H / 2), ceil(W / 2)).
    """
    return F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
