"""Winograd's minimal filtering: 3x3 convolutions of stride 1 with fewer multiplications, exact but for rounding.

A tile of m x m results is made of (m + 2)^2 products instead of 9 m^2, in a basis of as many "frequencies":
y = output(input(x) * filter(w)). The transforms are native code; between them stands one matrix product over the
channels for each frequency. Gradients go back through the adjoints of the same transforms, and that of the result's
gradient serves both the gradient of x and that of the weight.

Source: spec section 11.1 (where the multiplications are); Lavin and Gray, "Fast Algorithms for Convolutional Neural
Networks", 2015.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torchp2p.ops import _native
from torchp2p.reference.norm_act import memory_format_of


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, pad: int, m: int) -> Tensor:
    """``conv2d(x, weight, bias, padding=pad)`` by tiles of m x m.

    Args:
        x: (N, C, H, W), float32 or float64, any strides.
        weight: (O, C, 3, 3).
        bias: (O,) or None.
        pad: zeros around x.
        m: 2 or 4.

    Returns:
        (N, O, H + 2 pad - 2, W + 2 pad - 2) in the layout of x.
    """
    products = torch.bmm(_of_input(x, pad, m), _of_filter(weight, m).transpose(1, 2))  # (F, T, O)
    n, _, h, w = x.shape
    outputs = weight.shape[0]
    layout = memory_format_of(x)
    y = x.new_empty((n, outputs, h + 2 * pad - 2, w + 2 * pad - 2)).contiguous(memory_format=layout)
    _image("output", y, products, bias, (n, outputs, h, w), pad, m)
    return y


def convolve_backward(
    grad: Tensor, x: Tensor, weight: Tensor, pad: int, m: int, needs: tuple[bool, bool, bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias; empty where not needed. Only the weight's gradient reads the values of x."""
    n, channels, h, w = x.shape
    outputs = weight.shape[0]
    grad_x, grad_weight = grad.new_empty(0), grad.new_empty(0)
    if needs[0] or needs[1]:
        of_grad = _frequencies(grad, n, outputs, h, w, pad, m)  # (F, T, O)
        _image("output_adjoint", grad, of_grad, None, (n, outputs, h, w), pad, m)
    if needs[0]:
        grad_x = torch.empty(x.shape, dtype=x.dtype, memory_format=memory_format_of(x))
        of_x = torch.bmm(of_grad, _of_filter(weight, m))  # (F, T, C)
        _image("input_adjoint", grad_x, of_x, None, tuple(x.shape), pad, m)
    if needs[1]:
        of_weight = torch.bmm(of_grad.transpose(1, 2), _of_input(x, pad, m))  # (F, O, C)
        grad_weight = torch.empty(weight.shape, dtype=weight.dtype)
        _filter("filter_adjoint", grad_weight, of_weight, m)
    return grad_x, grad_weight, grad.sum((0, 2, 3)) if needs[2] else grad.new_empty(0)


def _of_input(x: Tensor, pad: int, m: int) -> Tensor:
    n, channels, h, w = x.shape
    found = _frequencies(x, n, channels, h, w, pad, m)
    _image("input", x, found, None, tuple(x.shape), pad, m)
    return found


def _of_filter(weight: Tensor, m: int) -> Tensor:
    found = weight.new_empty((m + 2) ** 2, weight.shape[0], weight.shape[1])
    _filter("filter", weight, found, m)
    return found


def _frequencies(like: Tensor, n: int, channels: int, h: int, w: int, pad: int, m: int) -> Tensor:
    """Memory for (F, T, channels) of the tiles of an input of height h and width w."""
    rows, columns = -(-(h + 2 * pad - 2) // m), -(-(w + 2 * pad - 2) // m)
    return like.new_empty((m + 2) ** 2, n * rows * columns, channels)


def _image(
    name: str, image: Tensor, frequencies: Tensor, bias: Tensor | None, shape: tuple[int, ...], pad: int, m: int
) -> None:
    status = getattr(_native.C, f"winograd_{name}")(
        image.data_ptr(), frequencies.data_ptr(), _native.address(bias), shape, image.stride(), pad, m,
        _native.DTYPE_CODES[image.dtype],
    )  # fmt: skip
    _native.raise_for_status(status, f"winograd_{name}", f"an image of shape {tuple(image.shape)}")


def _filter(name: str, weight: Tensor, frequencies: Tensor, m: int) -> None:
    status: Any = getattr(_native.C, f"winograd_{name}")(
        weight.data_ptr(), frequencies.data_ptr(), tuple(weight.shape), weight.stride(), m,
        _native.DTYPE_CODES[weight.dtype],
    )  # fmt: skip
    _native.raise_for_status(status, f"winograd_{name}", f"a weight of shape {tuple(weight.shape)}")
