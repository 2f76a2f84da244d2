"""Instance-wise average pooling in Triton: sort the pixels of a sample by id, then sum runs of the sorted order.

    y(n, c, p) = mean of x(n, c, q) over the pixels q of sample n with the id of p

Bytes, for M pixels in C channels: torch's stable radix sort turns ids into sorted ids and the order of pixels (12 to 16
bytes a pixel, moved once for every 8 bits of an id); that order is read twice, x once, y written once. Nothing else is
of the size of the image, whatever the number of instances: the mean of an instance waits, until all its pixels have
it, in the place that the first of them has in y.

Plan: the sorted order is cut into chunks, one program each; an instance is a run of it.
1. `_pool_chunk_kernel` sums every run within a chunk. A run that begins and ends there is done: its mean goes to y at
   its first pixel. Of a run that goes on, the sums stay behind: one for each chunk, channel and side.
2. `_pool_join_kernel`, one program for each chunk in which a run begins that goes on: adds up the sums of the chunks
   that it passes through, writes its mean, and tells them its first pixel.
3. `_pool_spread_kernel` copies the mean from the first pixel of each run to the others.

Sums are taken in float64, in an order that the image alone decides, so every run gives the same bits. Neither the
number of instances nor where they end is ever read by the host.
"""

from collections.abc import Iterator
from functools import partial

import torch
import triton
import triton.language as tl
from torch import Tensor

from torchp2p.kernels._launch import Example, launch

_CHUNK = 512  # sorted pixels of a program
_CHANNELS = 4  # channels that it sums at once
_JOINED = 128  # chunks whose sums are added at once
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def instance_avg_pool(x: Tensor, ids: Tensor, channels_last: bool) -> Tensor:
    """Pool x (N, C, H, W) over ids (N, 1, H, W); means are taken in float64, the result has the dtype of x.

    The result is dense, channels_last or contiguous as the argument says.
    """
    n, c, h, w = x.shape
    layout = torch.channels_last if channels_last else torch.contiguous_format
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=layout)
    if y.numel() == 0:
        return y
    # By their bits: whether -1 or 255 comes first is all the same. Stable, so a run begins with its first pixel.
    bits = ids.view(_BITS[ids.element_size()]).reshape(n, h * w)
    sorted_ids, order = torch.sort(bits, dim=1, stable=True)
    chunks = triton.cdiv(h * w, _CHUNK)
    # For every chunk: where the run begins that goes on behind it, and where the one ends that comes from before it (-1
    # where it does not), and that one's first pixel. For each channel, too, the sum of either run within the chunk.
    begins, ends, firsts = (torch.empty(n, chunks, dtype=torch.int32, device=x.device) for _ in range(3))
    begun, ended = (torch.empty(n, chunks, c, dtype=torch.float64, device=x.device) for _ in range(2))
    sizes, places = (h * w, c, chunks), (y.stride(0), y.stride(1), y.stride(3))
    tile = {"CHUNK": _CHUNK, "CHANNELS": min(_CHANNELS, triton.next_power_of_2(c))}
    grid = (n * chunks,)
    runs, sums = (begins, ends), (begun, ended)
    launch(_pool_chunk_kernel, grid, x, sorted_ids, order, y, *runs, *sums, w, *x.stride(), *sizes, *places, **tile)
    launch(_pool_join_kernel, grid, order, y, *runs, *sums, firsts, *sizes, *places, **tile, JOINED=_JOINED)
    launch(_pool_spread_kernel, grid, sorted_ids, order, y, firsts, *sizes, *places, **tile)
    return y


_RUN_TIME = ["width", "xn", "xc", "xh", "xw", "size", "channels", "chunks", "yn", "yc", "yp"]


