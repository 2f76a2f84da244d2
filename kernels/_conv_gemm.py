"""A convolution as a matrix product whose left factor is gathered, and made, while it is read.

Two ways to gather serve all four cases. Forward, output pixel y reads input pixels ``y * stride - padding + k``; the
gradient of a transposed convolution's input does the same. Transposed, y reads those pixels of which ``y`` is the
image, ``(y + padding - k) / stride`` where that is whole; so does the gradient of a convolution's input. All y of one
phase, ``(y + padding) % stride``, share their taps k, so a program computes pixels of one phase only.
"""

from __future__ import annotations

import triton
import triton.language as tl

from torchp2p.kernels._conv_source import read_activation, within_border


@triton.jit
def output_pixels(
    tile, phase, height, width,
    BLOCK_M: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr, PAD: tl.constexpr, TRANSPOSED: tl.constexpr,
):  # fmt: skip
    """The pixels (y, x) of a tile, which of them exist, how many, and where (y, x) begins to read: each [BLOCK_M]."""
    index = tile * BLOCK_M + tl.arange(0, BLOCK_M)
    if TRANSPOSED:
        # The first y of phase p is the least one with (y + PAD) % SH == p; it reads from pixel (y + PAD - p) / SH.
        first_y = ((phase // SW) - PAD % SH + SH) % SH
        first_x = ((phase % SW) - PAD % SW + SW) % SW
        rows, columns = (height - first_y + SH - 1) // SH, (width - first_x + SW - 1) // SW
        row, column = index // tl.maximum(columns, 1), index % tl.maximum(columns, 1)
        y, x = first_y + row * SH, first_x + column * SW
        from_y, from_x = (y + PAD) // SH, (x + PAD) // SW
        count = rows * columns
    else:
        y, x = index // width, index % width
        from_y, from_x = y * SH - PAD, x * SW - PAD
        count = height * width
    return y, x, index < count, tl.minimum(tl.maximum(count - tile * BLOCK_M, 0), BLOCK_M), from_y, from_x


@triton.jit
def gathered_product(
    x, residual, x_c, x_h, x_w, residual_c, residual_h, residual_w,
    height, width, channels_in, group, mean, var, in_weight, in_bias, eps, slope,
    weight, channels_out, channel_out, from_y, from_x, exists, phase,
    ACT: tl.constexpr, PAD_MODE: tl.constexpr, TRANSPOSED: tl.constexpr,
    KH: tl.constexpr, KW: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    X_UNIT: tl.constexpr, RESIDUAL_UNIT: tl.constexpr, INDEX: tl.constexpr,
    OPERAND: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """[BLOCK_M, BLOCK_N] in float32: of every pixel and output channel the sum over taps and input channels.

    ``x`` and ``residual`` point at the sample; their strides of rows and columns count in units of so many elements.
    ``weight`` is (out, kh, kw, in) in memory, or (in, kh, kw, out) where transposed.
    """
    if TRANSPOSED:
        tap_y, tap_x = phase // SW, phase % SW
        taps_y, taps_x = (KH - tap_y + SH - 1) // SH, (KW - tap_x + SW - 1) // SW
        weight_in, weight_out, weight_tap = KH * KW * channels_out, 1, channels_out
    else:
        taps_y, taps_x = KH, KW
        weight_in, weight_out, weight_tap = 1, KH * KW * channels_in, channels_in
    valid_out = channel_out < channels_out
    blocks = tl.cdiv(channels_in, BLOCK_K)
    total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for step in range(taps_y * taps_x * blocks):
        tap = step // blocks
        channel = (step % blocks) * BLOCK_K + tl.arange(0, BLOCK_K)  # [BLOCK_K]
        valid = channel < channels_in
        j, i = tap // taps_x, tap % taps_x
        if TRANSPOSED:
            y, x_ = from_y - j, from_x - i
            place = (tap_y + j * SH) * KW + tap_x + i * SW
        else:
            y, x_ = from_y + j, from_x + i
            place = tap
        y, inside_y = within_border(y, height, PAD_MODE)
        x_, inside_x = within_border(x_, width, PAD_MODE)
        y, x_ = y.to(INDEX), x_.to(INDEX)
        at = ((y * x_h + x_ * x_w) * X_UNIT)[:, None] + (channel * x_c)[None, :]  # [BLOCK_M, BLOCK_K]
        residual_at = at
        if residual is not None:
            residual_at = ((y * residual_h + x_ * residual_w) * RESIDUAL_UNIT)[:, None]
            residual_at += (channel * residual_c)[None, :]
        mask = (exists & inside_y & inside_x)[:, None] & valid[None, :]
        left = read_activation(
            x, at, residual, residual_at, mask, channel, valid, group, channels_in, mean, var, in_weight, in_bias,
            eps, slope, ACT,
        )  # fmt: skip
        weight_at = place * weight_tap + channel[:, None] * weight_in + channel_out[None, :] * weight_out
        right = tl.load(weight + weight_at, mask=valid[:, None] & valid_out[None, :], other=0.0)  # [BLOCK_K, BLOCK_N]
        total = tl.dot(left.to(OPERAND), right.to(OPERAND), total, input_precision=PRECISION)
    return total
