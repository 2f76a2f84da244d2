"""Normalise, affine, add a residual, activate, pad: the definition of ``norm_act`` in plain PyTorch.

The forward is written as the formula reads; the backward is the explicit adjoint, itself made of
differentiable pieces, so it also serves as the double backward of every faster backend.

Shapes: x, residual (N, C, H, W); y, grad_y (N, C, H + 2 pad, W + 2 pad); weight, bias (C,);
mean, var (G, C): G groups of N / G consecutive samples share statistics (G = N is instance norm, G = 1 batch norm),
or (C,) for given ones that do not move with x, such as running statistics.
Source: spec sections 2.1, 2.4, 11.2 (R10, R11).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def statistics_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which statistics of a tensor of ``dtype`` are taken and kept: float32 or better."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def memory_format_of(x: Tensor) -> torch.memory_format:
    """The layout that outputs take after ``x``: channels_last where x is that and not contiguous as well."""
    if x.is_contiguous() or not x.is_contiguous(memory_format=torch.channels_last):
        # A channels_last slice (of pixels or of channels) is neither; its channel stride still tells.
        if x.dim() == 4 and x.shape[1] > 1 and x.stride(1) == 1 and x.stride(3) >= x.shape[1]:
            return torch.channels_last
        return torch.contiguous_format
    return torch.channels_last


def norm_act(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    norm: str,
    eps: float,
    act: str,
    slope: float,
    pad: int,
    pad_mode: str,
    stat_groups: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """y = pad(act(norm(x) * weight + bias + residual)), with the mean and biased variance that were taken.

    Statistics that are given, (C,) or (G, C), are used instead of being taken; those returned are then empty, as
    they are for ``norm="none"``.
    """
    acc = statistics_dtype(x.dtype)
    h = x.to(acc)
    taken_mean = taken_var = h.new_empty(0)
    if norm != "none":
        if mean is None or var is None:
            mean, var = taken_mean, taken_var = mean_and_variance(h, groups_of(x, norm, stat_groups))
        h = (h - _per_sample(mean.to(acc), h)) * torch.rsqrt(_per_sample(var.to(acc), h) + eps)
    z = _affine(h, weight, bias, residual)
    y = _extend(_activate(z, act, slope), pad, pad_mode)  # in float32 as autocast wants padding, and rounded after it
    return y.to(x.dtype).contiguous(memory_format=memory_format_of(x)), taken_mean, taken_var


def norm_act_backward(
    grad_y: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    norm: str,
    eps: float,
    act: str,
    slope: float,
    pad: int,
    pad_mode: str,
    stat_groups: int,
    residual_grad: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, weight, bias and residual; those that do not exist are empty.

    Statistics of shape (G, C) are those of x itself, and are taken again from x here, so that differentiating
    this function once more sees them move with x; those of shape (C,) are constants.
    """
    acc = statistics_dtype(x.dtype)
    grad = _fold(grad_y.to(acc), pad, pad_mode)
    h = x.to(acc)
    groups = groups_of(x, norm, stat_groups)
    moving = mean is not None and mean.dim() == 2
    rstd: Tensor | None = None
    if norm != "none" and mean is not None and var is not None:
        if moving:
            mean, var = mean_and_variance(h, groups)
        rstd = torch.rsqrt(_per_sample(var.to(acc), h) + eps)
        h = (h - _per_sample(mean.to(acc), h)) * rstd
    z = _affine(h, weight, bias, residual)
    grad_z = grad * _activation_slope(z, act, slope)

    empty = x.new_empty(0)
    grad_weight = (grad_z * h).sum((0, 2, 3)).to(weight.dtype) if weight is not None else empty
    grad_bias = grad_z.sum((0, 2, 3)).to(bias.dtype) if bias is not None else empty
    grad_residual = grad_z.to(x.dtype) if residual_grad else empty

    grad_h = grad_z * weight.to(acc).view(1, -1, 1, 1) if weight is not None else grad_z
    if rstd is None:
        grad_x = grad_h
    elif moving:
        mean_g, mean_gx = _group_mean(grad_h, groups), _group_mean(grad_h * h, groups)
        grad_x = (grad_h - _per_sample(mean_g, h) - h * _per_sample(mean_gx, h)) * rstd
    else:
        grad_x = grad_h * rstd
    layout = memory_format_of(x)
    grad_x = grad_x.to(x.dtype).contiguous(memory_format=layout)
    if grad_residual.dim() == 4:
        grad_residual = grad_residual.contiguous(memory_format=layout)
    return grad_x, grad_weight, grad_bias, grad_residual


