"""The kernels that write ``norm_act``: tile by tile, or whole planes with their statistics."""

from __future__ import annotations

import triton
import triton.language as tl

from torchp2p.kernels._index import is_inside, source_index
from torchp2p.kernels._math import activate, typed
from torchp2p.kernels._statistics import chunk_statistics
from torchp2p.kernels._tiles import block_channels, pixel_offset, plane_offset, tile_pixels


@triton.jit
def scale_and_shift(rstd, weight, bias, chans, channels):
    """(CHANS, 1, 1) each: z = (x - mean) * scale + shift, with the vectors over channels that there are."""
    scale = rstd
    if weight is not None:
        scale = scale * tl.load(weight + chans, mask=chans < channels, other=0.0).to(rstd.dtype)
    shift = tl.zeros(rstd.shape, rstd.dtype)
    if bias is not None:
        shift = tl.load(bias + chans, mask=chans < channels, other=0.0).to(rstd.dtype)
    return scale, shift


@triton.jit
def mean_and_rstd(mean, var, where, mask, eps, CHANS: tl.constexpr, ACC: tl.constexpr):
    """(CHANS, 1, 1) each of the statistics at ``where``; 0 and 1 where there are none."""
    center = tl.zeros((CHANS, 1, 1), ACC)
    rstd = center + 1.0
    if mean is not None:
        center = tl.load(mean + where, mask=mask, other=0.0).to(ACC)
        rstd = tl.rsqrt(tl.load(var + where, mask=mask, other=1.0).to(ACC) + typed(eps, ACC))
    return center, rstd


@triton.jit
def _write_tile(
    x, x_at, x_h, x_w, residual, residual_at, residual_h, residual_w, y, y_at, y_h, y_w,
    mean, scale, shift, slope, tile, chans, channels, height, width, pad,
    ACT: tl.constexpr, PAD_MODE: tl.constexpr, PADDED: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, CHANS: tl.constexpr,
    UNIT: tl.constexpr, ALIGN: tl.constexpr, OFFSET: tl.constexpr,
):  # fmt: skip
    """One tile (CHANS, COLS, ROWS) of y, whose height and width these are, from planes that start at ``_at``."""
    rows, cols = tile_pixels(tile, width, ROWS, COLS)
    mask = (rows < height) & (cols < width) & (chans < channels)
    y_here = y_at + pixel_offset(rows, cols, y_h, y_w, UNIT, CHANS, ALIGN, OFFSET)
    inner = mask
    if PADDED:
        rows, cols = rows - pad, cols - pad
        x_height, x_width = height - 2 * pad, width - 2 * pad
        if PAD_MODE == "zeros":
            inner = mask & is_inside(rows, x_height) & is_inside(cols, x_width)
        rows, cols = source_index(rows, x_height, PAD_MODE), source_index(cols, x_width, PAD_MODE)
    x_here = x_at + pixel_offset(rows, cols, x_h, x_w, UNIT, CHANS, ALIGN, OFFSET)
    z = (tl.load(x + x_here, mask=inner, other=0.0).to(mean.dtype) - mean) * scale + shift
    if residual is not None:
        there = residual_at + pixel_offset(rows, cols, residual_h, residual_w, UNIT, CHANS, ALIGN, OFFSET)
        z += tl.load(residual + there, mask=inner, other=0.0).to(mean.dtype)
    value = activate(z, slope, ACT)
    if PADDED and PAD_MODE == "zeros":
        value = tl.where(inner, value, 0.0)
    tl.store(y + y_here, value, mask=mask)


