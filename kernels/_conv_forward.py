"""The fused convolution: out = conv(pad(act(norm(x) * weight + bias + residual))), and the statistics of out.

Bytes: reads x (and residual) once a tap from the cache, hence about once from memory, and the weight; writes out once
and 8 bytes a channel and tile of statistics. What the norm, the activation and the border cost is arithmetic.
Plan: a program computes BLOCK_M pixels of one sample (and, transposed, of one phase) by BLOCK_N output channels; its
pixels being of one sample, its statistics are part of that sample's. No atomics: every program has places of its own.
"""

from __future__ import annotations

import triton
import triton.language as tl

from torchp2p.kernels._conv_gemm import gathered_product, output_pixels

SIZES = ["samples_per_group", "height", "width", "out_height", "out_width", "tiles"]
IMAGES = ("x", "residual", "out")
STRIDES = [f"{image}_{axis}" for image in IMAGES for axis in "nhw"]
CHANNEL_STRIDES = [f"{image}_c" for image in IMAGES]


@triton.jit(do_not_specialize=SIZES + STRIDES, do_not_specialize_on_alignment=CHANNEL_STRIDES)
def forward_kernel(
    x, residual, mean, var, in_weight, in_bias, weight, bias, out, counts, means, variances,
    x_n, x_c, x_h, x_w, residual_n, residual_c, residual_h, residual_w, out_n, out_c, out_h, out_w,
    samples_per_group, channels_in, channels_out, height, width, out_height, out_width, tiles, eps, slope,
    ACT: tl.constexpr, PAD: tl.constexpr, PAD_MODE: tl.constexpr, TRANSPOSED: tl.constexpr,
    KH: tl.constexpr, KW: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    X_UNIT: tl.constexpr, RESIDUAL_UNIT: tl.constexpr, OUT_UNIT: tl.constexpr, INDEX: tl.constexpr,
    OPERAND: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Grid: (samples * phases * tiles, blocks of output channels); phases is SH * SW where transposed, else 1.

    mean, var: (G, channels_in) or None. counts: (grid 0,); means, variances: (grid 0, channels_out), or None.
    Strides of samples, rows and columns count in units of elements.
    """
    part = tl.program_id(0)
    phases: tl.constexpr = SH * SW if TRANSPOSED else 1
    tile, phase, sample = part % tiles, (part // tiles) % phases, part // (tiles * phases)
    group = sample // samples_per_group
    channel = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)  # [BLOCK_N]
    y, x_, exists, count, from_y, from_x = output_pixels(
        tile, phase, out_height, out_width, BLOCK_M, SH, SW, PAD, TRANSPOSED
    )
    first = sample.to(tl.int64)
    if residual is not None:
        residual += first * residual_n * RESIDUAL_UNIT
    total = gathered_product(
        x + first * x_n * X_UNIT, residual, x_c, x_h, x_w, residual_c, residual_h, residual_w,
        height, width, channels_in, group, mean, var, in_weight, in_bias, eps, slope,
        weight, channels_out, channel, from_y, from_x, exists, phase,
        ACT, PAD_MODE, TRANSPOSED, KH, KW, SH, SW, BLOCK_M, BLOCK_N, BLOCK_K,
        X_UNIT, RESIDUAL_UNIT, INDEX, OPERAND, PRECISION,
    )  # fmt: skip
    valid = channel < channels_out
    if bias is not None:
        total += tl.load(bias + channel, mask=valid, other=0.0).to(tl.float32)[None, :]
    total = total.to(out.dtype.element_ty)
    mask = exists[:, None] & valid[None, :]  # [BLOCK_M, BLOCK_N]
    at = ((y.to(INDEX) * out_h + x_.to(INDEX) * out_w) * OUT_UNIT)[:, None] + (channel * out_c)[None, :]
    tl.store(out + first * out_n * OUT_UNIT + at, total, mask=mask)
    if means is not None:  # of the values as they are stored
        total = tl.where(mask, total.to(tl.float32), 0.0)
        middle = tl.sum(total, 0) / tl.maximum(count, 1)  # [BLOCK_N]
        away = tl.where(mask, total - middle[None, :], 0.0)
        place = part.to(tl.int64) * channels_out + channel
        tl.store(means + place, middle, mask=valid)
        tl.store(variances + place, tl.sum(away * away, 0) / tl.maximum(count, 1), mask=valid)
        tl.store(counts + part, count.to(tl.float32))  # the same from every block of channels
