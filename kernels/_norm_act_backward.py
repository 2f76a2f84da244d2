"""The kernels of the gradients of ``norm_act``: one kernel, for what is read to sum up is read to write.

With g' = act'(z) * fold(grad_y) and h = (x - mean) * rstd, the gradient of x is rstd * weight * (g' - mean(g') - h *
mean(g' * h)), means over the values that share statistics (none where the statistics are given); that of the residual
is g', of the weight sum(g' * h), of the bias sum(g'). fold gathers: a pixel adds up the places that show it.
"""

from __future__ import annotations

import triton
import triton.language as tl

from torchp2p.kernels._math import activation_slope
from torchp2p.kernels._norm_act_forward import mean_and_rstd, scale_and_shift
from torchp2p.kernels._tiles import block_channels, pixel_offset, plane_offset, sum_pixels, tile_pixels


@triton.jit
def _place_showing(i, size, pad, k, MODE: tl.constexpr):
    """The k-th row (column) of the padded image that shows row i, and whether there is one. The 0-th is its own.

    "reflect" has 2 more, a mirror image on either side; "replicate" 2 pad more, which show the first or last row.
    """
    place = i + pad
    valid = (i >= 0) & (i < size)
    if MODE == "reflect":
        if k == 1:
            place, valid = pad - i, valid & (i >= 1) & (i <= pad)
        elif k == 2:
            place, valid = pad + 2 * (size - 1) - i, valid & (i >= size - 1 - pad) & (i <= size - 2)
    elif MODE == "replicate":
        if k > pad:
            place, valid = i + k, valid & (i == size - 1)
        elif k > 0:
            place, valid = i + k - 1, valid & (i == 0)
    return place, valid


@triton.jit
def _may_show(k, first, count: tl.constexpr, size, pad, MODE: tl.constexpr):
    """Whether the k-th place shows any of ``count`` rows from ``first`` on: away from borders only the 0-th."""
    if MODE == "reflect":
        front, back = k == 1, (k == 2) & (first + count + pad >= size)
        return (k == 0) | (front & (first <= pad)) | back
    front, back = (k > 0) & (k <= pad), (k > pad) & (first + count >= size)
    return (k == 0) | (front & (first == 0)) | back


