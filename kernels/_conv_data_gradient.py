"""The fused data gradient: from the gradient of a convolution's output to that of what stood before its activation.

Where the convolution reads its activation without a border, the gradient of the activation is finished where it is
summed. The product's epilogue takes it through the activation, which is made again from x, and adds up per tile what
the normalisation's own gradient needs, the sums of g and of g * xhat; a second, elementwise kernel then turns g into
the gradient of x. (With a border the gradient of the padded activation comes from ``forward_kernel``, and norm_act's
backward folds the border back: a corner is shown at nine places, and to gather from all of them at every tap would
cost more than the pass that is saved.)

Bytes: the product reads grad and the weight as the forward does, reads x (and residual) once, writes g once; the second
kernel reads g and x and writes the gradient of x.
Plan: as the forward, with the pixels and channels of x in place of the output's.
"""

from __future__ import annotations

import triton
import triton.language as tl

from torchp2p.kernels._conv_gemm import gathered_product, output_pixels
from torchp2p.kernels._conv_source import affine, normalised, offsets
from torchp2p.kernels._math import activation_slope, typed

SIZES = ["samples_per_group", "height", "width", "x_height", "x_width", "tiles"]
IMAGES = ("grad", "x", "residual", "out")
STRIDES = [f"{image}_{axis}" for image in IMAGES for axis in "nhw"]
CHANNEL_STRIDES = [f"{image}_c" for image in IMAGES]


