"""``Chain``: a Sequential of convolutions, norms and residual blocks that keeps no activation."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, cast

from torch import Tensor, nn

from torchp2p.models.layers import ResidualBlock
from torchp2p.nn.conv_norm_act import chained
from torchp2p.ops import Deferred


class Chain(nn.Sequential):
    """Convolutions, each followed by its NormAct, and residual blocks, run as one chain.

    Each layer hands on its raw output, and the next one normalises, activates and pads it on its way into its
    convolution, so what is kept for the backward pass is one tensor a convolution and one a residual block. Names
    of the children are free, as in any Sequential; so are hooks on them.

    Args:
        layers: in their order, each named by its index in the original layout.
    """

    def __init__(self, layers: dict[str, nn.Module]) -> None:
        super().__init__(OrderedDict(layers))

    def forward(self, x: Any, *, defer: bool = False) -> Any:
        """(N, C, H, W) or a Deferred of it in, a tensor out; with ``defer`` what the last layer hands on."""
        layers = iter(self)
        for layer in layers:
            if isinstance(layer, ResidualBlock):
                x = layer(computed(x), defer=True)
            else:
                x = chained(cast(nn.Conv2d, layer), cast(Any, next(layers)), x, defer=True)
        return x if defer else computed(x)


def computed(x: Tensor | Deferred) -> Tensor:
    """The tensor that ``x`` is or stands for."""
    return x.tensor() if isinstance(x, Deferred) else x
