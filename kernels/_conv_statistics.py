"""Statistics from parts: counts, means and variances of tiles, merged until one part is left of each group.

In rounds, for a large image has thousands of tiles, too many for one program to go through.
Bytes: reads each part once (8 bytes a channel), writes one part for every MERGED of them: nothing beside an image.
Plan: a program merges MERGED consecutive parts of one group for BLOCK_C channels. The order is fixed, so the bits are.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from torchp2p.kernels._launch import launch
from torchp2p.kernels._tiles import cdiv

MERGED, BLOCK_C = 128, 32


@triton.jit(do_not_specialize=["parts", "merged_parts"])
def merge_kernel(
    counts, means, variances, merged_counts, merged_means, merged_variances,
    parts: tl.int32, merged_parts: tl.int32, channels, MERGED: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Grid: (G * merged_parts, blocks of channels). counts: (G, parts); means and variances: (G, parts, channels)."""
    program = tl.program_id(0)
    group, first = (program // merged_parts).to(tl.int64), (program % merged_parts) * MERGED
    part = first + tl.arange(0, MERGED)  # [MERGED]
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    valid = channel < channels
    mask = (part < parts)[:, None] & valid[None, :]  # [MERGED, BLOCK_C]
    at = (group * parts + part)[:, None] * channels + channel[None, :]
    count = tl.load(counts + group * parts + part, mask=part < parts, other=0.0)
    mean = tl.load(means + at, mask=mask, other=0.0)
    variance = tl.load(variances + at, mask=mask, other=0.0)
    total = tl.maximum(tl.sum(count, 0), 1.0)
    # Sums of distances from one of the means: sums of large means would lose their digits.
    around = tl.load(means + (group * parts + first) * channels + channel, mask=valid, other=0.0)  # [BLOCK_C]
    middle = around + tl.sum(tl.where(mask, mean - around[None, :], 0.0) * count[:, None], 0) / total
    away = tl.where(mask, mean - middle[None, :], 0.0)
    place = program.to(tl.int64) * channels + channel
    tl.store(merged_means + place, middle, mask=valid)
    tl.store(merged_variances + place, tl.sum((variance + away * away) * count[:, None], 0) / total, mask=valid)
    tl.store(merged_counts + program, total)


def merge(counts: Tensor, means: Tensor, variances: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Mean and biased variance (groups, C) from parts: counts (P,), means and variances (P, C)."""
    channels = means.shape[1]
    parts = len(counts) // groups
    while True:
        left = cdiv(parts, MERGED)
        merged = empty_parts(means, groups * left, channels)
        grid = (groups * left, cdiv(channels, BLOCK_C))
        launch(
            merge_kernel, grid, counts, means, variances, *merged, parts, left, channels,
            MERGED=MERGED, BLOCK_C=BLOCK_C,
        )  # fmt: skip
        parts, (counts, means, variances) = left, merged
        if parts == 1:
            return means, variances


def empty_parts(like: Tensor, parts: int, channels: int) -> tuple[Tensor, Tensor, Tensor]:
    """Memory for counts, means and variances, where ``like`` is."""
    counts, means, variances = (
        torch.empty(shape, dtype=torch.float32, device=like.device)
        for shape in ((parts,), (parts, channels), (parts, channels))
    )
    return counts, means, variances
