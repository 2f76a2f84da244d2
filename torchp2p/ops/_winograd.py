"""Winograd's minimal filtering: 3x3 and 4x4 convolutions with fewer multiplications, exact but for rounding.

A tile of m x m results is made of products in a basis of "frequencies", fewer than r^2 m^2 of them: y = output(input(x)
* filter(w)). Native code transforms what fits the cache, multiplies it, one matrix product over the channels for each
frequency, and transforms it back. Gradients go back through the adjoints of the same transforms.

- Stride 1: tiles of 6x6 pixels, which 3x3 kernels make 4x4 results, and 4x4 kernels 3x3. The usual 36 frequencies would
  lose two to three bits. Here there are 46, of polynomials at 0, 1, -1, i, -i and infinity, and no bit is lost: three
  times fewer multiplications.
- Stride 2: the even and the odd rows and columns make four convolutions of stride 1 with r = 2 in one, whose
  frequencies are summed before they are transformed back, by tiles of 3x3. Of 3x3 kernels some parts have one row or
  column of taps, and fewer frequencies.
- A transposed convolution of stride 2 is the gradient of the input of such a one.

Rounding errors are those of a direct convolution, about (at most twice): it is taken unasked where it was measured to
be faster.

Images of bfloat16 are transformed in float32; frequencies are rounded once. Where the CPU multiplies pairs of bfloat16
numbers (AVX512-BF16) that takes half the time of float32. Weights of float32, as training in autocast has them, are
then rounded once too, among their frequencies, where torch rounds them before it convolves: so errors are at most about
twice torch's, and it is taken unasked. The gradient of the weight, where torch rounds nothing but the result, would be
somewhat more than that but for 3x3 kernels of stride 1. Elsewhere it is summed without tiles, to float32, which rounds
nothing. Weights of bfloat16 have been rounded already: there it is for who asks.

Source: spec section 11.1 (where the multiplications are); Lavin and Gray, "Fast Algorithms for Convolutional Neural
Networks", 2015; Meng and Brothers, "Efficient Winograd Convolution via Integer Arithmetic", 2019 (i and -i).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from torchp2p.ops import _native
from torchp2p.ops._convolution import empty_output, output_size
from torchp2p.reference.conv_norm_act import Convolution
from torchp2p.reference.norm_act import memory_format_of

_TILES = {(3, 1): 4, (3, 2): 3, (4, 1): 3, (4, 2): 3}
"""The side of a tile of results, by the kernel and its stride."""

_DTYPES = (torch.float32, torch.float64, torch.bfloat16)

# Measured: from so many channels, in and out, and so many tiles on, it takes 0.5 to 1.0 of oneDNN's time. Of fewer
# channels, images have the largest frequencies; of fewer tiles, the filters' transforms are too large a part.
_PAYS_FROM = {(3, 1): (64, 8), (3, 2): (64, 32), (4, 1): (64, 9), (4, 2): (64, 32)}

_PANEL = 32
"""Channels that a thread takes at a time, with the widest registers."""


def unavailable(x: Tensor, weight: Tensor, conv: Convolution) -> str:
    """Why this convolution cannot be taken so; empty if it can."""
    if x.device.type != "cpu":
        return f"the Winograd convolution runs on the CPU, not on {x.device.type}"
    if x.dtype not in _DTYPES:
        return f"the Winograd convolution is for float32, float64 and bfloat16, not {x.dtype}"
    kind = (weight.shape[2], conv.stride[0])
    square = weight.shape[2] == weight.shape[3] and conv.stride[0] == conv.stride[1]
    if not square or kind not in _TILES or (conv.transposed and conv.stride[0] == 1):
        return "the Winograd convolution is for kernels of 3x3 and 4x4 and strides of 1 and 2, transposed ones of 2"
    return _native.unavailable("cpu", x.dtype)


def pays(x: Tensor, weight: Tensor, conv: Convolution) -> bool:
    """Whether it is known to be faster than oneDNN, and as exact."""
    if x.dtype == torch.float64 or unavailable(x, weight, conv):
        return False
    if x.dtype == torch.bfloat16 and (weight.dtype != torch.float32 or not _native.multiplies_bfloat16()):
        return False
    kind = (weight.shape[2], conv.stride[0])
    channels, tiles = _PAYS_FROM[kind]
    height, width = x.shape[2:] if conv.transposed else output_size(x, weight, conv)
    m = _TILES[kind]
    channels = max(channels, _PANEL * _threads())
    return min(weight.shape[:2]) >= channels and x.shape[0] * -(-height // m) * -(-width // m) >= tiles


def _threads() -> int:
    """How many are to be kept busy; under torch.compile, which cannot trace the question, one."""
    return 1 if torch.compiler.is_compiling() else torch.get_num_threads()


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, conv: Convolution) -> Tensor:
    """``torchp2p.reference.conv_norm_act.convolve`` by tiles.

    Args:
        x: (N, C, H, W), any strides; padded as ``conv.border`` says.
        weight, bias: (O, C, k, k), or (C, O, k, k) when transposed, and (O,) or None; both of the dtype of x, or both
            float32 for bfloat16.

    Returns:
        (N, O, H', W'), of the dtype of x, in the layout of the reference's result.
    """
    if not conv.transposed:
        y = empty_output(x, weight, conv)
        _run("forward", (x, weight, bias, y), (x, weight, y), x, weight, conv)
        return y
    y = _image_of_windows(empty_output(x, weight, conv), weight, conv)
    _run("input", (x, weight, y), (x, weight, y), y, weight, conv)
    return y if bias is None else y.add_(bias[:, None, None])


def convolve_backward(
    grad: Tensor, x: Tensor, weight: Tensor, conv: Convolution, needs: tuple[bool, bool, bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias; empty where not needed. Only the weight's gradient reads the values of x."""
    grad_x, grad_weight = grad.new_empty(0), grad.new_empty(0)
    if needs[0]:
        grad_x = torch.empty(x.shape, dtype=x.dtype, memory_format=memory_format_of(x))
        if conv.transposed:
            _run("forward", (grad, weight, None, grad_x), (grad, weight, grad_x), grad, weight, conv)
        else:
            grad_x = _image_of_windows(grad_x, weight, conv)
            _run("input", (grad, weight, grad_x), (grad, weight, grad_x), x, weight, conv)
    if needs[1]:
        small, big = (x, grad) if conv.transposed else (grad, x)
        grad_weight = torch.empty_like(weight)
        _run("weight", (small, big, grad_weight), (small, big, grad_weight), big, weight, conv)
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
) -> None:
    """An entry point of ``csrc/include/torchp2p/winograd.h``, where ``big`` is x.

    A transposed convolution is the gradient of the input of one from its result, ``big``, to what it reads.
    """
    status: int = getattr(_native.C, f"winograd_{name}")(
        *map(_native.address, tensors), *(tensor.stride() for tensor in strided),
        tuple(big.shape), weight.shape[0], weight.shape[2], conv.stride[0], conv.own_padding[0],
        _native.DTYPE_CODES[big.dtype], _native.DTYPE_CODES[weight.dtype],
    )  # fmt: skip
    _native.raise_for_status(status, f"winograd_{name}", f"x of {tuple(big.shape)} and weight of {tuple(weight.shape)}")
