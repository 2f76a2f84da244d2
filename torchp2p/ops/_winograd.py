"""Winograd's minimal filtering: 3x3 convolutions of stride 1 with fewer multiplications, exact but for rounding.

A tile of m x m results is made of (m + 2)^2 products instead of 9 m^2, in a basis of as many "frequencies":
y = output(input(x) * filter(w)). Native code transforms what fits the cache, multiplies it, one matrix product over the
channels for each frequency, and transforms it back. Gradients go back through the adjoints of the same transforms.

Tiles of 2x2 save more than half of the multiplications, and rounding errors are at most twice those of a direct
convolution: they are taken unasked where they were measured to be faster. Tiles of 4x4 save three quarters, but lose
between two and three bits: they are for who asks for them.

Images of bfloat16 are transformed in float32; frequencies are rounded once. Where the CPU multiplies pairs of bfloat16
numbers (AVX512-BF16) that takes half the time of float32. Weights of float32, as training in autocast has them, are
then rounded once too, among their frequencies, where torch rounds them before it convolves: so errors are at most about
twice torch's, and it is taken unasked. Weights of bfloat16 have been rounded already: there it is for who asks.

Source: spec section 11.1 (where the multiplications are); Lavin and Gray, "Fast Algorithms for Convolutional Neural
Networks", 2015.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from torchp2p.ops import _native
from torchp2p.reference.conv_norm_act import Convolution
from torchp2p.reference.norm_act import memory_format_of

TILES = {"winograd": 2, "winograd_4x4": 4}
"""The side of a tile of results, by the name of the algorithm."""

_DTYPES = {
    "winograd": (torch.float32, torch.float64, torch.bfloat16),
    "winograd_4x4": (torch.float32, torch.float64),
}

# Measured: from so many channels, in and out, and so many tiles on, tiles of 2x2 take 0.5 to 0.65 of oneDNN's time.
# Fewer channels would be too few panels for the threads, and images that have so few have the largest frequencies.
_CHANNELS, _TILES = 128, 16


def unavailable(x: Tensor, weight: Tensor, conv: Convolution, algorithm: str) -> str:
    """Why this convolution cannot be taken so; empty if it can."""
    if x.device.type != "cpu":
        return f"the Winograd convolution runs on the CPU, not on {x.device.type}"
    if x.dtype not in _DTYPES[algorithm]:
        return f"the Winograd convolution is for float32, float64 and, by tiles of 2x2, bfloat16, not {x.dtype}"
    if conv.transposed or tuple(conv.stride) != (1, 1) or tuple(weight.shape[2:]) != (3, 3):
        return "the Winograd convolution is for 3x3 kernels of stride 1"
    return _native.unavailable("cpu", x.dtype)


def pays(x: Tensor, weight: Tensor, conv: Convolution) -> bool:
    """Whether it is known to be faster than oneDNN, and as exact."""
    if x.dtype == torch.float64 or min(weight.shape[:2]) < _CHANNELS or unavailable(x, weight, conv, "winograd"):
        return False
    if x.dtype == torch.bfloat16 and (weight.dtype != torch.float32 or not _native.multiplies_bfloat16()):
        return False
    rows, columns = (-(-conv.output_size(dim, x.shape[2 + dim], 3) // TILES["winograd"]) for dim in (0, 1))
    return bool(x.shape[0] * rows * columns >= _TILES)


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, conv: Convolution, algorithm: str) -> Tensor:
    """``torchp2p.reference.conv_norm_act.convolve`` by tiles.

    Args:
        x: (N, C, H, W), any strides; padded as ``conv.border`` says.
        weight, bias: (O, C, 3, 3), and (O,) or None; both of the dtype of x, or both float32 for bfloat16.
        algorithm: one of ``TILES``.

    Returns:
        (N, O, H', W'), of the dtype of x, in the layout of the reference's result.
    """
    pad, _ = conv.own_padding
    n, _, h, w = x.shape
    outputs = weight.shape[0]
    last = torch.channels_last
    layout = last if last in (memory_format_of(x), memory_format_of(weight)) else torch.contiguous_format
    y = torch.empty((n, outputs, h + 2 * pad - 2, w + 2 * pad - 2), dtype=x.dtype, memory_format=layout)
    _run("forward", (x, weight, bias, y), (x, weight, y), x, weight, pad, TILES[algorithm])
    return y


def convolve_backward(
    grad: Tensor, x: Tensor, weight: Tensor, conv: Convolution, needs: tuple[bool, bool, bool], algorithm: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias; empty where not needed. Only the weight's gradient reads the values of x."""
    m, (pad, _) = TILES[algorithm], conv.own_padding
    grad_x, grad_weight = grad.new_empty(0), grad.new_empty(0)
    if needs[0]:
        grad_x = torch.empty(x.shape, dtype=x.dtype, memory_format=memory_format_of(x))
        _run("input", (grad, weight, grad_x), (grad, weight, grad_x), x, weight, pad, m)
    if needs[1]:
        grad_weight = torch.empty_like(weight)
        _run("weight", (grad, x, grad_weight), (grad, x, grad_weight), x, weight, pad, m)
    return grad_x, grad_weight, grad.sum((0, 2, 3), dtype=weight.dtype) if needs[2] else grad.new_empty(0)


def _run(
    name: str, tensors: Sequence[Tensor | None], strided: Sequence[Tensor], x: Tensor, weight: Tensor, pad: int, m: int
) -> None:
    """An entry point of ``csrc/include/torchp2p/winograd.h``."""
    status: int = getattr(_native.C, f"winograd_{name}")(
        *map(_native.address, tensors), *(tensor.stride() for tensor in strided),
        tuple(x.shape), weight.shape[0], pad, m, _native.DTYPE_CODES[x.dtype], _native.DTYPE_CODES[weight.dtype],
    )  # fmt: skip
    _native.raise_for_status(status, f"winograd_{name}", f"x of {tuple(x.shape)} and weight of {tuple(weight.shape)}")