@triton.jit(do_not_specialize=_RUN_TIME)
def _pool_chunk_kernel(
    x,
    sorted_ids,
    order,
    y,
    begins,
    ends,
    begun,
    ended,
    width: tl.int32,
    xn: tl.int64,  # strides of x
    xc: tl.int64,
    xh: tl.int64,
    xw: tl.int64,
    size: tl.int32,  # pixels of a sample
    channels: tl.int32,
    chunks: tl.int32,
    yn: tl.int64,  # strides of y: of a sample, a channel, a pixel
    yc: tl.int64,
    yp: tl.int64,
    CHUNK: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    n, chunk, start, end = _chunk_of(tl.program_id(0), size, chunks, CHUNK)
    at = start + tl.arange(0, CHUNK)  # (CHUNK,)
    heads = _is_head(sorted_ids + n * size, at, size)
    pixel = tl.load(order + n * size + at, mask=at < end, other=0).to(tl.int32)
    place = x + n * xn + (pixel // width) * xh + (pixel % width) * xw
    sums = (n * chunks + chunk) * channels  # of this chunk, in begun and ended
    comes_on, goes_on = ~_is_head(sorted_ids + n * size, start, size), ~_is_head(sorted_ids + n * size, end, size)
    first_stop = _next_head(heads, at, start, end)
    tl.store(ends + n * chunks + chunk, tl.where(comes_on & goes_on & (first_stop == end), -1, first_stop))
    begin = tl.full((), -1, tl.int32)
    run = start
    while run < end:
        stop = _next_head(heads, at, run, end)
        here = (at >= run) & (at < stop)  # (CHUNK,)
        before, behind = (run == start) & comes_on, (stop == end) & goes_on
        begin = tl.where(behind & ~before, run, begin)
        first = tl.load(order + n * size + run)
        for c0 in range(0, channels, CHANNELS):
            c = c0 + tl.arange(0, CHANNELS)  # (CHANNELS,)
            used = c < channels
            values = tl.load(place[:, None] + c[None, :] * xc, mask=here[:, None] & used[None, :], other=0.0)
            total = tl.sum(values.to(tl.float64), 0)  # (CHANNELS,), of (CHUNK, CHANNELS)
            if before:
                tl.store(ended + sums + c, total, mask=used)
            elif behind:
                tl.store(begun + sums + c, total, mask=used)
            else:
                tl.store(y + n * yn + c * yc + first * yp, _mean(total, stop - run, y), mask=used)
        run = stop
    tl.store(begins + n * chunks + chunk, begin)


@triton.jit(do_not_specialize=_RUN_TIME)
def _pool_join_kernel(
    order,
    y,
    begins,
    ends,
    begun,
    ended,
    firsts,
    size: tl.int32,
    channels: tl.int32,
    chunks: tl.int32,
    yn: tl.int64,
    yc: tl.int64,
    yp: tl.int64,
    CHUNK: tl.constexpr,
    CHANNELS: tl.constexpr,
    JOINED: tl.constexpr,
):
    n, chunk, _, _ = _chunk_of(tl.program_id(0), size, chunks, CHUNK)
    begins, ends, firsts = begins + n * chunks, ends + n * chunks, firsts + n * chunks
    begun, ended = begun + n * chunks * channels, ended + n * chunks * channels
    begin = tl.load(begins + chunk)
    if begin >= 0:
        first = tl.load(order + n * size + begin)
        last = chunks  # the chunk in which the run ends; there is one
        near = chunk + 1
        while last == chunks:
            j = near + tl.arange(0, JOINED)  # (JOINED,) chunks
            last = tl.min(tl.where(tl.load(ends + j, mask=j < chunks, other=-1) >= 0, j, chunks))
            tl.store(firsts + j, first.to(tl.int32), mask=(j < chunks) & (j <= last))
            near += JOINED
        count = tl.load(ends + last) - begin
        for c0 in range(0, channels, CHANNELS):
            c = c0 + tl.arange(0, CHANNELS)  # (CHANNELS,)
            used = c < channels
            total = tl.load(begun + chunk * channels + c, mask=used, other=0.0)
            for j0 in range(chunk + 1, last + 1, JOINED):
                j = j0 + tl.arange(0, JOINED)
                mask = (j <= last)[:, None] & used[None, :]
                total += tl.sum(tl.load(ended + j[:, None] * channels + c[None, :], mask=mask, other=0.0), 0)
            tl.store(y + n * yn + c * yc + first * yp, _mean(total, count, y), mask=used)


@triton.jit(do_not_specialize=_RUN_TIME)
def _pool_spread_kernel(
    sorted_ids,
    order,
    y,
    firsts,
    size: tl.int32,
    channels: tl.int32,
    chunks: tl.int32,
    yn: tl.int64,
    yc: tl.int64,
    yp: tl.int64,
    CHUNK: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    n, chunk, start, end = _chunk_of(tl.program_id(0), size, chunks, CHUNK)
    at = start + tl.arange(0, CHUNK)  # (CHUNK,)
    heads = _is_head(sorted_ids + n * size, at, size)
    pixel = tl.load(order + n * size + at, mask=at < end, other=0)
    comes_on = ~_is_head(sorted_ids + n * size, start, size)
    run = start
    while run < end:
        stop = _next_head(heads, at, run, end)
        if (run == start) & comes_on:
            first = tl.load(firsts + n * chunks + chunk).to(tl.int64)
        else:
            first = tl.load(order + n * size + run)
        others = (at >= run) & (at < stop) & (pixel != first)  # (CHUNK,)
        for c0 in range(0, channels, CHANNELS):
            c = c0 + tl.arange(0, CHANNELS)  # (CHANNELS,)
            used = c < channels
            mean = tl.load(y + n * yn + c * yc + first * yp, mask=used, other=0.0)
            to = y + n * yn + c[None, :] * yc + pixel[:, None] * yp  # (CHUNK, CHANNELS)
            tl.store(to, mean[None, :], mask=others[:, None] & used[None, :])
        run = stop


@triton.jit
def _chunk_of(program, size, chunks, CHUNK: tl.constexpr):
    """(sample, chunk of the sample, its first position, its end) of a program; the sample as int64."""
    chunk = program % chunks
    return (program // chunks).to(tl.int64), chunk, chunk * CHUNK, tl.minimum(chunk * CHUNK + CHUNK, size)


@triton.jit
def _is_head(sorted_ids, at, size):
    """Whether a run begins at positions ``at`` of the sorted order of a sample, or its end is there."""
    inside = at < size
    here = tl.load(sorted_ids + at, mask=inside, other=0)
    before = tl.load(sorted_ids + at - 1, mask=inside & (at > 0), other=0)
    return (at == 0) | (at >= size) | (here != before)


@triton.jit
def _mean(total, count, y):
    """The mean, to be stored in ``y``: half precision is rounded to from float32, as everywhere."""
    mean = total / count
    return mean if y.dtype.element_ty == tl.float64 else mean.to(tl.float32)


@triton.jit
def _next_head(heads, at, run, end):
    """Where the run that begins at ``run`` ends within the chunk of positions ``at``."""
    return tl.min(tl.where(heads & (at > run), at, end))


def examples() -> Iterator[Example]:
    """A street at 2048 x 1024 as the encoder sees it, and features of more channels in another layout."""
    for c, dtype, last in ((3, torch.float32, False), (3, torch.bfloat16, True), (64, torch.float16, False)):
        x = torch.empty(1, c, 1024, 2048, dtype=dtype, device="meta")
        ids = torch.empty(1, 1, 1024, 2048, dtype=torch.int32, device="meta")
        # Besides x and y: sorted ids and their order, int32 and int64, twice; and as torch sorts, both are read and
        # written once for every 8 bits of an id.
        image, pixels = x.numel() * x.element_size(), ids.numel()
        yield Example(
            f"{c} channels, {str(dtype).removeprefix('torch.')}, {'channels_last' if last else 'contiguous'}",
            partial(instance_avg_pool, x, ids, last),
            2 * image + pixels * (4 + 8) * (2 + 4 * 2),
            2 * image + pixels * 4,
        )
