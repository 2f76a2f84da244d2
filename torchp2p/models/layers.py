"""What the networks share: the bias rule, Sequentials with the original indices, residual blocks.

The networks are Sequentials whose children carry the indices of the original layout in their names, which
keeps every state_dict key. A ``NormAct`` stands at the index of the norm and does the work of the activation
and of the reflection pad that followed it; their indices are simply vacant. Source: spec sections 2.1, 2.4.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from torchp2p.nn import NormAct
from torchp2p.nn.conv_norm_act import chained, convolved
from torchp2p.ops import Deferred

NORMS = ("batch", "instance", "none")
PADDING_TYPES = ("reflect", "replicate", "zero")
DROPOUT = 0.5


def require_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise ValueError naming the argument and its choices unless ``value`` is one of them."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def require_positive(**counts: int) -> None:
    """Raise ValueError naming the first argument that is not a positive int (channels, layers, blocks)."""
    for name, value in counts.items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a positive int, got {value!r}")


def require_multiple(x: Tensor, multiple: int) -> None:
    """Raise ValueError unless x is (N, C, H, W) with H and W multiples of ``multiple`` (spec section 2.8)."""
    if x.dim() != 4:
        raise ValueError(f"the image must be (N, C, H, W), got shape {tuple(x.shape)}")
    if x.shape[2] % multiple or x.shape[3] % multiple or 0 in x.shape[2:]:
        raise ValueError(
            f"height and width must be multiples of {multiple} for this network, got "
            f"{x.shape[2]}x{x.shape[3]}; torchp2p.models.run_padded takes any size"
        )


def uses_bias(norm: str) -> bool:
    """Whether convolutions in front of a norm have a bias: only with instance norm (spec section 2.1).

    ``none`` has neither norm nor bias, as in the original.
    """
    require_choice("norm", norm, NORMS)
    return norm == "instance"


def sequential(layers: dict[str, nn.Module]) -> nn.Sequential:
    """A Sequential of ``layers`` in their order, each named by its index in the original layout."""
    return Layers(OrderedDict(layers))


class Layers(nn.Sequential):
    """A Sequential whose convolutions take the algorithm that is fastest, or that ``torchp2p.algorithm`` says."""

    def forward(self, x: Tensor) -> Tensor:
        """What the layers make of x, one after the other."""
        for layer in self:
            x = convolved(layer, x) if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)) else layer(x)
        return x


class ResidualBlock(nn.Module):
    """x + norm(conv(pad(dropout(relu(norm(conv(pad(x)))))))), nothing after the sum (spec section 2.4).

    Keys are those of the original ``conv_block``: the second convolution has index 5, or 6 with dropout; with
    ``padding_type="zero"`` the pads vanish and the convolutions have indices 0 and 3, or 4 with dropout.

    Args:
        channels: C of input and output.
        norm: ``batch``, ``instance`` or ``none``.
        padding_type: ``reflect``, ``replicate`` or ``zero``.
        use_dropout: dropout of one half between the activation and the second pad.
        bias: whether the convolutions have a bias.

    ``forward``: (N, C, H, W) to the same. ``reflect`` needs H and W of at least 2.
    """

    def __init__(
        self,
        channels: int,
        *,
        norm: str,
        padding_type: str = "reflect",
        use_dropout: bool = False,
        bias: bool,
    ) -> None:
        require_choice("padding_type", padding_type, PADDING_TYPES)
        super().__init__()
        zero = padding_type == "zero"
        self.pad_mode = "zeros" if zero else padding_type

        def conv() -> nn.Conv2d:
            return nn.Conv2d(channels, channels, 3, padding=1 if zero else 0, bias=bias)

        first = 0 if zero else 1
        second = (3 if zero else 5) + (1 if use_dropout else 0)
        layers: dict[str, nn.Module] = {
            f"{first}": conv(),
            f"{first + 1}": NormAct(channels, norm=norm, act="relu"),
        }
        if use_dropout:
            layers[f"{first + 3}"] = nn.Dropout(DROPOUT)
        layers[f"{second}"] = conv()
        layers[f"{second + 1}"] = NormAct(channels, norm=norm, act="none")
        self.conv_block = sequential(layers)

    def forward(self, x: Tensor, *, defer: bool = False) -> Tensor | Deferred:
        """Run the block as a chain: each convolution pads for itself, the last norm adds x in the same pass.

        With ``defer`` that last pass is left to whoever reads the result.
        """
        layers: list[Any] = list(self.conv_block)
        conv1, norm1, *dropout, conv2, norm2 = layers
        # Dropout comes before the second pad (the border must mirror what was dropped), so it needs the
        # activation; without it the activation is made on the way into the second convolution.
        h: Any = chained(conv1, norm1, x, pad_mode=self.pad_mode, padding=1, defer=not dropout)
        for layer in dropout:
            h = layer(h)
        return chained(conv2, norm2, h, x, pad_mode=self.pad_mode, padding=1, defer=defer)
