"""Convolution of one-hot labels and dense channels in plain PyTorch: the definition of ``label_conv2d``.

The one-hot tensor is built, joined with the dense channels, padded and convolved in float32 or better; the backward
is the explicit adjoint, itself made of differentiable pieces, so it also serves as the double backward of every
faster backend.

Shapes: labels (N, 1, H, W), any integer dtype; weight (O, L + D, kh, kw), the L label channels first; bias (O,);
dense (N, D, H, W) or None; y, grad_y (N, O, H', W'). stride and padding are (height, width). An id outside 0..L-1
gives a column of zeros. Source: spec sections 2.5, 2.6, 3.2, 6.3, 11.2 (R3-R6, R9, R10).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from torchp2p.reference.norm_act import memory_format_of, statistics_dtype


def layout_of(weight: Tensor, dense: Tensor | None) -> torch.memory_format:
    """The layout of y: channels_last where dense or the weight is that, as with ``F.conv2d``."""
    for tensor in (weight, dense):
        if tensor is not None and memory_format_of(tensor) == torch.channels_last:
            return torch.channels_last
    return torch.contiguous_format


def label_conv2d(
    labels: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    dense: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    pad_mode: str,
) -> Tensor:
    """``conv2d(pad(cat(one_hot(labels), dense)), weight, bias)``, dtype of the weight, layout of `layout_of`."""
    acc = statistics_dtype(weight.dtype)
    padded = _extend(_channels(labels, weight, dense, acc), padding, pad_mode)
    y = F.conv2d(padded, weight.to(acc), None if bias is None else bias.to(acc), tuple(stride))
    return y.to(weight.dtype).contiguous(memory_format=layout_of(weight, dense))


def label_conv2d_backward(
    grad_y: Tensor,
    labels: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    dense: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    pad_mode: str,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of weight, bias and dense; those that ``needs`` does not ask for, or that do not exist, are empty."""
    acc = statistics_dtype(weight.dtype)
    grad = grad_y.to(acc)
    empty = grad.new_empty(0)
    grad_weight = grad_bias = grad_dense = empty
    if needs[0]:
        padded = _extend(_channels(labels, weight, dense, acc), padding, pad_mode)
        _, grad_weight, _ = _convolution_backward(grad, padded, weight.to(acc), stride, (False, True, False))
    if needs[1] and bias is not None:
        grad_bias = grad.sum((0, 2, 3)).to(bias.dtype)
    if needs[2] and dense is not None:
        image = dense.to(acc)
        padded, part = _extend(image, padding, pad_mode), weight[:, weight.shape[1] - dense.shape[1] :].to(acc)
        grad_padded, _, _ = _convolution_backward(grad, padded, part, stride, (True, False, False))
        grad_dense = _fold(grad_padded, image, padding, pad_mode)
        grad_dense = grad_dense.to(dense.dtype).contiguous(memory_format=memory_format_of(dense))
    return grad_weight.to(weight.dtype), grad_bias, grad_dense


def _channels(labels: Tensor, weight: Tensor, dense: Tensor | None, dtype: torch.dtype) -> Tensor:
    classes = weight.shape[1] - (0 if dense is None else dense.shape[1])
    ids = torch.arange(classes, device=labels.device).view(1, -1, 1, 1)
    one_hot = (labels.long() == ids).to(dtype)
    return one_hot if dense is None else torch.cat([one_hot, dense.to(dtype)], 1)


def _extend(x: Tensor, padding: Sequence[int], pad_mode: str) -> Tensor:
    vertical, horizontal = padding
    if vertical == 0 and horizontal == 0:
        return x
    mode = "constant" if pad_mode == "zeros" else pad_mode
    return F.pad(x, (horizontal, horizontal, vertical, vertical), mode=mode)


def _fold(grad: Tensor, x: Tensor, padding: Sequence[int], pad_mode: str) -> Tensor:
    """Adjoint of ``_extend``: what was written into the border flows back to where it was read from."""
    vertical, horizontal = padding
    if vertical == 0 and horizontal == 0:
        return grad
    widths = (horizontal, horizontal, vertical, vertical)
    if pad_mode == "zeros":
        return F.pad(grad, [-width for width in widths])
    aten = torch.ops.aten
    adjoint = aten.reflection_pad2d_backward if pad_mode == "reflect" else aten.replication_pad2d_backward
    result: Tensor = adjoint(grad.contiguous(), x, widths)
    return result


def _convolution_backward(
    grad: Tensor, x: Tensor, weight: Tensor, stride: Sequence[int], wanted: tuple[bool, bool, bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias (`None` where not wanted) of an unpadded convolution."""
    result: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        grad, x, weight, None, stride, [0, 0], [1, 1], False, [0, 0], 1, wanted
    )
    return result
