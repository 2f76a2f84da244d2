"""``norm_act`` in C++ and CUDA: what the native calls are given."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torchp2p.ops import _native
from torchp2p.ops._norm_act_options import ACTIVATIONS, PAD_MODES, Options, empty_outputs
from torchp2p.reference import norm_act as reference

# Codes of csrc/include/torchp2p/norm_act.h.
_ACT_CODES = {name: code for code, name in enumerate(ACTIVATIONS)}
_PAD_CODES = {name: code for code, name in enumerate(PAD_MODES)}
_NONE, _TAKEN, _OWN, _GIVEN = range(4)  # Statistics


def forward(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    given_mean: Tensor | None,
    given_var: Tensor | None,
    options: Options,
) -> tuple[Tensor, Tensor, Tensor]:
    """y, mean and var of an x that is not empty; the arguments are those of the reference."""
    layout, acc = reference.memory_format_of(x), reference.statistics_dtype(x.dtype)
    weight, bias = _accumulated(weight, acc), _accumulated(bias, acc)
    y, mean, var = empty_outputs(x, given_mean, options)
    used_mean, used_var, statistics = mean, var, _TAKEN
    if options.norm == "none":
        statistics = _NONE
    elif given_mean is not None and given_var is not None:
        used_mean, used_var = given_mean.to(acc).contiguous(), given_var.to(acc).contiguous()
        statistics = _OWN if given_mean.dim() == 2 else _GIVEN
    place, tail = _native.place(x), _tail(x, statistics, options, layout)
    scratch = _scratch(x, place, tail)
    _native.raise_for_status(
        _native.C.norm_act_forward(
            x.data_ptr(), _native.address(weight), _native.address(bias), _native.address(residual),
            y.data_ptr(), used_mean.data_ptr(), used_var.data_ptr(), _native.address(scratch),
            x.shape, x.stride(), x.stride() if residual is None else residual.stride(),
            *tail, *place,
        ),
        "norm_act_forward", f"x of shape {tuple(x.shape)}",
    )  # fmt: skip
    return y, mean, var


def backward(
    grad_y: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    options: Options,
    residual_grad: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, weight, bias and residual; empty where there is nothing to differentiate."""
    layout, acc = reference.memory_format_of(x), reference.statistics_dtype(x.dtype)
    used_weight, used_bias = _accumulated(weight, acc), _accumulated(bias, acc)
    mean, var = _accumulated(mean, acc), _accumulated(var, acc)
    statistics = _NONE
    if options.norm != "none" and mean is not None:
        statistics = _OWN if mean.dim() == 2 else _GIVEN
    grad_x = torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=layout)
    grad_residual = torch.empty_like(grad_x) if residual_grad else x.new_empty(0)
    channels = x.shape[1]
    grad_weight = x.new_empty(0) if weight is None else x.new_empty(channels, dtype=acc)
    grad_bias = x.new_empty(0) if bias is None else x.new_empty(channels, dtype=acc)
    place, tail = _native.place(x), _tail(x, statistics, options, layout)
    scratch = _scratch(x, place, tail)
    _native.raise_for_status(
        _native.C.norm_act_backward(
            grad_y.data_ptr(), x.data_ptr(), _native.address(used_weight), _native.address(used_bias),
            _native.address(residual), _native.address(mean), _native.address(var), grad_x.data_ptr(),
            0 if weight is None else grad_weight.data_ptr(), 0 if bias is None else grad_bias.data_ptr(),
            grad_residual.data_ptr() if residual_grad else 0, _native.address(scratch),
            x.shape, grad_y.stride(), x.stride(), x.stride() if residual is None else residual.stride(),
            *tail, *place,
        ),
        "norm_act_backward", f"x of shape {tuple(x.shape)}",
    )  # fmt: skip
    if weight is not None:
        grad_weight = grad_weight.to(weight.dtype)
    if bias is not None:
        grad_bias = grad_bias.to(bias.dtype)
    return grad_x, grad_weight, grad_bias, grad_residual


def _tail(x: Tensor, statistics: int, options: Options, layout: torch.memory_format) -> tuple[Any, ...]:
    """The arguments with which both native calls end, but for the place."""
    # Given statistics are the same for all samples: one group, whatever the norm is called.
    groups = 1 if statistics == _GIVEN else reference.groups_of(x, options.norm, options.stat_groups)
    return (
        _native.DTYPE_CODES[x.dtype], statistics, groups, options.eps, _ACT_CODES[options.act], options.slope,
        options.pad, _PAD_CODES[options.pad_mode], layout == torch.channels_last,
    )  # fmt: skip


def _scratch(x: Tensor, place: tuple[int, int], tail: tuple[Any, ...]) -> Tensor | None:
    """Memory for the partial sums of a CUDA kernel."""
    return _native.scratch(x, _native.C.norm_act_scratch(x.shape, *tail)) if place[0] >= 0 else None


def _accumulated(vector: Tensor | None, acc: torch.dtype) -> Tensor | None:
    return None if vector is None else vector.to(acc).contiguous()
