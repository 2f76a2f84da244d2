"""A convolution as a matrix product whose left factor is gathered, and made, while it is read.

Two ways to gather serve all four cases. Forward, output row y reads input rows ``y * stride - padding + k``; the
gradient of a transposed convolution's input does the same. Transposed, y reads those rows whose image it is,
``(y + padding - k) / stride`` where that is whole; so does the gradient of a convolution's input. All y of one phase,
``(y + padding) % stride``, share their taps k, so a program computes pixels of one phase only.
"""

from __future__ import annotations

import triton
import triton.language as tl

from torchp2p.kernels._conv_source import offsets, read_activation
from torchp2p.kernels._index import is_inside, source_index


@triton.jit
def output_pixels(
    tile, phase, height, width,
    BLOCK_M: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr, PAD: tl.constexpr, TRANSPOSED: tl.constexpr,
):  # fmt: skip
    """The pixels of a tile: row, column, whether it exists, and where its taps begin to read, each [BLOCK_M]; and
    how many exist.
    """
    index = tile * BLOCK_M + tl.arange(0, BLOCK_M)
    if TRANSPOSED:
        # The first row of phase p is the least y with (y + PAD) % SH == p.
        first_row = (phase // SW + SH - PAD % SH) % SH
        first_column = (phase % SW + SW - PAD % SW) % SW
        rows, columns = (height - first_row + SH - 1) // SH, (width - first_column + SW - 1) // SW
        row, column = (
            first_row + index // tl.maximum(columns, 1) * SH,
            first_column + index % tl.maximum(columns, 1) * SW,
        )
        from_row, from_column = (row + PAD) // SH, (column + PAD) // SW
        count = rows * columns
    else:
        row, column = index // width, index % width
        from_row, from_column = row * SH - PAD, column * SW - PAD
        count = height * width
    here = tl.minimum(tl.maximum(count - tile * BLOCK_M, 0), BLOCK_M)
    return row, column, index < count, from_row, from_column, here


@triton.jit
def gathered_product(
    x, residual, x_c, x_h, x_w, residual_c, residual_h, residual_w,
    height, width, channels_in, group, mean, var, in_weight, in_bias, eps, slope,
    weight, channels_out, channel_out, from_row, from_column, exists, phase,
    ACT: tl.constexpr, PAD_MODE: tl.constexpr, TRANSPOSED: tl.constexpr,
    KH: tl.constexpr, KW: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    X_UNIT: tl.constexpr, RESIDUAL_UNIT: tl.constexpr, OFFSET: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """[BLOCK_M, BLOCK_N] in float32: of every pixel and output channel the sum over taps and input channels.

    ``x`` and ``residual`` point at the sample. ``weight`` is (out, kh, kw, in) in memory, or (in, kh, kw, out) where
    transposed.
    """
    if TRANSPOSED:
        tap_row, tap_column = phase // SW, phase % SW
        taps_down, taps_across = (KH - tap_row + SH - 1) // SH, (KW - tap_column + SW - 1) // SW
        weight_in, weight_out, weight_tap = KH * KW * channels_out, 1, channels_out
    else:
        taps_down, taps_across = KH, KW
        weight_in, weight_out, weight_tap = 1, KH * KW * channels_in, channels_in
    valid_out = channel_out < channels_out
    blocks = tl.cdiv(channels_in, BLOCK_K)
    total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for step in range(taps_down * taps_across * blocks):
        tap = step // blocks
        channel = (step % blocks) * BLOCK_K + tl.arange(0, BLOCK_K)  # [BLOCK_K]
        valid = channel < channels_in
        down, across = tap // taps_across, tap % taps_across
        if TRANSPOSED:
            row, column = from_row - down, from_column - across
            tap = (tap_row + down * SH) * KW + tap_column + across * SW
        else:
            row, column = from_row + down, from_column + across
        row, column = source_index(row, height, PAD_MODE), source_index(column, width, PAD_MODE)
        mask = (exists & is_inside(row, height) & is_inside(column, width))[:, None] & valid[None, :]
        at = offsets(row, column, channel, x_c, x_h, x_w, X_UNIT, OFFSET)  # [BLOCK_M, BLOCK_K]
        residual_at = at
        if residual is not None:
            residual_at = offsets(row, column, channel, residual_c, residual_h, residual_w, RESIDUAL_UNIT, OFFSET)
        left = read_activation(
            x, at, residual, residual_at, mask, channel, valid, group, channels_in, mean, var, in_weight, in_bias,
            eps, slope, ACT,
        )  # fmt: skip
        weight_at = tap * weight_tap + channel[:, None] * weight_in + channel_out[None, :] * weight_out
        right = tl.load(weight + weight_at, mask=valid[:, None] & valid_out[None, :], other=0.0)  # [BLOCK_K, BLOCK_N]
        total = tl.dot(left, right, total, input_precision=PRECISION)
    return total
