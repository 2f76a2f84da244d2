"""Statistics from parts: counts, means and variances of tiles, merged until one part is left of each group.

Bytes: reads each part once (8 bytes a channel), writes one part for every MERGED of them: nothing beside an image.
Plan: a program merges MERGED consecutive parts of one group for BLOCK_C channels. The order is fixed, so the bits are.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

MERGED = 128
BLOCK_C = 32


@triton.jit(do_not_specialize=["parts", "merged_parts"])
def merge_kernel(
    counts, means, variances, merged_counts, merged_means, merged_variances, parts, merged_parts, channels,
    MERGED: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Grid: (groups * merged_parts, blocks of channels). counts: (groups, parts); the others (groups, parts, channels)."""
    program = tl.program_id(0)
    group, merged = program // merged_parts, program % merged_parts
    part = merged * MERGED + tl.arange(0, MERGED)  # [MERGED]
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    row = group.to(tl.int64) * parts + part
    at = row[:, None] * channels + channel[None, :]  # [MERGED, BLOCK_C]
    mask = (part < parts)[:, None] & (channel < channels)[None, :]
    count = tl.load(counts + row, mask=part < parts, other=0.0)
    mean = tl.load(means + at, mask=mask, other=0.0)
    total = tl.maximum(tl.sum(count, 0), 1.0)
    # Around one of the means, lest large ones lose their digits in the sum; then what rounding took from the middle.
    around = tl.load(means + group.to(tl.int64) * parts * channels + merged * MERGED * channels + channel,
                     mask=channel < channels, other=0.0)  # fmt: skip
    middle = around + tl.sum(tl.where(mask, mean - around[None, :], 0.0) * count[:, None], 0) / total  # [BLOCK_C]
    away = tl.where(mask, mean - middle[None, :], 0.0)
    square = (tl.load(variances + at, mask=mask, other=0.0) + away * away) * count[:, None]
    place = program.to(tl.int64) * channels + channel
    tl.store(merged_means + place, middle, mask=channel < channels)
    tl.store(merged_variances + place, tl.sum(square, 0) / total, mask=channel < channels)
    tl.store(merged_counts + program, total)


@triton.jit(do_not_specialize=["x_n", "x_h", "x_w", "height", "width", "tiles"])
def parts_kernel(
    x, counts, means, variances, x_n, x_c, x_h, x_w, channels, height, width, tiles,
    BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr, X_UNIT: tl.constexpr, INDEX: tl.constexpr,
):  # fmt: skip
    """The parts of a tensor that no fused convolution has made. Grid: (samples * tiles, blocks of channels)."""
    part = tl.program_id(0)
    tile, sample = part % tiles, (part // tiles).to(tl.int64)
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    pixel = tile * BLOCK_M + tl.arange(0, BLOCK_M)
    count = tl.minimum(height * width - tile * BLOCK_M, BLOCK_M)
    mask = (pixel < height * width)[:, None] & (channel < channels)[None, :]  # [BLOCK_M, BLOCK_C]
    y, x_ = (pixel // width).to(INDEX), (pixel % width).to(INDEX)
    at = ((y * x_h + x_ * x_w) * X_UNIT)[:, None] + (channel * x_c)[None, :]
    values = tl.load(x + sample * x_n * X_UNIT + at, mask=mask, other=0.0).to(tl.float32)
    middle = tl.sum(values, 0) / count  # [BLOCK_C]
    away = tl.where(mask, values - middle[None, :], 0.0)
    place = part.to(tl.int64) * channels + channel
    tl.store(means + place, middle, mask=channel < channels)
    tl.store(variances + place, tl.sum(away * away, 0) / count, mask=channel < channels)
    tl.store(counts + part, count.to(tl.float32))


def merge(counts: Tensor, means: Tensor, variances: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Mean and biased variance (groups, C) from parts: counts (P,), means and variances (P, C)."""
    channels = means.shape[1]
    while True:
        parts = len(counts) // groups
        left = triton.cdiv(parts, MERGED)
        merged = (
            counts.new_empty(groups * left),
            means.new_empty(groups * left, channels),
            means.new_empty(groups * left, channels),
        )
        merge_kernel[(groups * left, triton.cdiv(channels, BLOCK_C))](
            counts, means, variances, *merged, parts, left, channels, MERGED, BLOCK_C
        )
        counts, means, variances = merged
        if left == 1:
            return means, variances


def empty_parts(x: Tensor, parts: int, channels: int) -> tuple[Tensor, Tensor, Tensor]:
    """Memory for counts, means and variances."""
    of_channels = torch.empty((2, parts, channels), dtype=torch.float32, device=x.device)
    return torch.empty(parts, dtype=torch.float32, device=x.device), of_channels[0], of_channels[1]