@triton.jit(do_not_specialize=[
    "channels", "height", "width", "pad", "x_n", "x_c", "x_h", "x_w", "residual_n", "residual_c", "residual_h",
    "residual_w", "y_n", "y_c", "y_h", "y_w", "samples_each",
])  # fmt: skip
def write_tiles(
    x, residual, y, mean, var, weight, bias,
    channels: tl.int32, height: tl.int32, width: tl.int32, pad: tl.int32,
    x_n: tl.int64, x_c: tl.int64, x_h: tl.int64, x_w: tl.int64,
    residual_n: tl.int64, residual_c: tl.int64, residual_h: tl.int64, residual_w: tl.int64,
    y_n: tl.int64, y_c: tl.int64, y_h: tl.int64, y_w: tl.int64,
    samples_each: tl.int32, eps: tl.float64, slope: tl.float64, ACC: tl.constexpr,
    ACT: tl.constexpr, PAD_MODE: tl.constexpr, PADDED: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, CHANS: tl.constexpr,
    UNIT: tl.constexpr, ALIGN: tl.constexpr, OFFSET: tl.constexpr,
):  # fmt: skip
    """y = pad(act((x - mean) / sqrt(var + eps) * weight + bias + residual)) with statistics that are there, or none.

    Reads x and the residual once, writes y (height, width are y's) once. A program for each tile of y.
    """
    if CHANS > 1:
        channels = channels * ALIGN
    else:
        width = width * ALIGN
    tiles = tl.cdiv(height, ROWS) * tl.cdiv(width, COLS)
    tile, plane = tl.program_id(0) % tiles, tl.program_id(0) // tiles
    blocks = tl.cdiv(channels, CHANS)
    sample, chans = plane // blocks, block_channels(plane % blocks, CHANS)
    where = sample // samples_each * channels + chans
    center, rstd = mean_and_rstd(mean, var, where, chans < channels, eps, CHANS, ACC)
    scale, shift = scale_and_shift(rstd, weight, bias, chans, channels)
    x_at = plane_offset(sample, chans, x_n, x_c, UNIT, CHANS, ALIGN, OFFSET)
    residual_at = plane_offset(sample, chans, residual_n, residual_c, UNIT, CHANS, ALIGN, OFFSET)
    y_at = plane_offset(sample, chans, y_n, y_c, UNIT, CHANS, ALIGN, OFFSET)
    _write_tile(
        x, x_at, x_h, x_w, residual, residual_at, residual_h, residual_w, y, y_at, y_h, y_w,
        center, scale, shift, slope, tile, chans, channels, height, width, pad,
        ACT, PAD_MODE, PADDED, ROWS, COLS, CHANS, UNIT, ALIGN, OFFSET,
    )  # fmt: skip


@triton.jit(do_not_specialize=[
    "channels", "height", "width", "pad", "x_n", "x_c", "x_h", "x_w", "residual_n", "residual_c", "residual_h",
    "residual_w", "y_n", "y_c", "y_h", "y_w",
])  # fmt: skip
def write_planes(
    x, residual, y, mean_out, var_out, weight, bias,
    channels: tl.int32, height: tl.int32, width: tl.int32, pad: tl.int32,
    x_n: tl.int64, x_c: tl.int64, x_h: tl.int64, x_w: tl.int64,
    residual_n: tl.int64, residual_c: tl.int64, residual_h: tl.int64, residual_w: tl.int64,
    y_n: tl.int64, y_c: tl.int64, y_h: tl.int64, y_w: tl.int64,
    eps: tl.float64, slope: tl.float64, ACC: tl.constexpr,
    ACT: tl.constexpr, PAD_MODE: tl.constexpr, PADDED: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, CHANS: tl.constexpr,
    UNIT: tl.constexpr, ALIGN: tl.constexpr, OFFSET: tl.constexpr,
):  # fmt: skip
    """The same with statistics of every plane of its own, which are taken first and written too: instance norm.

    Reads x twice, but the second time from the cache, for only planes that fit there are handed to it; reads the
    residual and writes y (height, width are y's) once. A program for each plane, or block of channels_last planes.
    """
    if CHANS > 1:
        channels = channels * ALIGN
    else:
        width = width * ALIGN
    blocks = tl.cdiv(channels, CHANS)
    sample, chans = tl.program_id(0) // blocks, block_channels(tl.program_id(0) % blocks, CHANS)
    x_at = plane_offset(sample, chans, x_n, x_c, UNIT, CHANS, ALIGN, OFFSET)
    pivot = tl.load(x + x_at, mask=chans < channels, other=0.0).to(ACC)
    x_height, x_width = height - 2 * pad, width - 2 * pad
    x_tiles = tl.cdiv(x_height, ROWS) * tl.cdiv(x_width, COLS)
    count, mean, m2 = chunk_statistics(
        x, x_at, pivot, 0, x_tiles, chans, channels, x_height, x_width, x_h, x_w,
        ROWS, COLS, CHANS, UNIT, ALIGN, OFFSET,
    )  # fmt: skip
    mean, var = mean + pivot, m2 / count
    tl.store(mean_out + sample * channels + chans, mean, mask=chans < channels)
    tl.store(var_out + sample * channels + chans, var, mask=chans < channels)
    scale, shift = scale_and_shift(tl.rsqrt(var + typed(eps, ACC)), weight, bias, chans, channels)
    residual_at = plane_offset(sample, chans, residual_n, residual_c, UNIT, CHANS, ALIGN, OFFSET)
    y_at = plane_offset(sample, chans, y_n, y_c, UNIT, CHANS, ALIGN, OFFSET)
    for tile in range(tl.cdiv(height, ROWS) * tl.cdiv(width, COLS)):
        _write_tile(
            x, x_at, x_h, x_w, residual, residual_at, residual_h, residual_w, y, y_at, y_h, y_w,
            mean, scale, shift, slope, tile, chans, channels, height, width, pad,
            ACT, PAD_MODE, PADDED, ROWS, COLS, CHANS, UNIT, ALIGN, OFFSET,
        )  # fmt: skip
