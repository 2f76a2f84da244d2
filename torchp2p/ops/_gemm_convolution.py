"""Convolution as one matrix product: what a few pixels need of a large weight, which is then read only once.

A convolution goes from a big image to a small one, a transposed one back; the gradients of either are again such ways.
Every pixel of the small image meets a window of the big one. With the windows as rows

    small = windows(big) @ weight^T,    windows(big) = small @ weight,    weight's gradient = small^T @ windows(big)

are all six passes, where windows in the middle are added up where they overlap. Where images are a few pixels, as in
the middle of a U-Net, the time goes into reading and writing weights of many megabytes. A library made for large images
reorders them for each pass; this does not. Where a tap meets padding only, the windows and the gradient are 0.

A convolution of stride 1 to fewer channels, such as the one decision of a discriminator, is taken for the transposed
one that it is with the kernel turned around: then the windows are those of the few channels.

Shapes: big (N, B, H, W), small (N, S, h, w), weight (S, B, kh, kw), windows (N h w, B kh kw).
Source: spec section 2.2 (the innermost levels), 11.1.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from torchp2p.ops._convolution import empty_output, output_size
from torchp2p.reference.conv_norm_act import Convolution
from torchp2p.reference.norm_act import memory_format_of, statistics_dtype

# Measured to be faster than oneDNN: so many columns of windows of the output, from so many inputs on, ...
_COLUMNS, _INPUTS = 16, 64
# ... and so many pixels of the small image, from so many elements of the weight on.
_PIXELS, _ELEMENTS = {torch.float32: 64, torch.bfloat16: 128}, 2**21
_PARTS = 16


def pays(x: Tensor, weight: Tensor, conv: Convolution) -> bool:
    """Whether it is known to be faster than oneDNN, and as exact."""
    if x.device.type != "cpu" or x.dtype not in _PIXELS:
        return False
    outputs, inputs, *kernel = weight.shape
    if kernel[0] > 1 and inputs >= _INPUTS and outputs * kernel[0] ** 2 <= _COLUMNS and _is_mirrored(weight, conv):
        return True
    if weight.numel() < _ELEMENTS or not weight.is_contiguous():
        return False
    height, width = x.shape[2:] if conv.transposed else output_size(x, weight, conv)
    return bool(x.shape[0] * height * width <= _PIXELS[x.dtype])


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, conv: Convolution) -> Tensor:
    """``torchp2p.reference.conv_norm_act.convolve`` as a matrix product.

    Args:
        x: (N, C, H, W), any strides; padded as ``conv.border`` says.
        weight, bias: (O, C, kh, kw), or (C, O, kh, kw) when transposed; (O,) or None.

    Returns:
        (N, O, H', W'), in the layout of the reference's result.
    """
    y = empty_output(x, weight, conv)
    if _is_mirrored(weight, conv):
        weight, conv = _mirrored(weight, conv)
    windows = _Windows(weight.shape[2:], conv.stride, conv.own_padding)
    return windows.scattered(x, weight, bias, y) if conv.transposed else windows.gathered(x, weight, bias, y)


def convolve_backward(
    grad: Tensor, x: Tensor, weight: Tensor, conv: Convolution, needs: tuple[bool, bool, bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias; empty where not needed. Only the weight's gradient reads the values of x."""
    if _is_mirrored(weight, conv):
        grad_x, grad_weight, grad_bias = convolve_backward(grad, x, *_mirrored(weight, conv), needs)
        if needs[1]:
            grad_weight = torch.empty_like(weight).copy_(grad_weight.flip(2, 3).transpose(0, 1))
        return grad_x, grad_weight, grad_bias
    windows = _Windows(weight.shape[2:], conv.stride, conv.own_padding)
    grad_x, grad_weight = grad.new_empty(0), grad.new_empty(0)
    if needs[0]:
        grad_x = torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=memory_format_of(x))
        back = windows.gathered if conv.transposed else windows.scattered
        back(grad, weight, None, grad_x)
    if needs[1]:
        big, small = (grad, x) if conv.transposed else (x, grad)
        found = _pixels(small).t() @ windows.of(big)
        grad_weight = found.view(weight.shape).contiguous(memory_format=memory_format_of(weight))
    return grad_x, grad_weight, grad.sum((0, 2, 3)) if needs[2] else grad.new_empty(0)


def _is_mirrored(weight: Tensor, conv: Convolution) -> bool:
    """Whether the windows of the output have fewer columns than those of the input, and will do."""
    fits = not conv.transposed and tuple(conv.stride) == (1, 1) and len(set(weight.shape[2:])) == 1
    return fits and weight.shape[0] < weight.shape[1] and conv.own_padding[0] < weight.shape[2]


def _mirrored(weight: Tensor, conv: Convolution) -> tuple[Tensor, Convolution]:
    """The transposed convolution that does the same."""
    turned = weight.flip(2, 3).transpose(0, 1).contiguous()  # (C, O, k, k)
    padding = weight.shape[2] - 1 - conv.own_padding[0]
    return turned, Convolution(conv.stride, padding, "zeros", True, [0, 0])


class _Windows(NamedTuple):
    """Where the windows of a big image lie, vertical and horizontal."""

    kernel: tuple[int, ...]
    stride: list[int]
    padding: list[int]

    def of(self, big: Tensor) -> Tensor:
        """(N, B, H, W) as (N h w, B kh kw)."""
        columns = F.unfold(
            big, self.kernel, padding=tuple(self.padding), stride=tuple(self.stride)
        )  # (N, B kh kw, h w)
        return columns.transpose(1, 2).reshape(-1, columns.shape[1])

    def gathered(self, big: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> Tensor:
        """The small image, in ``out`` (N, S, h, w)."""
        matrix = weight.reshape(len(weight), -1).t()  # (B kh kw, S)
        rows = _product(self.of(big), matrix)
        if bias is not None:
            rows += bias
        n, channels, height, width = out.shape
        return out.copy_(rows.view(n, height, width, channels).movedim(-1, 1))

    def scattered(self, small: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> Tensor:
        """The big image, in ``out`` (N, B, H, W): what windows have in common is added in float32 or better."""
        (n, _, height, width), (_, channels, *kernel) = small.shape, weight.shape
        rows = _product(_pixels(small), weight.reshape(len(weight), -1))  # (N h w, B kh kw)
        taps = rows.view(n, height, width, channels, *kernel).permute(4, 5, 0, 1, 2, 3)
        taps = taps.to(statistics_dtype(small.dtype), memory_format=torch.contiguous_format)
        (up, left), (down, across) = self.padding, self.stride
        padded = taps.new_zeros(n, out.shape[2] + 2 * up, out.shape[3] + 2 * left, channels)
        if bias is not None:
            padded += bias
        for i in range(kernel[0]):
            for j in range(kernel[1]):
                padded[:, i : i + down * height : down, j : j + across * width : across] += taps[i, j]
        return out.copy_(padded[:, up : up + out.shape[2], left : left + out.shape[3]].movedim(-1, 1))


def _product(rows: Tensor, matrix: Tensor) -> Tensor:
    """``rows @ matrix``. One row is a job for vector routines, which lose bits over a long sum: it is made of parts."""
    if len(rows) > 1 or rows.dtype != torch.float32:
        return rows @ matrix
    parts = math.gcd(_PARTS, len(matrix))
    return torch.bmm(rows.view(parts, 1, -1), matrix.reshape(parts, -1, matrix.shape[1])).sum(0)


def _pixels(image: Tensor) -> Tensor:
    """(N, C, H, W) as (N H W, C)."""
    return image.movedim(1, -1).reshape(-1, image.shape[1])
