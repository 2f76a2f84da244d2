"""``Chain``: a Sequential of convolutions, norms and residual blocks that keeps no activation."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from functools import partial
from typing import Any, cast

from torch import Tensor, nn

from torchp2p.models.inputs import LabelMap
from torchp2p.models.layers import ResidualBlock
from torchp2p.models.recompute import recomputes, run_stretch
from torchp2p.nn import NormAct
from torchp2p.nn.conv_norm_act import chained, followed, has_hooks
from torchp2p.ops import Deferred


class Chain(nn.Sequential):
    """Convolutions, each followed by its NormAct, and residual blocks, run as one chain.

    Each layer hands on its raw output, and the next one normalises, activates and pads it on its way into its
    convolution, so what is kept for the backward pass is one tensor a convolution and one a residual block; with
    ``torchp2p.models.recompute`` less. Names of the children are free, as in any Sequential; so are hooks on them.

    Args:
        layers: in their order, each named by its index in the original layout.
    """

    def __init__(self, layers: dict[str, nn.Module]) -> None:
        super().__init__(OrderedDict(layers))

    def forward(self, x: Any, *, defer: bool = False) -> Any:
        """(N, C, H, W), a Deferred or LabelMap of it in, a tensor out; with ``defer`` what the last layer hands on."""
        if not recomputes():
            return _run(self, x, defer)
        for layers in _stretches(self):
            x = run_stretch(partial(_run, layers), x, layers)
        return x


def _run(layers: Iterable[nn.Module], x: Any, defer: bool = False) -> Any:
    """What a Chain of these layers makes of x."""
    layers = iter(layers)
    if isinstance(x, LabelMap):
        x = _first(x, cast(nn.Conv2d, next(layers)), cast(NormAct, next(layers)))
    for layer in layers:
        if isinstance(layer, ResidualBlock):
            x = layer(computed(x), defer=True)
        else:
            x = chained(cast(nn.Conv2d, layer), cast(Any, next(layers)), x, defer=True)
    return x if defer else computed(x)


def _stretches(layers: Iterable[nn.Module]) -> list[list[nn.Module]]:
    """Each residual block, and all that stands between two of them."""
    found: list[list[nn.Module]] = []
    for layer in layers:
        if not found or ResidualBlock in (type(layer), type(found[-1][-1])):
            found.append([])
        found[-1].append(layer)
    return found


def _first(labels: LabelMap, conv: nn.Conv2d, norm: NormAct) -> Any:
    """The first link of a chain that begins with labels; with hooks on it, which want to see a tensor, on those."""
    if has_hooks(conv) or has_hooks(norm):
        return chained(conv, norm, labels.tensor(), defer=True)
    bias = None if norm.hides_constants else conv.bias
    return followed(norm, labels.convolved(conv.weight, bias, conv.stride, conv.padding, conv.padding_mode))


def computed(x: Tensor | Deferred) -> Tensor:
    """The tensor that ``x`` is or stands for."""
    return x.tensor() if isinstance(x, Deferred) else x