def groups_of(x: Tensor, norm: str, stat_groups: int) -> int:
    """How many groups of samples have statistics of their own."""
    return x.shape[0] if norm == "instance" else stat_groups


def mean_and_variance(h: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Mean and biased variance (G, C) of each group of samples, in two passes.

    The mean of the deviations is added to the mean: what rounding took from a long sum far from zero.
    """
    mean = _group_mean(h, groups)
    mean = mean + _group_mean(h - _per_sample(mean, h), groups)
    return mean, _group_mean((h - _per_sample(mean, h)).square(), groups)


def _group_mean(h: Tensor, groups: int) -> Tensor:
    """(G, C): the mean over a group's samples and pixels (zeros for no values)."""
    if h.numel() == 0:
        return h.new_zeros(groups, h.shape[1])
    mean: Tensor = h.unflatten(0, (groups, h.shape[0] // groups)).mean((1, 3, 4))
    return mean


def _per_sample(stat: Tensor, h: Tensor) -> Tensor:
    """(G, C) or (C,) made to broadcast over (N, C, H, W)."""
    if stat.dim() == 1:
        return stat.view(1, -1, 1, 1)
    return stat.repeat_interleave(h.shape[0] // max(stat.shape[0], 1), 0)[:, :, None, None]


def _affine(h: Tensor, weight: Tensor | None, bias: Tensor | None, residual: Tensor | None) -> Tensor:
    if weight is not None:
        h = h * weight.to(h.dtype).view(1, -1, 1, 1)
    if bias is not None:
        h = h + bias.to(h.dtype).view(1, -1, 1, 1)
    if residual is not None:
        h = h + residual.to(h.dtype)
    return h


def _activate(z: Tensor, act: str, slope: float) -> Tensor:
    if act == "leaky_relu":
        return F.leaky_relu(z, slope)
    if act == "relu":
        return F.relu(z)
    if act == "tanh":
        return torch.tanh(z)
    return z


def _activation_slope(z: Tensor, act: str, slope: float) -> Tensor:
    """d act(z) / dz; at z = 0 the left slope, as in torch."""
    if act == "leaky_relu":
        return torch.where(z > 0, torch.ones_like(z), torch.full_like(z, slope))
    if act == "relu":
        return torch.ones_like(z).masked_fill(z <= 0, 0.0)
    if act == "tanh":
        return 1 - torch.tanh(z).square()
    return torch.ones_like(z)


def _extend(y: Tensor, pad: int, pad_mode: str) -> Tensor:
    if pad == 0:
        return y
    if y.shape[0] == 0 or y.shape[1] == 0:
        return y.new_empty(y.shape[0], y.shape[1], y.shape[2] + 2 * pad, y.shape[3] + 2 * pad)
    mode = "constant" if pad_mode == "zeros" else pad_mode
    return F.pad(y, (pad, pad, pad, pad), mode=mode)


def _fold(grad: Tensor, pad: int, pad_mode: str) -> Tensor:
    """Adjoint of ``_extend``: what was written into the border flows back to where it was read from."""
    if pad == 0:
        return grad
    for dim in (2, 3):
        size = grad.shape[dim] - 2 * pad
        centre = grad.narrow(dim, pad, size)
        if pad_mode != "zeros":
            first, last = grad.narrow(dim, 0, pad), grad.narrow(dim, pad + size, pad)
            if pad_mode == "reflect":
                # Rows 1..pad were mirrored in front, rows size-1-pad..size-2 behind.
                centre = centre + _placed(first.flip(dim), dim, 1, size)
                centre = centre + _placed(last.flip(dim), dim, size - 1 - pad, size)
            else:
                centre = centre + _placed(first.sum(dim, keepdim=True), dim, 0, size)
                centre = centre + _placed(last.sum(dim, keepdim=True), dim, size - 1, size)
        grad = centre
    return grad


def _placed(part: Tensor, dim: int, start: int, size: int) -> Tensor:
    """``part`` at ``start`` along ``dim`` in zeros of ``size``."""
    after = size - start - part.shape[dim]
    widths = (start, after) if dim == 3 else (0, 0, start, after)
    return F.pad(part, widths)
