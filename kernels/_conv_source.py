"""What a convolution reads: the activation of the block before it, made by index from that block's raw output.

All values are of [pixels, channels]; ``valid`` says which of the channels there are.
"""

from __future__ import annotations

import triton
import triton.language as tl

from torchp2p.kernels._math import activate, typed


@triton.jit
def offsets(row, column, channel, stride_c, stride_h, stride_w, UNIT: tl.constexpr, OFFSET: tl.constexpr):
    """Where in a sample the pixels (row, column) have these channels. Strides of pixels count in units of elements."""
    pixel = (row.to(OFFSET) * stride_h + column.to(OFFSET) * stride_w) * UNIT
    return pixel[:, None] + (channel * stride_c)[None, :]


@triton.jit
def normalised(values, channel, valid, group, channels, mean, var, eps):
    """(values - mean) / sqrt(var + eps) in float32; the values where there is no norm."""
    values = values.to(tl.float32)
    if mean is not None:
        at = group * channels + channel  # [channels]
        values -= tl.load(mean + at, mask=valid, other=0.0)[None, :]
        values *= tl.rsqrt(tl.load(var + at, mask=valid, other=0.0) + typed(eps, tl.float32))[None, :]
    return values


@triton.jit
def affine(values, channel, valid, weight, bias):
    """values * weight + bias."""
    if weight is not None:
        values *= tl.load(weight + channel, mask=valid, other=0.0).to(tl.float32)[None, :]
    if bias is not None:
        values += tl.load(bias + channel, mask=valid, other=0.0).to(tl.float32)[None, :]
    return values


@triton.jit
def read_activation(
    x, at, residual, residual_at, mask,  # x and residual point at the sample
    channel, valid, group, channels, mean, var, weight, bias, eps, slope, ACT: tl.constexpr,
):  # fmt: skip
    """act(norm(x) * weight + bias + residual) at ``at``, rounded to the dtype of x; zero where there is none."""
    values = tl.load(x + at, mask=mask, other=0.0)
    if mean is not None or weight is not None or bias is not None or residual is not None or ACT != "none":
        z = affine(normalised(values, channel, valid, group, channels, mean, var, eps), channel, valid, weight, bias)
        if residual is not None:
            z += tl.load(residual + residual_at, mask=mask, other=0.0).to(tl.float32)
        values = tl.where(mask, activate(z, slope, ACT), 0.0).to(x.dtype.element_ty)
    return values
