"""What several images have in front of them in common, put through the first convolution once for all of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor

from torchp2p.models.inputs import LabelMap


class Shared(NamedTuple):
    """Channels that several images have in common, as the first convolutions respond to them.

    Attributes:
        channels: how many.
        responses: one for each scale, the full size first.
    """

    channels: int
    responses: list[Tensor]


def convolved_part(conv: Any, x: Tensor | LabelMap, channels: slice, bias: bool = False) -> Tensor:
    """What ``conv`` makes of some of its input channels, where the others are 0."""
    weights = conv.weight[:, channels], conv.bias if bias else None
    if isinstance(x, LabelMap):
        return x.convolved(*weights, conv.stride, conv.padding, "zeros")
    return F.conv2d(x, *weights, conv.stride, conv.padding)
