"""The fused weight gradient: sums over pixels of grad times the activation, which is made again while it is read.

grad_weight[p, k, q] = sum over samples and pixels y of left[y, p] * right[y * stride - padding + k, q]. For a
convolution left is grad and right the activation; for a transposed one left is the activation and right is grad. That
is weight's own order in memory, (p, kh, kw, q), in both cases.

Bytes: reads left once for every tap and block of q, right once for every block of p, mostly from the cache; writes
4 bytes for every weight and split.
Plan: a program sums one tap of BLOCK_M by BLOCK_N weights over its share of the pixels, BLOCK_K at a time, of one
sample each. Shares (splits) fill the machine where weights are few; they are summed afterwards, in order.
"""

from __future__ import annotations

import triton
import triton.language as tl

from torchp2p.kernels._conv_source import offsets, read_activation
from torchp2p.kernels._index import is_inside, source_index

SIZES = ["samples_per_group", "height", "width", "right_height", "right_width", "steps", "tiles", "steps_a_split"]
IMAGES = ("grad", "x", "residual")
STRIDES = [f"{image}_{axis}" for image in IMAGES for axis in "nhw"]
CHANNEL_STRIDES = [f"{image}_c" for image in IMAGES]


@triton.jit(do_not_specialize=SIZES + STRIDES, do_not_specialize_on_alignment=CHANNEL_STRIDES)
def weight_gradient_kernel(
    grad, x, residual, mean, var, in_weight, in_bias, out,
    grad_n: tl.int64, grad_c, grad_h: tl.int32, grad_w: tl.int32,
    x_n: tl.int64, x_c, x_h: tl.int32, x_w: tl.int32,
    residual_n: tl.int64, residual_c, residual_h: tl.int32, residual_w: tl.int32,
    samples_per_group: tl.int32, channels_left, channels_right,
    height: tl.int32, width: tl.int32, right_height: tl.int32, right_width: tl.int32,
    steps: tl.int32, tiles: tl.int32, steps_a_split: tl.int32, eps: tl.float64, slope: tl.float64,
    ACT: tl.constexpr, PAD: tl.constexpr, PAD_MODE: tl.constexpr, TRANSPOSED: tl.constexpr,
    KH: tl.constexpr, KW: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    GRAD_UNIT: tl.constexpr, X_UNIT: tl.constexpr, RESIDUAL_UNIT: tl.constexpr,
    OFFSET: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Grid: (blocks of p, taps * blocks of q, splits). out: (splits, channels_left, KH, KW, channels_right).

    (height, width) are left's; ``steps`` of BLOCK_K pixels cover all samples, ``tiles`` one of them.
    """
    blocks = tl.cdiv(channels_right, BLOCK_N)
    tap, split = tl.program_id(1) // blocks, tl.program_id(2)
    left_channel = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    right_channel = (tl.program_id(1) % blocks) * BLOCK_N + tl.arange(0, BLOCK_N)
    left_valid, right_valid = left_channel < channels_left, right_channel < channels_right
    total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for step in range(split * steps_a_split, tl.minimum((split + 1) * steps_a_split, steps)):
        sample, pixel = step // tiles, (step % tiles) * BLOCK_K + tl.arange(0, BLOCK_K)  # [BLOCK_K]
        first, exists = sample.to(tl.int64), pixel < height * width
        row, column = pixel // width, pixel % width
        right_row = source_index(row * SH - PAD + tap // KW, right_height, PAD_MODE)
        right_column = source_index(column * SW - PAD + tap % KW, right_width, PAD_MODE)
        left_mask = exists[:, None] & left_valid[None, :]
        inside = exists & is_inside(right_row, right_height) & is_inside(right_column, right_width)
        right_mask = inside[:, None] & right_valid[None, :]
        if TRANSPOSED:
            in_row, in_column, in_channel, in_valid, in_mask = row, column, left_channel, left_valid, left_mask
            of_row, of_column, of_channel, of_mask = right_row, right_column, right_channel, right_mask
            channels = channels_left
        else:
            in_row, in_column, in_channel, in_valid = right_row, right_column, right_channel, right_valid
            of_row, of_column, of_channel, of_mask = row, column, left_channel, left_mask
            channels, in_mask = channels_right, right_mask
        at = offsets(of_row, of_column, of_channel, grad_c, grad_h, grad_w, GRAD_UNIT, OFFSET)
        of_grad = tl.load(grad + first * grad_n * GRAD_UNIT + at, mask=of_mask, other=0.0)  # [BLOCK_K, its channels]
        at = offsets(in_row, in_column, in_channel, x_c, x_h, x_w, X_UNIT, OFFSET)
        here, residual_at = residual, at
        if residual is not None:
            here += first * residual_n * RESIDUAL_UNIT
            residual_at = offsets(
                in_row, in_column, in_channel, residual_c, residual_h, residual_w, RESIDUAL_UNIT, OFFSET
            )
        activation = read_activation(
            x + first * x_n * X_UNIT, at, here, residual_at, in_mask, in_channel, in_valid,
            sample // samples_per_group, channels, mean, var, in_weight, in_bias, eps, slope, ACT,
        )  # fmt: skip
        if TRANSPOSED:
            left, right = activation, of_grad
        else:
            left, right = of_grad, activation
        total = tl.dot(tl.trans(left), right, total, input_precision=PRECISION)
    place = (split * channels_left + left_channel) * (KH * KW) + tap  # [BLOCK_M]
    at = place.to(tl.int64)[:, None] * channels_right + right_channel[None, :]
    tl.store(out + at, total, mask=left_valid[:, None] & right_valid[None, :])
