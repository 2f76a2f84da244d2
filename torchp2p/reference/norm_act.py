"""Normalise, affine, add a residual, activate, pad: the definition of ``norm_act`` in plain PyTorch.

The forward is written as the formula reads; the backward is the explicit adjoint, itself made of
differentiable pieces, so it also serves as the double backward of every faster backend.

Shapes: x, residual (N, C, H, W); y, grad_y (N, C, H + 2 pad, W + 2 pad); weight, bias (C,);
mean, var (N, C) for instance statistics over H*W, (C,) for batch statistics over N*H*W or for given
running statistics. Source: spec sections 2.1, 2.4, 11.2 (R10, R11).
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
    running_mean: Tensor | None,
    running_var: Tensor | None,
    norm: str,
    eps: float,
    act: str,
    slope: float,
    pad: int,
    pad_mode: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """y = pad(act(norm(x) * weight + bias + residual)), with the mean and biased variance that were taken.

    ``running_mean``/``running_var``, when given, replace the statistics of x; mean and var are then empty,
    as they are for ``norm="none"``.
    """
    acc = statistics_dtype(x.dtype)
    h = x.to(acc)
    mean = var = h.new_empty(0)
    if norm != "none":
        if running_mean is not None and running_var is not None:
            used_mean, used_var = running_mean.to(acc), running_var.to(acc)
        else:
            dims = (2, 3) if norm == "instance" else (0, 2, 3)
            mean, var = mean_and_variance(h, dims)
            used_mean, used_var = mean, var
        h = (h - _per_channel(used_mean)) * torch.rsqrt(_per_channel(used_var) + eps)
    z = _affine(h, weight, bias, residual)
    y = _activate(z, act, slope).to(x.dtype)
    return _extend(y, pad, pad_mode).contiguous(memory_format=memory_format_of(x)), mean, var


def norm_act_backward(
    grad_y: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    own_statistics: bool,
    norm: str,
    eps: float,
    act: str,
    slope: float,
    pad: int,
    pad_mode: str,
    residual_grad: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, weight, bias and residual; those that do not exist are empty.

    With ``own_statistics`` the statistics are those of x itself, and are taken again from x here, so that
    differentiating this function once more sees them move with x.
    """
    acc = statistics_dtype(x.dtype)
    grad = _fold(grad_y.to(acc), pad, pad_mode)
    h = x.to(acc)
    dims = (2, 3) if norm == "instance" else (0, 2, 3)
    rstd: Tensor | None = None
    if norm != "none":
        if own_statistics:
            mean, var = mean_and_variance(h, dims)
        assert mean is not None
        assert var is not None
        rstd = torch.rsqrt(_per_channel(var.to(acc)) + eps)
        h = (h - _per_channel(mean.to(acc))) * rstd
    z = _affine(h, weight, bias, residual)
    grad_z = grad * _activation_slope(z, act, slope)

    empty = x.new_empty(0)
    grad_weight = (grad_z * h).sum((0, 2, 3)).to(weight.dtype) if weight is not None else empty
    grad_bias = grad_z.sum((0, 2, 3)).to(bias.dtype) if bias is not None else empty
    grad_residual = grad_z.to(x.dtype) if residual_grad else empty

    grad_h = grad_z * weight.to(acc).view(1, -1, 1, 1) if weight is not None else grad_z
    if rstd is None:
        grad_x = grad_h
    elif own_statistics:
        centred = grad_h - grad_h.mean(dims, keepdim=True) - h * (grad_h * h).mean(dims, keepdim=True)
        grad_x = centred * rstd
    else:
        grad_x = grad_h * rstd
    layout = memory_format_of(x)
    grad_x = grad_x.to(x.dtype).contiguous(memory_format=layout)
    if grad_residual.dim() == 4:
        grad_residual = grad_residual.contiguous(memory_format=layout)
    return grad_x, grad_weight, grad_bias, grad_residual


def mean_and_variance(h: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Mean and biased variance over ``dims``, in two passes (zeros for a reduction over nothing)."""
    count = 1
    for d in dims:
        count *= h.shape[d]
    if count == 0:
        shape = [s for d, s in enumerate(h.shape) if d not in dims]
        return h.new_zeros(shape), h.new_zeros(shape)
    mean = h.mean(dims, keepdim=True)
    var = (h - mean).square().mean(dims)
    return mean.squeeze(dims), var


def _per_channel(stat: Tensor) -> Tensor:
    """(N, C) or (C,) made to broadcast over (N, C, H, W)."""
    return stat.view(*stat.shape, 1, 1) if stat.dim() == 2 else stat.view(1, -1, 1, 1)


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
