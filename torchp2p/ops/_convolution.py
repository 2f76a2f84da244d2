"""A convolution as conv_norm_act takes it: what is refused, in the user's words, and what comes of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torchp2p.ops import _check
from torchp2p.ops.norm_act import PAD_MODES
from torchp2p.reference.conv_norm_act import Convolution
from torchp2p.reference.norm_act import memory_format_of


def pair(name: str, value: Any) -> list[int]:
    """``value`` vertically and horizontally; raise TypeError unless it is an int or two."""
    found = [value, value] if isinstance(value, int) else list(value) if isinstance(value, (tuple, list)) else []
    if len(found) != 2 or not all(isinstance(each, int) for each in found):
        raise TypeError(f"{name} must be an int or a pair of ints, got {value!r}")
    return found


def check_convolution(x: Tensor, weight: Any, bias: Any, conv: Convolution) -> None:
    """Raise unless x, weight and bias have shapes that ``conv`` takes, and there is something to compute."""
    _check.tensor("weight", weight)
    if weight.dim() != 4 or weight.numel() == 0:
        raise ValueError(f"weight must have four dimensions and no empty one, got shape {tuple(weight.shape)}")
    inputs, outputs = (weight.shape[0], weight.shape[1]) if conv.transposed else (weight.shape[1], weight.shape[0])
    if x.shape[1] != inputs:
        raise ValueError(f"x must have the {inputs} input channels of weight, got shape {tuple(x.shape)}")
    if bias is not None:
        _check.tensor("bias", bias)
        if bias.shape != (outputs,):
            raise ValueError(f"bias must have shape ({outputs},), got {tuple(bias.shape)}")
    _check_geometry(conv)
    _check_sizes(x, weight, conv)


def check_kinds(x: Tensor, weight: Tensor, bias: Tensor | None, *, float32_weight: bool = False) -> None:
    """Raise unless weight and bias are on the device of x and of its dtype; of float32 with ``float32_weight``."""
    like = x.new_empty(0, dtype=torch.float32) if float32_weight else x
    _check.same_kind("weight", weight, like)
    if bias is not None:
        _check.same_kind("bias", bias, like)


def output_size(x: Tensor, weight: Tensor, conv: Convolution) -> tuple[int, int]:
    """Height and width of what ``conv`` makes of x, whose border is there already."""
    own = conv._replace(padding=conv.own_padding[0])
    height, width = (own.output_size(dim, x.shape[2 + dim], weight.shape[2 + dim]) for dim in (0, 1))
    return height, width


def empty_output(x: Tensor, weight: Tensor, conv: Convolution) -> Tensor:
    """Memory for what ``conv`` makes of x, whose border is there already, in the layout that torch gives it."""
    last = torch.channels_last in (memory_format_of(x), memory_format_of(weight))
    return torch.empty(
        (x.shape[0], weight.shape[1 if conv.transposed else 0], *output_size(x, weight, conv)),
        dtype=x.dtype,
        device=x.device,
        memory_format=torch.channels_last if last else torch.contiguous_format,
    )


def _check_geometry(conv: Convolution) -> None:
    if not isinstance(conv.padding, int):
        raise TypeError(f"padding must be an int, got {type(conv.padding).__name__}")
    if conv.padding < 0:
        raise ValueError(f"padding must not be negative, got {conv.padding}")
    if min(conv.stride) < 1:
        raise ValueError(f"stride must be at least 1, got {tuple(conv.stride)}")
    _check.one_of("pad_mode", conv.pad_mode, PAD_MODES)
    if conv.transposed and conv.pad_mode != "zeros":
        raise ValueError(f"pad_mode must be 'zeros' for a transposed convolution, got {conv.pad_mode!r}")
    if not conv.transposed and any(conv.output_padding):
        raise ValueError(f"output_padding belongs to a transposed convolution, got {tuple(conv.output_padding)}")
    if not all(0 <= more < step for more, step in zip(conv.output_padding, conv.stride, strict=True)):
        raise ValueError(f"output_padding must be less than stride, got {tuple(conv.output_padding)}")


def _check_sizes(x: Tensor, weight: Tensor, conv: Convolution) -> None:
    height, width = x.shape[2], x.shape[3]
    if conv.pad_mode == "reflect" and conv.padding and (conv.padding >= height or conv.padding >= width):
        raise ValueError(
            f"padding must be smaller than height and width for pad_mode 'reflect', got {conv.padding} "
            f"with x of shape {tuple(x.shape)}"
        )
    if height == 0 or width == 0:
        raise ValueError(f"x must have pixels, got shape {tuple(x.shape)}")
    if min(conv.output_size(dim, x.shape[2 + dim], weight.shape[2 + dim]) for dim in (0, 1)) < 1:
        raise ValueError(
            f"x with its padding must hold the kernel, got x of shape {tuple(x.shape)}, padding {conv.padding} and "
            f"weight of shape {tuple(weight.shape)}"
        )