@triton.jit(do_not_specialize=SIZES + STRIDES, do_not_specialize_on_alignment=CHANNEL_STRIDES)
def data_gradient_kernel(
    grad, x, residual, mean, var, in_weight, in_bias, weight, out, sums, sums_xhat,
    grad_n: tl.int64, grad_c, grad_h: tl.int32, grad_w: tl.int32,
    x_n: tl.int64, x_c, x_h: tl.int32, x_w: tl.int32,
    residual_n: tl.int64, residual_c, residual_h: tl.int32, residual_w: tl.int32,
    out_n: tl.int64, out_c, out_h: tl.int32, out_w: tl.int32,
    samples_per_group: tl.int32, channels_in, channels_out,
    height: tl.int32, width: tl.int32, x_height: tl.int32, x_width: tl.int32, tiles: tl.int32,
    eps: tl.float64, slope: tl.float64,
    ACT: tl.constexpr, PAD: tl.constexpr, TRANSPOSED: tl.constexpr,
    KH: tl.constexpr, KW: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    GRAD_UNIT: tl.constexpr, X_UNIT: tl.constexpr, RESIDUAL_UNIT: tl.constexpr, OUT_UNIT: tl.constexpr,
    OFFSET: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Grid: (samples * phases * tiles, blocks of x's channels). (height, width) and channels_in are those of grad,
    channels_out those of x. sums, sums_xhat: (grid 0, channels_out).
    """
    part = tl.program_id(0)
    phases: tl.constexpr = SH * SW if TRANSPOSED else 1
    tile, phase, sample = part % tiles, (part // tiles) % phases, part // (tiles * phases)
    group, first = sample // samples_per_group, sample.to(tl.int64)
    channel = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)  # [BLOCK_N]
    row, column, exists, from_row, from_column, _ = output_pixels(
        tile, phase, x_height, x_width, BLOCK_M, SH, SW, PAD, TRANSPOSED
    )
    total = gathered_product(
        grad + first * grad_n * GRAD_UNIT, None, grad_c, grad_h, grad_w, 0, 0, 0,
        height, width, channels_in, group, None, None, None, None, eps, slope,
        weight, channels_out, channel, from_row, from_column, exists, phase,
        "none", "zeros", TRANSPOSED, KH, KW, SH, SW, BLOCK_M, BLOCK_N, BLOCK_K,
        GRAD_UNIT, GRAD_UNIT, OFFSET, PRECISION,
    )  # fmt: skip
    valid = channel < channels_out
    mask = exists[:, None] & valid[None, :]  # [BLOCK_M, BLOCK_N]
    at = offsets(row, column, channel, x_c, x_h, x_w, X_UNIT, OFFSET)
    xhat = tl.load(x + first * x_n * X_UNIT + at, mask=mask, other=0.0)
    xhat = normalised(xhat, channel, valid, group, channels_out, mean, var, eps)
    z = affine(xhat, channel, valid, in_weight, in_bias)
    if residual is not None:
        at = offsets(row, column, channel, residual_c, residual_h, residual_w, RESIDUAL_UNIT, OFFSET)
        z += tl.load(residual + first * residual_n * RESIDUAL_UNIT + at, mask=mask, other=0.0).to(tl.float32)
    total = (total * activation_slope(z, slope, ACT)).to(out.dtype.element_ty)
    at = offsets(row, column, channel, out_c, out_h, out_w, OUT_UNIT, OFFSET)
    tl.store(out + first * out_n * OUT_UNIT + at, total, mask=mask)
    total = tl.where(mask, total.to(tl.float32), 0.0)  # the sums are of the values as they are stored
    place = part.to(tl.int64) * channels_out + channel
    tl.store(sums + place, tl.sum(total, 0), mask=valid)
    tl.store(sums_xhat + place, tl.sum(total * xhat, 0), mask=valid)


@triton.jit(
    do_not_specialize=[
        "samples_per_group", "height", "width", "tiles", "grad_n", "grad_h", "grad_w", "x_n", "x_h", "x_w",
        "out_n", "out_h", "out_w",
    ],
    do_not_specialize_on_alignment=["grad_c", "x_c", "out_c"],
)  # fmt: skip
def norm_gradient_kernel(
    grad, x, mean, var, weight, mean_grad, mean_grad_xhat, out,
    grad_n: tl.int64, grad_c, grad_h: tl.int32, grad_w: tl.int32,
    x_n: tl.int64, x_c, x_h: tl.int32, x_w: tl.int32,
    out_n: tl.int64, out_c, out_h: tl.int32, out_w: tl.int32,
    samples_per_group: tl.int32, channels, height: tl.int32, width: tl.int32, tiles: tl.int32, eps: tl.float64,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    GRAD_UNIT: tl.constexpr, X_UNIT: tl.constexpr, OUT_UNIT: tl.constexpr, OFFSET: tl.constexpr,
):  # fmt: skip
    """out = (grad - mean_grad - xhat * mean_grad_xhat) * weight / sqrt(var + eps).

    Grid: (samples * tiles, blocks of channels). mean_grad, mean_grad_xhat: (G, channels), or None where statistics
    do not move with x. ``out`` may be ``grad``.
    """
    part = tl.program_id(0)
    tile, sample = part % tiles, part // tiles
    group, first = sample // samples_per_group, sample.to(tl.int64)
    channel = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)  # [BLOCK_N]
    pixel = tile * BLOCK_M + tl.arange(0, BLOCK_M)
    row, column = pixel // width, pixel % width
    valid = channel < channels
    mask = (pixel < height * width)[:, None] & valid[None, :]  # [BLOCK_M, BLOCK_N]
    at = offsets(row, column, channel, grad_c, grad_h, grad_w, GRAD_UNIT, OFFSET)
    total = tl.load(grad + first * grad_n * GRAD_UNIT + at, mask=mask, other=0.0).to(tl.float32)
    of_group = group * channels + channel  # [BLOCK_N]
    if mean_grad is not None:
        at = offsets(row, column, channel, x_c, x_h, x_w, X_UNIT, OFFSET)
        xhat = tl.load(x + first * x_n * X_UNIT + at, mask=mask, other=0.0)
        xhat = normalised(xhat, channel, valid, group, channels, mean, var, eps)
        total -= tl.load(mean_grad + of_group, mask=valid, other=0.0)[None, :]
        total -= xhat * tl.load(mean_grad_xhat + of_group, mask=valid, other=0.0)[None, :]
    total = affine(total, channel, valid, weight, None)
    if var is not None:
        total *= tl.rsqrt(tl.load(var + of_group, mask=valid, other=0.0) + typed(eps, tl.float32))[None, :]
    at = offsets(row, column, channel, out_c, out_h, out_w, OUT_UNIT, OFFSET)
    tl.store(out + first * out_n * OUT_UNIT + at, total.to(out.dtype.element_ty), mask=mask)
