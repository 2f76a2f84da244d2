"""What a convolution reads: the activation of the block before it, made by index from that block's raw output."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def within_border(position, size, PAD_MODE: tl.constexpr):
    """The place in 0..size-1 that a position in the border is a copy of, and whether there is one."""
    if PAD_MODE == "reflect":
        position = tl.where(position < 0, -position, position)
        position = tl.where(position >= size, 2 * size - 2 - position, position)
    elif PAD_MODE == "replicate":
        position = tl.minimum(tl.maximum(position, 0), size - 1)
    return position, (position >= 0) & (position < size)


@triton.jit
def normalised(values, channel, valid, group, channels, mean, var, eps):
    """(values - mean) / sqrt(var + eps) of [pixels, channel] in float32; the values where there is no norm."""
    values = values.to(tl.float32)
    if mean is not None:
        at = group * channels + channel  # [channel]
        scale = tl.rsqrt(tl.load(var + at, mask=valid, other=0.0) + eps)
        values = (values - tl.load(mean + at, mask=valid, other=0.0)[None, :]) * scale[None, :]
    return values


@triton.jit
def affine(values, channel, valid, weight, bias):
    """values * weight + bias, of [pixels, channel]."""
    if weight is not None:
        values = values * tl.load(weight + channel, mask=valid, other=0.0).to(tl.float32)[None, :]
    if bias is not None:
        values = values + tl.load(bias + channel, mask=valid, other=0.0).to(tl.float32)[None, :]
    return values


@triton.jit
def tanh(z):
    """From one exponential, which does not overflow."""
    shrunk = tl.exp(-2.0 * tl.abs(z))
    size = (1.0 - shrunk) / (1.0 + shrunk)
    return tl.where(z < 0, -size, size)


@triton.jit
def activated(z, slope, ACT: tl.constexpr):
    """act(z)."""
    if ACT == "leaky_relu":
        z = tl.where(z > 0, z, z * slope)
    elif ACT == "relu":
        z = tl.where(z <= 0, 0.0, z)  # nan stays
    elif ACT == "tanh":
        z = tanh(z)
    return z


@triton.jit
def through_activation(grad, z, slope, ACT: tl.constexpr):
    """grad * act'(z); at 0 the left slope, as in torch."""
    if ACT == "leaky_relu":
        grad = tl.where(z > 0, grad, grad * slope)
    elif ACT == "relu":
        grad = tl.where(z > 0, grad, 0.0)
    elif ACT == "tanh":
        y = tanh(z)
        grad = grad * (1.0 - y * y)
    return grad


@triton.jit
def read_activation(
    x, at, residual, residual_at, mask,  # [pixels, channel]; x and residual point at the sample
    channel, valid, group, channels, mean, var, weight, bias, eps, slope, ACT: tl.constexpr,
):  # fmt: skip
    """act(norm(x) * weight + bias + residual) at ``at``, rounded to the dtype of x; zero where there is none."""
    values = tl.load(x + at, mask=mask, other=0.0)
    if mean is not None or weight is not None or bias is not None or residual is not None or ACT != "none":
        z = normalised(values, channel, valid, group, channels, mean, var, eps)
        z = affine(z, channel, valid, weight, bias)
        if residual is not None:
            z += tl.load(residual + residual_at, mask=mask, other=0.0).to(tl.float32)
        values = tl.where(mask, activated(z, slope, ACT), 0.0).to(x.dtype.element_ty)
    return values
