"""Mean and variance of the planes of an image, in float32 or better, by partial results that are merged in order.

A partial result is the number of values, their mean and M2, the sum of squared deviations from that mean. Means are
kept relative to a pivot, a value of the plane: what rounding takes from them is small beside the deviations, not beside
the values.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from torchp2p.kernels._index import accumulator
from torchp2p.kernels._launch import launch
from torchp2p.kernels._math import typed
from torchp2p.kernels._tiles import (
    Walk,
    block_channels,
    cdiv,
    pixel_offset,
    plane_offset,
    sum_pixels,
    tile_pixels,
    walk_over,
)

PROGRAMS = 2048
"""Programs that read an image together: several for every multiprocessor of the largest GPU, and no more partials."""
MERGED = (64, 32)
"""Partials x channels that are merged at once."""


def statistics(x: Tensor, groups: int, *, channels_last: bool) -> tuple[Tensor, Tensor]:
    """Mean and biased variance (groups, C) of x (N, C, H, W), each over N / groups consecutive samples.

    Two launches: partial results of chunks of planes, then their merger.
    """
    walk = walk_over((x.shape[2], x.shape[3]), [x], channels_last=channels_last, padded=False)
    steps, chunks = chunking(walk)
    acc, samples_each = accumulator(x.dtype), x.shape[0] // groups
    partials = torch.empty((2, x.shape[0] * chunks, x.shape[1]), dtype=acc, device=x.device)
    counts = torch.empty(x.shape[0] * chunks, dtype=acc, device=x.device)
    mean = torch.empty((groups, x.shape[1]), dtype=acc, device=x.device)
    launch(
        _partial_statistics, (x.shape[0] * walk.blocks * chunks,), x, partials, counts, mean,
        *walk.sizes, *walk.strides(x), samples_each, chunks, steps, **walk.constexprs, num_warps=walk.warps,
    )  # fmt: skip
    return merged_statistics(partials, counts, groups, mean)


def merged_statistics(
    partials: Tensor, counts: Tensor, groups: int, pivot: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Mean and biased variance (groups, C) from means and M2s ``partials`` (2, P, C) of ``counts`` (P,) values each.

    A group's are P / groups consecutive partials; means are relative to ``pivot`` (groups, C), which is overwritten by
    the result, or to zero. All tensors are contiguous and of one dtype.
    """
    channels = partials.shape[2]
    mean = torch.empty((groups, channels), dtype=partials.dtype, device=partials.device) if pivot is None else pivot
    var = torch.empty_like(mean)
    blocks = cdiv(channels, MERGED[1])
    launch(
        _merge, (groups * blocks,), partials, counts, mean, var, partials.shape[1] // groups, channels,
        PIVOT=pivot is not None, PARTIALS=MERGED[0], CHANS=MERGED[1], num_warps=4,
    )  # fmt: skip
    return mean, var


