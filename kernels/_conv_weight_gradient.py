"""The fused weight gradient: sums over pixels of grad times the activation, which is made again while it is read.

grad_weight[p, k, q] = sum over samples and pixels y of left[y, p] * right[y * stride - padding + k, q]. For a
convolution left is grad and right the activation; for a transposed one left is the activation and right is grad. That
is weight's own order in memory, (p, kh, kw, q), in both cases.

Bytes: reads left once for every tap and block of q, right once for every block of p, mostly from the cache; writes
4 bytes for every weight and split.
Plan: a program sums one tap of BLOCK_M by BLOCK_N weights over its share of the pixels, BLOCK_K at a time, of one
sample each. Shares (splits) fill the machine where weights are few; they are summed afterwards, in order, no atomics.
"""

from __future__ import annotations

import triton
import triton.language as tl

from torchp2p.kernels._conv_source import read_activation, within_border

SIZES = ["samples_per_group", "height", "width", "right_height", "right_width", "steps", "tiles", "steps_a_split"]
IMAGES = ("grad", "x", "residual")
STRIDES = [f"{image}_{axis}" for image in IMAGES for axis in "nhw"]
CHANNEL_STRIDES = [f"{image}_c" for image in IMAGES]


@triton.jit(do_not_specialize=SIZES + STRIDES, do_not_specialize_on_alignment=CHANNEL_STRIDES)
def weight_gradient_kernel(
    grad, x, residual, mean, var, in_weight, in_bias, out,
    grad_n, grad_c, grad_h, grad_w, x_n, x_c, x_h, x_w, residual_n, residual_c, residual_h, residual_w,
    samples_per_group, channels_left, channels_right, height, width, right_height, right_width,
    steps, tiles, steps_a_split, eps, slope,
    ACT: tl.constexpr, PAD: tl.constexpr, PAD_MODE: tl.constexpr, TRANSPOSED: tl.constexpr,
    KH: tl.constexpr, KW: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    GRAD_UNIT: tl.constexpr, X_UNIT: tl.constexpr, RESIDUAL_UNIT: tl.constexpr, INDEX: tl.constexpr,
    OPERAND: tl.constexpr, PRECISION: tl.constexpr,
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
        exists = pixel < height * width
        y, x_ = pixel // width, pixel % width
        right_y, inside_y = within_border(y * SH - PAD + tap // KW, right_height, PAD_MODE)
        right_x, inside_x = within_border(x_ * SW - PAD + tap % KW, right_width, PAD_MODE)
        inside = exists & inside_y & inside_x
        if TRANSPOSED:
            grad_y, grad_x, grad_exists, grad_channel, grad_valid = right_y, right_x, inside, right_channel, right_valid
            in_y, in_x, in_exists, in_channel, in_valid, channels = (
                y,
                x_,
                exists,
                left_channel,
                left_valid,
                channels_left,
            )
        else:
            grad_y, grad_x, grad_exists, grad_channel, grad_valid = y, x_, exists, left_channel, left_valid
            in_y, in_x, in_exists, in_channel, in_valid = right_y, right_x, inside, right_channel, right_valid
            channels = channels_right
        first = sample.to(tl.int64)
        grad_at = ((grad_y.to(INDEX) * grad_h + grad_x.to(INDEX) * grad_w) * GRAD_UNIT)[:, None]
        grad_at += (grad_channel * grad_c)[None, :]
        of_grad = tl.load(
            grad + first * grad_n * GRAD_UNIT + grad_at, mask=grad_exists[:, None] & grad_valid[None, :], other=0.0
        )  # [BLOCK_K, channels of grad]
        in_y, in_x = in_y.to(INDEX), in_x.to(INDEX)
        at = ((in_y * x_h + in_x * x_w) * X_UNIT)[:, None] + (in_channel * x_c)[None, :]
        here, residual_at = residual, at
        if residual is not None:
            here += first * residual_n * RESIDUAL_UNIT
            residual_at = ((in_y * residual_h + in_x * residual_w) * RESIDUAL_UNIT)[:, None]
            residual_at += (in_channel * residual_c)[None, :]
        activation = read_activation(
            x + first * x_n * X_UNIT, at, here, residual_at, in_exists[:, None] & in_valid[None, :],
            in_channel, in_valid, sample // samples_per_group, channels, mean, var, in_weight, in_bias, eps, slope, ACT,
        )  # fmt: skip
        if TRANSPOSED:
            left, right = activation, of_grad
        else:
            left, right = of_grad, activation
        total = tl.dot(tl.trans(left.to(OPERAND)), right.to(OPERAND), total, input_precision=PRECISION)
    row = (split * channels_left + left_channel) * (KH * KW) + tap  # [BLOCK_M]
    at = row.to(tl.int64)[:, None] * channels_right + right_channel[None, :]
    tl.store(out + at, total, mask=left_valid[:, None] & right_valid[None, :])