@triton.jit
def _folded_gradient(
    grad, at, stride_h, stride_w, tile, rows, cols, mask, height, width, pad,
    PAD_MODE: tl.constexpr, PADDED: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, CHANS: tl.constexpr,
    UNIT: tl.constexpr, ALIGN: tl.constexpr, OFFSET: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """A tile (CHANS, COLS, ROWS) of the gradient of the image before it was padded."""
    if PADDED:
        own_rows, own_cols = rows + pad, cols + pad
    else:
        own_rows, own_cols = rows, cols
    here = at + pixel_offset(own_rows, own_cols, stride_h, stride_w, UNIT, CHANS, ALIGN, OFFSET)
    total = tl.load(grad + here, mask=mask, other=0.0).to(ACC)
    if PADDED and PAD_MODE != "zeros":
        across = tl.cdiv(width, COLS)
        top, left = tile // across * ROWS, tile % across * COLS
        shown = 3
        if PAD_MODE == "replicate":
            shown = 2 * pad + 1
        for k in range(shown):
            if _may_show(k, top, ROWS, height, pad, PAD_MODE):
                row, row_valid = _place_showing(rows, height, pad, k, PAD_MODE)
                for j in range(shown):
                    if (k + j > 0) & _may_show(j, left, COLS, width, pad, PAD_MODE):
                        col, col_valid = _place_showing(cols, width, pad, j, PAD_MODE)
                        there = at + pixel_offset(row, col, stride_h, stride_w, UNIT, CHANS, ALIGN, OFFSET)
                        total += tl.load(grad + there, mask=mask & row_valid & col_valid, other=0.0).to(ACC)
    return total


@triton.jit
def _gradient_tile(
    grad, grad_at, grad_h, grad_w, x, x_at, x_h, x_w, residual, residual_at, residual_h, residual_w,
    mean, rstd, scale, shift, slope, tile, chans, channels, height, width, pad,
    ACT: tl.constexpr, PAD_MODE: tl.constexpr, PADDED: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, CHANS: tl.constexpr,
    UNIT: tl.constexpr, ALIGN: tl.constexpr, OFFSET: tl.constexpr,
):  # fmt: skip
    """g' and h of one tile (CHANS, COLS, ROWS) of x, with its rows, columns and mask; both are 0 outside."""
    acc: tl.constexpr = mean.dtype
    rows, cols = tile_pixels(tile, width, ROWS, COLS)
    mask = (rows < height) & (cols < width) & (chans < channels)
    gradient = _folded_gradient(
        grad, grad_at, grad_h, grad_w, tile, rows, cols, mask, height, width, pad,
        PAD_MODE, PADDED, ROWS, COLS, CHANS, UNIT, ALIGN, OFFSET, acc,
    )  # fmt: skip
    x_here = x_at + pixel_offset(rows, cols, x_h, x_w, UNIT, CHANS, ALIGN, OFFSET)
    deviation = tl.load(x + x_here, mask=mask, other=0.0).to(acc) - mean
    if ACT != "none":
        z = deviation * scale + shift
        if residual is not None:
            there = residual_at + pixel_offset(rows, cols, residual_h, residual_w, UNIT, CHANS, ALIGN, OFFSET)
            z += tl.load(residual + there, mask=mask, other=0.0).to(acc)
        gradient = gradient * activation_slope(z, slope, ACT)
    return tl.where(mask, gradient, 0.0), tl.where(mask, deviation * rstd, 0.0), rows, cols, mask


@triton.jit(do_not_specialize=[
    "channels", "height", "width", "pad", "grad_n", "grad_c", "grad_h", "grad_w", "x_n", "x_c", "x_h", "x_w",
    "residual_n", "residual_c", "residual_h", "residual_w", "out_n", "out_c", "out_h", "out_w",
    "samples_each", "chunks", "steps",
])  # fmt: skip
def walk_gradients(
    grad, x, residual, mean, var, weight, bias, sums, partials, grad_x, grad_residual,
    channels: tl.int32, height: tl.int32, width: tl.int32, pad: tl.int32,
    grad_n: tl.int64, grad_c: tl.int64, grad_h: tl.int64, grad_w: tl.int64,
    x_n: tl.int64, x_c: tl.int64, x_h: tl.int64, x_w: tl.int64,
    residual_n: tl.int64, residual_c: tl.int64, residual_h: tl.int64, residual_w: tl.int64,
    out_n: tl.int64, out_c: tl.int64, out_h: tl.int64, out_w: tl.int64,
    samples_each: tl.int32, chunks: tl.int32, steps: tl.int32,
    eps: tl.float64, slope: tl.float64, ACC: tl.constexpr,
    SUM: tl.constexpr, OWN: tl.constexpr, WRITE: tl.constexpr,
    ACT: tl.constexpr, PAD_MODE: tl.constexpr, PADDED: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, CHANS: tl.constexpr,
    UNIT: tl.constexpr, ALIGN: tl.constexpr, OFFSET: tl.constexpr,
):  # fmt: skip
    """The gradients of one chunk, ``steps`` tiles, of one block of planes, in up to two walks over it.

    SUM: the first walk takes the sums of g' and of g' * h, to ``partials`` (2, N, chunks, C).
    WRITE: the second writes grad_x and, if it is there, grad_residual, both dense and of equal strides. The means that
    the gradient of x subtracts are those of the sums just taken (OWN: nothing but the chunk shares its statistics), of
    ``sums`` (2, groups, C), or are not there.
    Reads grad, x and the residual once a walk, but the second time from the cache; writes each result once. A program
    for each chunk.
    """
    if CHANS > 1:
        channels = channels * ALIGN
    else:
        width = width * ALIGN
    chunk, plane = tl.program_id(0) % chunks, tl.program_id(0) // chunks
    blocks = tl.cdiv(channels, CHANS)
    sample, chans = plane // blocks, block_channels(plane % blocks, CHANS)
    exists = chans < channels
    rows_of_partials = tl.num_programs(0) // blocks  # samples x chunks
    shared = sample // samples_each * channels + chans  # where its statistics are
    center, rstd = mean_and_rstd(mean, var, shared, exists, eps, CHANS, ACC)
    scale, shift = scale_and_shift(rstd, weight, bias, chans, channels)
    grad_at = plane_offset(sample, chans, grad_n, grad_c, UNIT, CHANS, ALIGN, OFFSET)
    x_at = plane_offset(sample, chans, x_n, x_c, UNIT, CHANS, ALIGN, OFFSET)
    residual_at = plane_offset(sample, chans, residual_n, residual_c, UNIT, CHANS, ALIGN, OFFSET)
    first = chunk * steps
    last = tl.minimum(first + steps, tl.cdiv(height, ROWS) * tl.cdiv(width, COLS))
    mean_g = tl.zeros((CHANS, 1, 1), ACC)
    mean_gh = tl.zeros((CHANS, 1, 1), ACC)
    values = (height * width).to(ACC) * samples_each.to(ACC)

    if SUM:
        all_g = tl.zeros((CHANS, COLS, ROWS), ACC)
        all_gh = tl.zeros((CHANS, COLS, ROWS), ACC)
        for tile in range(first, last):
            g, h, rows, cols, mask = _gradient_tile(
                grad, grad_at, grad_h, grad_w, x, x_at, x_h, x_w, residual, residual_at, residual_h, residual_w,
                center, rstd, scale, shift, slope, tile, chans, channels, height, width, pad,
                ACT, PAD_MODE, PADDED, ROWS, COLS, CHANS, UNIT, ALIGN, OFFSET,
            )  # fmt: skip
            all_g += g
            all_gh += g * h
        sum_g, sum_gh = sum_pixels(all_g), sum_pixels(all_gh)
        partial = (sample * chunks + chunk) * channels + chans
        tl.store(partials + partial, sum_g, mask=exists)
        tl.store(partials + rows_of_partials * channels + partial, sum_gh, mask=exists)
        if OWN:
            mean_g, mean_gh = sum_g / values, sum_gh / values

    if WRITE:
        if sums is not None:
            groups = rows_of_partials // chunks // samples_each
            mean_g = tl.load(sums + shared, mask=exists, other=0.0) / values
            mean_gh = tl.load(sums + groups * channels + shared, mask=exists, other=0.0) / values
        out_at = plane_offset(sample, chans, out_n, out_c, UNIT, CHANS, ALIGN, OFFSET)
        for tile in range(first, last):
            g, h, rows, cols, mask = _gradient_tile(
                grad, grad_at, grad_h, grad_w, x, x_at, x_h, x_w, residual, residual_at, residual_h, residual_w,
                center, rstd, scale, shift, slope, tile, chans, channels, height, width, pad,
                ACT, PAD_MODE, PADDED, ROWS, COLS, CHANS, UNIT, ALIGN, OFFSET,
            )  # fmt: skip
            here = out_at + pixel_offset(rows, cols, out_h, out_w, UNIT, CHANS, ALIGN, OFFSET)
            along = g
            if OWN or sums is not None:
                along = g - mean_g - h * mean_gh
            tl.store(grad_x + here, along * scale, mask=mask)
            if grad_residual is not None:
                tl.store(grad_residual + here, g, mask=mask)
