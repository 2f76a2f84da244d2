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
from torchp2p.ops._convolution import empty_output, output_size
from torchp2p.reference.conv_norm_act import Convolution
from torchp2p.reference.norm_act import memory_format_of

TILES = {"winograd": 2, "winograd_4x4": 4}
"""The side of a tile of results of a 3x3 kernel of stride 1, by the name of the algorithm."""

_KERNELS = {(3, 1): 2, (3, 2): 3, (4, 1): 3, (4, 2): 3}
"""The side of a tile, without more being asked for, by the kernel and its stride."""

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
    kind = (weight.shape[2], conv.stride[0])
    square = weight.shape[2] == weight.shape[3] and conv.stride[0] == conv.stride[1]
    if algorithm == "winograd_4x4" and (not square or kind != (3, 1) or conv.transposed):
        return "tiles of 4x4 are for 3x3 kernels of stride 1"
    if not square or kind not in _KERNELS or (conv.transposed and conv.stride[0] == 1):
        return "the Winograd convolution is for kernels of 3x3 and 4x4 and strides of 1 and 2, transposed only of 2"
    return _native.unavailable("cpu", x.dtype)


def pays(x: Tensor, weight: Tensor, conv: Convolution) -> bool:
    """Whether it is known to be faster than oneDNN, and as exact."""
    if x.dtype == torch.float64 or min(weight.shape[:2]) < _CHANNELS or unavailable(x, weight, conv, "winograd"):
        return False
    if x.dtype == torch.bfloat16 and (weight.dtype != torch.float32 or not _native.multiplies_bfloat16()):
        return False
    height, width = x.shape[2:] if conv.transposed else output_size(x, weight, conv)
    m = _KERNELS[weight.shape[2], conv.stride[0]]
    return bool(x.shape[0] * -(-height // m) * -(-width // m) >= _TILES)


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, conv: Convolution, algorithm: str) -> Tensor:
    """``torchp2p.reference.conv_norm_act.convolve`` by tiles.

    Args:
        x: (N, C, H, W), any strides; padded as ``conv.border`` says.
        weight, bias: (O, C, 3, 3), and (O,) or None; both of the dtype of x, or both float32 for bfloat16.
        algorithm: one of ``TILES``.

    Returns:
        (N, O, H', W'), of the dtype of x, in the layout of the reference's result.
    """
    if not conv.transposed:
        y = empty_output(x, weight, conv)
        _run("forward", (x, weight, bias, y), (x, weight, y), x, weight, conv, algorithm)
        return y
    y = _image_of_windows(empty_output(x, weight, conv), weight, conv)
    _run("input", (x, weight, y), (x, weight, y), y, weight, conv, algorithm)
    return y if bias is None else y.add_(bias[:, None, None])


def convolve_backward(
    grad: Tensor, x: Tensor, weight: Tensor, conv: Convolution, needs: tuple[bool, bool, bool], algorithm: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias; empty where not needed. Only the weight's gradient reads the values of x."""
    grad_x, grad_weight = grad.new_empty(0), grad.new_empty(0)
    if needs[0]:
        grad_x = torch.empty(x.shape, dtype=x.dtype, memory_format=memory_format_of(x))
        if conv.transposed:
            _run("forward", (grad, weight, None, grad_x), (grad, weight, grad_x), grad, weight, conv, algorithm)
        else:
            grad_x = _image_of_windows(grad_x, weight, conv)
            _run("input", (grad, weight, grad_x), (grad, weight, grad_x), x, weight, conv, algorithm)
    if needs[1]:
        grad_weight = torch.empty_like(weight)
        small, big = (x, grad) if conv.transposed else (grad, x)
        _run("weight", (small, big, grad_weight), (small, big, grad_weight), big, weight, conv, algorithm)
    return grad_x, grad_weight, grad.sum((0, 2, 3), dtype=weight.dtype) if needs[2] else grad.new_empty(0)


def _image_of_windows(big: Tensor, weight: Tensor, conv: Convolution) -> Tensor:
    """``big``, to be filled with what windows hold: 0 where there may be pixels that no window reaches."""
    pad, step, kernel = conv.own_padding[0], conv.stride[0], weight.shape[2]
    reached = all((size + 2 * pad - kernel) % step == 0 for size in big.shape[2:])
    return big if reached else big.zero_()


def _run(
    name: str,
    tensors: Sequence[Tensor | None],
    strided: Sequence[Tensor],
    big: Tensor,
    weight: Tensor,
    conv: Convolution,
    algorithm: str,
) -> None:
    """An entry point of ``csrc/include/torchp2p/winograd.h``, where ``big`` is x.

    A transposed convolution is the gradient of the input of one from its result, ``big``, to what it reads.
    """
    kernel, stride = weight.shape[2], conv.stride[0]
    tile = TILES[algorithm] if (kernel, stride) == (3, 1) else _KERNELS[kernel, stride]
    status: int = getattr(_native.C, f"winograd_{name}")(
        *map(_native.address, tensors), *(tensor.stride() for tensor in strided),
        tuple(big.shape), weight.shape[0], kernel, stride, conv.own_padding[0], tile,
        _native.DTYPE_CODES[big.dtype], _native.DTYPE_CODES[weight.dtype],
    )  # fmt: skip
    _native.raise_for_status(status, f"winograd_{name}", f"x of {tuple(big.shape)} and weight of {tuple(weight.shape)}")
