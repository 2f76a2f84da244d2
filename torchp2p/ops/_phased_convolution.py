"""Convolution to a few channels, such as the three of an image, as one of stride 2 to four times as many.

Libraries compute 8 or 16 output channels at a time, so three of them leave most of the machine idle. Here the four
pixels of every 2x2 block of the result are channels instead: a kernel of k x k becomes four of (k + 1) x (k + 1), each
shifted to its pixel and 0 around. That is a third more multiplications for 7x7, with four times as many lanes at work.
The gradient of x is a convolution of the result's gradient with the kernel turned around, from few channels to many.

Shapes: x (N, C, H, W), weight (O, C, kh, kw), y (N, O, H', W') with H' and W' even.
Source: spec sections 2.4 to 2.6 (the last layer of the generators), 11.1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from torchp2p.ops._convolution import empty_output, output_size
from torchp2p.reference.conv_norm_act import Convolution
from torchp2p.reference.norm_act import memory_format_of, statistics_dtype

# Measured: up to so many outputs, from so many inputs and such a kernel on, it is faster than oneDNN.
_OUTPUTS, _INPUTS, _TAPS = 4, 16, 9


def unavailable(x: Tensor, weight: Tensor, conv: Convolution) -> str:
    """Why this convolution cannot be taken so; empty if it can."""
    if conv.transposed or tuple(conv.stride) != (1, 1) or conv.own_padding[0] >= min(weight.shape[2:]):
        return "the phased convolution is for stride 1 and padding less than the kernel"
    height, width = output_size(x, weight, conv)
    if height % 2 or width % 2:
        return f"the phased convolution is for results of even height and width, not {height}x{width}"
    return ""


def pays(x: Tensor, weight: Tensor, conv: Convolution) -> bool:
    """Whether it is known to be faster than oneDNN, and as exact."""
    outputs, inputs, *kernel = weight.shape
    if x.device.type != "cpu" or x.dtype not in (torch.float32, torch.bfloat16):
        return False
    return (
        outputs <= _OUTPUTS
        and inputs >= _INPUTS
        and kernel[0] * kernel[1] >= _TAPS
        and not unavailable(x, weight, conv)
    )


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, conv: Convolution) -> Tensor:
    """``torchp2p.reference.conv_norm_act.convolve`` by phases.

    Args:
        x: (N, C, H, W), any strides; padded as ``conv.border`` says.
        weight, bias: (O, C, kh, kw), and (O,) or None.

    Returns:
        (N, O, H', W'), in the layout of the reference's result.
    """
    of_phases = None if bias is None else bias.repeat_interleave(4)
    phases = F.conv2d(x, _phased(weight), of_phases, 2, conv.own_padding)  # (N, 4 O, H'/2, W'/2)
    return empty_output(x, weight, conv).copy_(F.pixel_shuffle(phases, 2))


def convolve_backward(
    grad: Tensor, x: Tensor, weight: Tensor, conv: Convolution, needs: tuple[bool, bool, bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias; empty where not needed. Only the weight's gradient reads the values of x."""
    grad_x, grad_weight = grad.new_empty(0), grad.new_empty(0)
    if needs[0]:
        around = [size - 1 - pad for size, pad in zip(weight.shape[2:], conv.own_padding, strict=True)]
        turned = weight.flip(2, 3).transpose(0, 1).contiguous()  # (C, O, kh, kw)
        grad_x = F.conv2d(grad.contiguous(memory_format=memory_format_of(x)), turned, None, 1, around)
        grad_x = grad_x.contiguous(memory_format=memory_format_of(x))
    if needs[1]:
        grad_weight = _weight_gradient(grad, x, weight, conv)
    return grad_x, grad_weight, grad.sum((0, 2, 3)) if needs[2] else grad.new_empty(0)


def _phased(weight: Tensor) -> Tensor:
    """(O, C, kh, kw) as (4 O, C, kh + 1, kw + 1): the kernels of the four pixels of a block."""
    outputs, inputs, height, width = weight.shape
    phases = weight.new_zeros(outputs, 2, 2, inputs, height + 1, width + 1)
    for i in (0, 1):
        for j in (0, 1):
            phases[:, i, j, :, i : i + height, j : j + width] = weight
    return phases.flatten(0, 2)


def _weight_gradient(grad: Tensor, x: Tensor, weight: Tensor, conv: Convolution) -> Tensor:
    outputs, inputs, height, width = weight.shape
    phases = F.pixel_unshuffle(grad, 2)  # (N, 4 O, H'/2, W'/2)
    like = weight.new_empty(4 * outputs, inputs, height + 1, width + 1)  # its values are not read
    _, of_phases, _ = torch.ops.aten.convolution_backward(
        phases, x, like, None, [2, 2], conv.own_padding, [1, 1], False, [0, 0], 1, [False, True, False]
    )
    of_phases = of_phases.view(outputs, 2, 2, inputs, height + 1, width + 1)
    total = weight.new_zeros(weight.shape, dtype=statistics_dtype(weight.dtype))
    for i in (0, 1):
        for j in (0, 1):
            total += of_phases[:, i, j, :, i : i + height, j : j + width]
    return torch.empty_like(weight).copy_(total)
