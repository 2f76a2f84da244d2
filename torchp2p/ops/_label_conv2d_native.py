"""``label_conv2d`` in C++ and CUDA: what the native calls are given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torchp2p.ops import _native
from torchp2p.ops._label_range import assert_on_device, captured, refuse_label
from torchp2p.ops._norm_act_options import PAD_MODES
from torchp2p.reference import label_conv2d as reference
from torchp2p.reference.norm_act import memory_format_of, statistics_dtype

# Codes of csrc/include/torchp2p/norm_act.h and label_conv2d.h.
_PAD_CODES = {name: code for code, name in enumerate(PAD_MODES)}
LABEL_CODES = {
    torch.uint8: 0,
    torch.int8: 1,
    torch.uint16: 2,
    torch.int16: 3,
    torch.uint32: 4,
    torch.int32: 5,
    torch.uint64: 6,
    torch.int64: 7,
}


def classes_of(weight: Tensor, dense: Tensor | None) -> int:
    """How many labels there are: the input channels of the weight that are not dense."""
    return weight.shape[1] - (0 if dense is None else dense.shape[1])


def forward(
    y: Tensor,
    labels: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    dense: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    pad_mode: str,
    ignore_out_of_range: bool,
) -> Tensor:
    """Fill y, and return it; the arguments are those of the op."""
    acc, classes = statistics_dtype(weight.dtype), classes_of(weight, dense)
    used_weight, used_dense = weight.to(acc), None if dense is None else dense.to(acc)
    used_bias = None if bias is None else bias.to(acc).contiguous()
    place = _native.place(labels)
    sizes, window = (classes, weight.shape[1] - classes, weight.shape[0]), (*weight.shape[2:], *stride, *padding)
    codes = (_PAD_CODES[pad_mode], _native.DTYPE_CODES[y.dtype])
    scratch = _scratch("forward", place, y, labels.shape, sizes, window, *codes)
    on_device = labels.new_empty((), dtype=torch.int64) if place[0] >= 0 and not ignore_out_of_range else None
    status, bad_label = _native.C.label_conv2d_forward(
        labels.data_ptr(), _native.address(used_dense), used_weight.data_ptr(), _native.address(used_bias),
        y.data_ptr(), _native.address(on_device), _native.address(scratch),
        labels.shape, labels.stride(), _stride_of(used_dense), used_weight.stride(),
        sizes, window, *codes, LABEL_CODES[labels.dtype],
        reference.layout_of(weight, dense) == torch.channels_last, ignore_out_of_range, *place,
    )  # fmt: skip
    if on_device is not None and not status:
        if captured(labels):
            assert_on_device(on_device < 0, classes)
        else:
            bad_label = int(on_device)
    if bad_label >= 0:
        refuse_label(labels, classes, bad_label)
    _native.raise_for_status(status, "label_conv2d_forward", f"labels of shape {tuple(labels.shape)}")
    return y


def _scratch(call: str, place: tuple[int, int], x: Tensor, *shape: Any) -> Tensor | None:
    """Memory for what the kernels of a native call prepare on a CUDA device."""
    return _native.scratch(x, getattr(_native.C, f"label_conv2d_{call}_scratch")(*shape)) if place[0] >= 0 else None


def backward(
    grads: tuple[Tensor, Tensor, Tensor],
    grad_y: Tensor,
    labels: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    dense: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    pad_mode: str,
    needs: Sequence[bool],
) -> None:
    """Fill those gradients that are not empty."""
    grad_weight, grad_bias, grad_dense = grads
    acc, classes = statistics_dtype(weight.dtype), classes_of(weight, dense)
    sizes = (classes, weight.shape[1] - classes, weight.shape[0])
    window, codes = (*weight.shape[2:], *stride, *padding), (_PAD_CODES[pad_mode], _native.DTYPE_CODES[grad_y.dtype])
    place, shape = _native.place(labels), (labels.shape, sizes, window, *codes)
    if grad_weight.numel():
        used_dense = None if dense is None else dense.to(acc)
        into_weight, into_bias = _accumulator(grad_weight, acc), _accumulator(grad_bias, acc)
        scratch = _scratch("backward", place, grad_y, *shape)
        status = _native.C.label_conv2d_backward(
            labels.data_ptr(), _native.address(used_dense), grad_y.data_ptr(), into_weight.data_ptr(),
            into_bias.data_ptr() if grad_bias.numel() else 0, _native.address(scratch),
            labels.shape, labels.stride(), _stride_of(used_dense), grad_y.stride(), into_weight.stride(),
            sizes, window, *codes, LABEL_CODES[labels.dtype], *place,
        )  # fmt: skip
        _native.raise_for_status(status, "label_conv2d_backward", f"labels of shape {tuple(labels.shape)}")
        if into_weight is not grad_weight:
            grad_weight.copy_(into_weight)
        if into_bias is not grad_bias:
            grad_bias.copy_(into_bias)
    elif grad_bias.numel():
        grad_bias.copy_(grad_y.sum((0, 2, 3), dtype=acc))
    if grad_dense.numel():
        used_weight = weight.to(acc)
        scratch = _scratch("dense_gradient", place, grad_y, *shape)
        status = _native.C.label_conv2d_dense_gradient(
            grad_y.data_ptr(), used_weight.data_ptr(), grad_dense.data_ptr(), _native.address(scratch),
            grad_dense.shape, grad_y.stride(), used_weight.stride(), sizes, window, *codes,
            memory_format_of(grad_dense) == torch.channels_last, *place,
        )  # fmt: skip
        _native.raise_for_status(status, "label_conv2d_dense_gradient", f"dense of shape {tuple(grad_dense.shape)}")


def _accumulator(gradient: Tensor, acc: torch.dtype) -> Tensor:
    """Where a kernel writes a gradient: itself, if it has the accumulator's dtype."""
    return gradient if gradient.dtype == acc else torch.empty_like(gradient, dtype=acc)


def _stride_of(tensor: Tensor | None) -> tuple[int, ...]:
    return (0, 0, 0, 0) if tensor is None else tensor.stride()
