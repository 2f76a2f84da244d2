"""The fused convolution: out = conv(pad(act(norm(x) * weight + bias + residual))), and the statistics of out.

Bytes: reads x (and residual) once a tap from the cache, hence about once from memory, and the weight; writes out once
and 8 bytes a channel and tile of statistics. What the norm, the activation and the border cost is arithmetic.
Plan: a program computes BLOCK_M pixels of one sample (and, transposed, of one phase) by BLOCK_N output channels; its
pixels being of one sample, its statistics are part of that sample's, and are written to a place of its own.
"""

from __future__ import annotations

import triton
import triton.language as tl

from torchp2p.kernels._conv_gemm import gathered_product, output_pixels
from torchp2p.kernels._conv_source import offsets

SIZES = ["samples_per_group", "height", "width", "out_height", "out_width", "tiles"]
IMAGES = ("x", "residual", "out")
STRIDES = [f"{image}_{axis}" for image in IMAGES for axis in "nhw"]
CHANNEL_STRIDES = [f"{image}_c" for image in IMAGES]


@triton.jit(do_not_specialize=SIZES + STRIDES, do_not_specialize_on_alignment=CHANNEL_STRIDES)
def forward_kernel(
    x, residual, mean, var, in_weight, in_bias, weight, bias, out, counts, means, variances,
    x_n: tl.int64, x_c, x_h: tl.int32, x_w: tl.int32,
    residual_n: tl.int64, residual_c, residual_h: tl.int32, residual_w: tl.int32,
    out_n: tl.int64, out_c, out_h: tl.int32, out_w: tl.int32,
    samples_per_group: tl.int32, channels_in, channels_out,
    height: tl.int32, width: tl.int32, out_height: tl.int32, out_width: tl.int32, tiles: tl.int32,
    eps: tl.float64, slope: tl.float64,
    ACT: tl.constexpr, PAD: tl.constexpr, PAD_MODE: tl.constexpr, TRANSPOSED: tl.constexpr,
    KH: tl.constexpr, KW: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    X_UNIT: tl.constexpr, RESIDUAL_UNIT: tl.constexpr, OUT_UNIT: tl.constexpr,
    OFFSET: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Grid: (samples * phases * tiles, blocks of output channels); phases is SH * SW where transposed, else 1.

    mean, var: (G, channels_in) or None. counts: (grid 0,); means, variances: (grid 0, channels_out), or None.
    """
    part = tl.program_id(0)
    phases: tl.constexpr = SH * SW if TRANSPOSED else 1
    tile, phase, sample = part % tiles, (part // tiles) % phases, part // (tiles * phases)
    first = sample.to(tl.int64)
    channel = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)  # [BLOCK_N]
    row, column, exists, from_row, from_column, count = output_pixels(
        tile, phase, out_height, out_width, BLOCK_M, SH, SW, PAD, TRANSPOSED
    )
    if residual is not None:
        residual += first * residual_n * RESIDUAL_UNIT
    total = gathered_product(
        x + first * x_n * X_UNIT, residual, x_c, x_h, x_w, residual_c, residual_h, residual_w,
        height, width, channels_in, sample // samples_per_group, mean, var, in_weight, in_bias, eps, slope,
        weight, channels_out, channel, from_row, from_column, exists, phase,
        ACT, PAD_MODE, TRANSPOSED, KH, KW, SH, SW, BLOCK_M, BLOCK_N, BLOCK_K,
        X_UNIT, RESIDUAL_UNIT, OFFSET, PRECISION,
    )  # fmt: skip
    valid = channel < channels_out
    if bias is not None:
        total += tl.load(bias + channel, mask=valid, other=0.0).to(tl.float32)[None, :]
    total = total.to(out.dtype.element_ty)
    mask = exists[:, None] & valid[None, :]  # [BLOCK_M, BLOCK_N]
    at = offsets(row, column, channel, out_c, out_h, out_w, OUT_UNIT, OFFSET)
    tl.store(out + first * out_n * OUT_UNIT + at, total, mask=mask)
    if means is not None:  # of the values as they are stored
        total = tl.where(mask, total.to(tl.float32), 0.0)
        some = tl.maximum(count, 1).to(tl.float32)
        middle = tl.sum(total, 0) / some  # [BLOCK_N]
        away = tl.where(mask, total - middle[None, :], 0.0)
        place = part.to(tl.int64) * channels_out + channel
        tl.store(means + place, middle, mask=valid)
        tl.store(variances + place, tl.sum(away * away, 0) / some, mask=valid)
        tl.store(counts + part, count.to(tl.float32))  # the same from every block of channels
