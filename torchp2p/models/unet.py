"""The U-Net generators of pix2pix, with 7 levels (128x128) or 8 (256x256). Spec section 2.2.

The original applies an in-place LeakyReLU to what it also concatenates as the skip, and a ReLU to the
concatenation. Here the two halves of a concatenation are rectified where they are made: the up path by its
norm (ReLU commutes with the dropout in between), the skip as relu(x), for relu(leaky_relu(x)) = relu(x).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchp2p.models.initialise import init_weights
from torchp2p.models.layers import (
    DROPOUT,
    require_choice,
    require_multiple,
    require_positive,
    sequential,
    uses_bias,
)
from torchp2p.nn import NormAct

VARIANTS = ("pytorch", "paper")


def unet_128(
    input_nc: int,
    output_nc: int,
    ngf: int = 64,
    norm: str = "batch",
    use_dropout: bool = True,
    variant: str = "pytorch",
) -> UnetGenerator:
    """The 7-level U-Net, for sizes that are multiples of 128; see ``UnetGenerator``."""
    return UnetGenerator(input_nc, output_nc, 7, ngf, norm, use_dropout, variant)


def unet_256(
    input_nc: int,
    output_nc: int,
    ngf: int = 64,
    norm: str = "batch",
    use_dropout: bool = True,
    variant: str = "pytorch",
) -> UnetGenerator:
    """The 8-level U-Net, for sizes that are multiples of 256; see ``UnetGenerator``."""
    return UnetGenerator(input_nc, output_nc, 8, ngf, norm, use_dropout, variant)


class UnetGenerator(nn.Module):
    """Convolutions 4/2/1 down to 1/2**num_downs of the size and back up, with skips between equal sizes.

    Args:
        input_nc, output_nc: channels of the image in and out.
        num_downs: levels, at least 5.
        ngf: channels of the outermost level; they double with each level up to 8 ngf.
        norm: ``batch``, ``instance`` or ``none``.
        use_dropout: dropout of one half on the levels that the variant names.
        variant: ``pytorch`` concatenates [skip, up] and has dropout on the levels between the innermost one
            and the four outermost; ``paper`` (the Torch7 original) concatenates [up, skip] and has it on the
            three innermost. Their state_dict keys and shapes are the same, their channel order is not.

    ``forward``: (N, input_nc, H, W) to (N, output_nc, H, W) in [-1, 1]; H and W multiples of
    ``size_multiple``, ValueError otherwise. Weights start as ``init_weights`` makes them.

    Raises:
        ValueError: unknown ``norm`` or ``variant``, a count that is not positive, ``num_downs`` below 5.
    """

    size_multiple: int

    def __init__(
        self,
        input_nc: int,
        output_nc: int,
        num_downs: int,
        ngf: int = 64,
        norm: str = "batch",
        use_dropout: bool = True,
        variant: str = "pytorch",
    ) -> None:
        require_positive(input_nc=input_nc, output_nc=output_nc, ngf=ngf)
        require_choice("variant", variant, VARIANTS)
        if num_downs < 5:
            raise ValueError(f"num_downs must be at least 5, got {num_downs!r}")
        super().__init__()
        self.size_multiple = 2**num_downs
        innermost = num_downs - 1
        dropped = range(4, innermost) if variant == "pytorch" else range(innermost - 2, innermost + 1)
        widths = [ngf * min(2**level, 8) for level in range(num_downs)]

        inside: UnetLevel | None = None
        for level in range(innermost, 0, -1):
            inside = UnetLevel(
                widths[level - 1],
                widths[level],
                inside,
                norm=norm,
                activate_input=level == 1,
                dropout=use_dropout and level in dropped,
                skip_first=variant == "pytorch",
            )
        assert inside is not None
        outermost = {
            "0": nn.Conv2d(input_nc, ngf, 4, 2, 1, bias=uses_bias(norm)),
            "1": inside,
            "3": nn.ConvTranspose2d(2 * ngf, output_nc, 4, 2, 1),
            "4": nn.Tanh(),
        }
        self.model = sequential({"model": sequential(outermost)})
        init_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        """Translate the images; shapes as the class says."""
        require_multiple(x, self.size_multiple)
        result: Tensor = self.model(x)
        return result


class UnetLevel(nn.Module):
    """One level below the outermost: x and its way down and up again, both rectified and concatenated.

    Args:
        outer_nc: channels of x, and of each half of the result.
        inner_nc: channels after the down convolution.
        inside: the next level, or None for the innermost, whose down convolution has no norm: at 1x1 and
            batch 1 it would leave nothing.
        activate_input: apply the LeakyReLU in front of the down convolution here (in place); where a norm
            comes before this level, that norm has applied it.
        dropout: dropout on the up path.
        skip_first: concatenate [x, up]; otherwise [up, x].
    """

    def __init__(
        self,
        outer_nc: int,
        inner_nc: int,
        inside: UnetLevel | None,
        *,
        norm: str,
        activate_input: bool,
        dropout: bool,
        skip_first: bool,
    ) -> None:
        super().__init__()
        self.skip_first = skip_first
        bias = uses_bias(norm)
        layers: dict[str, nn.Module] = {}
        if activate_input:
            layers["0"] = nn.LeakyReLU(0.2, inplace=True)
        layers["1"] = nn.Conv2d(outer_nc, inner_nc, 4, 2, 1, bias=bias)
        if inside is None:
            layers["2"] = nn.ReLU(inplace=True)
            up, up_nc = 3, inner_nc
        else:
            layers["2"] = NormAct(inner_nc, norm=norm, act="leaky_relu")
            layers["3"] = inside
            up, up_nc = 5, 2 * inner_nc
        layers[f"{up}"] = nn.ConvTranspose2d(up_nc, outer_nc, 4, 2, 1, bias=bias)
        layers[f"{up + 1}"] = NormAct(outer_nc, norm=norm, act="relu")
        if dropout:
            layers[f"{up + 2}"] = nn.Dropout(DROPOUT)
        self.model = sequential(layers)

    def forward(self, x: Tensor) -> Tensor:
        """(N, outer_nc, H, W) to (N, 2 outer_nc, H, W), H and W even."""
        up = self.model(x)
        skip = F.relu(x)
        return torch.cat([skip, up] if self.skip_first else [up, skip], dim=1)