def chunking(walk: Walk) -> tuple[int, int]:
    """Tiles that one program reads one after the other, and the programs for one plane (block of planes)."""
    steps = max(1, min(walk.tiles, walk.samples * walk.blocks * walk.tiles // PROGRAMS))
    return steps, cdiv(walk.tiles, steps)


@triton.jit
def merged(count, mean, m2, more, more_mean, more_m2):
    """Two partial results made one."""
    total = count + more
    share = more / total
    delta = more_mean - mean
    return total, mean + delta * share, m2 + more_m2 + delta * delta * (count * share)


@triton.jit
def chunk_statistics(
    x, at, pivot, first, last, chans, channels, height, width, stride_h, stride_w,
    ROWS: tl.constexpr, COLS: tl.constexpr, CHANS: tl.constexpr,
    UNIT: tl.constexpr, ALIGN: tl.constexpr, OFFSET: tl.constexpr,
):  # fmt: skip
    """Count, mean less pivot, and M2 (CHANS, 1, 1) of the tiles from ``first`` on of planes that start at ``at``."""
    acc: tl.constexpr = pivot.dtype
    count = typed(0.0, acc)
    mean = tl.zeros((CHANS, 1, 1), acc)
    m2 = tl.zeros((CHANS, 1, 1), acc)
    for tile in range(first, last):
        rows, cols = tile_pixels(tile, width, ROWS, COLS)
        mask = (rows < height) & (cols < width) & (chans < channels)  # (CHANS, COLS, ROWS)
        here = at + pixel_offset(rows, cols, stride_h, stride_w, UNIT, CHANS, ALIGN, OFFSET)
        values = tl.load(x + here, mask=mask, other=0.0).to(acc) - pivot
        across = tl.cdiv(width, COLS)
        more = tl.minimum(height - tile // across * ROWS, ROWS) * tl.minimum(width - tile % across * COLS, COLS)
        more = more.to(acc)
        tile_mean = sum_pixels(tl.where(mask, values, 0.0)) / more
        deviation = tl.where(mask, values - tile_mean, 0.0)
        count, mean, m2 = merged(count, mean, m2, more, tile_mean, sum_pixels(deviation * deviation))
    return count, mean, m2


@triton.jit(do_not_specialize=[
    "channels", "height", "width", "stride_n", "stride_c", "stride_h", "stride_w", "samples_each", "chunks", "steps",
])  # fmt: skip
def _partial_statistics(
    x, partials, counts, pivots,
    channels: tl.int32, height: tl.int32, width: tl.int32,
    stride_n: tl.int64, stride_c: tl.int64, stride_h: tl.int64, stride_w: tl.int64,
    samples_each: tl.int32, chunks: tl.int32, steps: tl.int32,
    ROWS: tl.constexpr, COLS: tl.constexpr, CHANS: tl.constexpr,
    UNIT: tl.constexpr, ALIGN: tl.constexpr, OFFSET: tl.constexpr,
):  # fmt: skip
    """Count, mean and M2 of one chunk, ``steps`` tiles, of one block of planes of x.

    Reads x once; writes (2 C + 1) N chunks numbers, and the pivots.
    A program for each chunk, the chunks of a plane next to each other. Partials are (2, N, chunks, C).
    """
    if CHANS > 1:
        channels = channels * ALIGN
    else:
        width = width * ALIGN
    chunk, plane = tl.program_id(0) % chunks, tl.program_id(0) // chunks
    blocks = tl.cdiv(channels, CHANS)
    sample, chans = plane // blocks, block_channels(plane % blocks, CHANS)
    acc: tl.constexpr = partials.dtype.element_ty
    group = sample // samples_each
    origin = plane_offset(group * samples_each, chans, stride_n, stride_c, UNIT, CHANS, ALIGN, OFFSET)
    pivot = tl.load(x + origin, mask=chans < channels, other=0.0).to(acc)
    at = plane_offset(sample, chans, stride_n, stride_c, UNIT, CHANS, ALIGN, OFFSET)
    last = tl.minimum((chunk + 1) * steps, tl.cdiv(height, ROWS) * tl.cdiv(width, COLS))
    count, mean, m2 = chunk_statistics(
        x, at, pivot, chunk * steps, last, chans, channels, height, width, stride_h, stride_w,
        ROWS, COLS, CHANS, UNIT, ALIGN, OFFSET,
    )  # fmt: skip
    partial = sample * chunks + chunk
    means, m2s = partials, partials + tl.num_programs(0) // blocks * channels
    tl.store(means + partial * channels + chans, mean, mask=chans < channels)
    tl.store(m2s + partial * channels + chans, m2, mask=chans < channels)
    if plane % blocks == 0:
        tl.store(counts + partial, count)
    if partial == group * samples_each * chunks:
        tl.store(pivots + group * channels + chans, pivot, mask=chans < channels)


@triton.jit(do_not_specialize=["rows_each", "channels"])
def _merge(
    partials, counts, mean_out, var_out, rows_each: tl.int32, channels: tl.int32,
    PIVOT: tl.constexpr, PARTIALS: tl.constexpr, CHANS: tl.constexpr,
):  # fmt: skip
    """Mean and variance of a block of channels of one group from its ``rows_each`` rows of means and M2s.

    Reads 2 C + 1 numbers a row, writes 2 C a group. A program for each group and block; it merges tiles of
    (PARTIALS, CHANS) in order.
    """
    blocks = tl.cdiv(channels, CHANS)
    group = tl.program_id(0) // blocks
    chans = (tl.program_id(0) % blocks * CHANS + tl.arange(0, CHANS))[None, :]
    acc: tl.constexpr = mean_out.dtype.element_ty
    means, m2s = partials, partials + tl.num_programs(0) // blocks * rows_each * channels
    count = tl.zeros((1, 1), acc)
    mean = tl.zeros((1, CHANS), acc)
    m2 = tl.zeros((1, CHANS), acc)
    for start in range(0, rows_each, PARTIALS):
        place = start + tl.arange(0, PARTIALS)[:, None]
        rows = group * rows_each + place
        mask = (place < rows_each) & (chans < channels)
        weights = tl.load(counts + rows, mask=place < rows_each, other=0.0)  # (PARTIALS, 1)
        their_means = tl.load(means + rows * channels + chans, mask=mask, other=0.0)
        their_m2s = tl.load(m2s + rows * channels + chans, mask=mask, other=0.0)
        more = tl.sum(weights, 0, keep_dims=True)  # (1, 1)
        their_mean = tl.sum(weights * their_means, 0, keep_dims=True) / more
        deviation = their_means - their_mean
        their_m2 = tl.sum(their_m2s + weights * deviation * deviation, 0, keep_dims=True)
        count, mean, m2 = merged(count, mean, m2, more, their_mean, their_m2)
    where = group * channels + chans
    if PIVOT:
        mean = mean + tl.load(mean_out + where, mask=chans < channels, other=0.0)
    tl.store(mean_out + where, mean, mask=chans < channels)
    tl.store(var_out + where, m2 / count, mask=chans < channels)
