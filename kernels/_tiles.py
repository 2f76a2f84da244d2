"""How kernels walk over images: in tiles of channels x columns x rows, as memory lies.

One tile scheme serves both layouts. Contiguous images take tiles of one channel, ``(1, COLS, ROWS)``, channels_last
images tiles of one row, ``(CHANS, COLS, 1)``. In both, memory runs along the first axis that is longer than 1: Triton
gives neighbouring threads to the first axis where it cannot tell, as at mirrored borders. Where nothing distinguishes
rows, a plane is walked as a single row of H * W columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from torchp2p.kernels._index import common_alignment, offset_type

TILE = 2048
"""Elements in a full tile: 8 a thread of 8 warps, which is a load of 16 bytes in half precision. Tiles that have to do
with borders have half, because finding their way takes registers."""
LINE = 128
"""Columns of a contiguous tile where rows are told apart: long enough to load well, short enough to waste little."""
CHANNELS = 64
"""Channels of a channels_last tile."""


def cdiv(whole: int, part: int) -> int:
    """How many parts make the whole."""
    return -(-whole // part)


def bucket(size: int, limit: int) -> int:
    """The least of 4, 16, 64, ... that holds ``size``, at most ``limit``: few tile shapes for all image sizes."""
    found = 4
    while found < min(size, limit):
        found *= 4
    return min(found, limit)


class Walk(NamedTuple):
    """A way over all pixels and channels that fits a set of tensors; sizes in pixels.

    ``flat``: planes are rows. ``alignment``: what divides every stride and the size along the fast axis; the kernels
    get these in units of it, so that the compiler knows.
    """

    samples: int
    channels: int
    height: int
    width: int
    flat: bool
    padded: bool
    shape: tuple[int, int, int]
    alignment: int
    constexprs: dict[str, Any]

    @property
    def tiles(self) -> int:
        """Tiles of one plane, or of ``shape[2]`` planes side by side."""
        return cdiv(self.height, self.shape[0]) * cdiv(self.width, self.shape[1])

    @property
    def blocks(self) -> int:
        """Blocks of channels of a sample."""
        return cdiv(self.channels, self.shape[2])

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Channels, height and width as the kernels take them."""
        if self.shape[2] > 1:
            return self.channels // self.alignment, self.height, self.width
        return self.channels, self.height, self.width // self.alignment

    @property
    def warps(self) -> int:
        """Warps for a tile: 8 elements a thread, or 4, where there are so many."""
        rows, cols, chans = self.shape
        return max(1, min(8, rows * cols * chans // (128 if self.padded else 256)))

    def strides(self, tensor: Tensor | None) -> tuple[int, int, int, int]:
        """Strides of samples, channels, rows and columns as the kernels take them."""
        if tensor is None:
            return 0, 0, 0, 0
        n, c, h, w = _strides(tensor, self.flat)
        return n // self.alignment, c // self.alignment, h // self.alignment, w // self.alignment


def walk_over(size: tuple[int, int], tensors: Sequence[Tensor | None], *, channels_last: bool, padded: bool) -> Walk:
    """A walk over ``size`` (height, width) pixels of the tensors (N, C, ., .), the first of which is there.

    ``padded``: some tensors have a border that others do not have.
    """
    present = [tensor for tensor in tensors if tensor is not None]
    samples, channels = present[0].shape[:2]
    flat = not padded and all(_rows_follow_each_other(tensor) for tensor in present)
    height, width = (1, size[0] * size[1]) if flat else size
    elements = TILE // 2 if padded else TILE
    if channels_last:
        chans = bucket(channels, min(CHANNELS, elements))
        shape = (1, bucket(width, elements // chans), chans)
    else:
        cols = bucket(width, elements if flat else min(LINE, elements))
        shape = (1 if height == 1 else bucket(height, elements // cols), cols, 1)
    strides = [_strides(tensor, flat) for tensor in present]
    fast, length = (1, channels) if channels_last else (3, width)
    unit = length == 1 or all(stride[fast] == 1 for stride in strides)
    alignment = 1
    if unit and (channels_last or not padded):
        slow = (stride[axis] for stride in strides for axis in range(4) if axis != fast)
        alignment = common_alignment(length, *slow)
    constexprs = {
        "ROWS": shape[0], "COLS": shape[1], "CHANS": shape[2], "UNIT": unit, "ALIGN": alignment,
        "OFFSET": offset_type(*present),
    }  # fmt: skip
    return Walk(samples, channels, height, width, flat, padded, shape, alignment, constexprs)


def _rows_follow_each_other(x: Tensor) -> bool:
    return 1 in x.shape[2:] or x.stride(2) == x.shape[3] * x.stride(3)


def _strides(x: Tensor, flat: bool) -> tuple[int, int, int, int]:
    """Strides, 0 along axes of size 1, whose own mean nothing; flat: rows are one axis with columns."""
    n, c, h, w = (stride if size > 1 else 0 for size, stride in zip(x.shape, x.stride(), strict=True))
    return (n, c, 0, w if x.shape[3] > 1 else h) if flat else (n, c, h, w)


def empty_like_layout(x: Tensor, height: int, width: int, layout: torch.memory_format) -> Tensor:
    """Memory for an image with the samples, channels, dtype and device of ``x``."""
    return torch.empty((*x.shape[:2], height, width), dtype=x.dtype, device=x.device, memory_format=layout)


@triton.jit
def tile_pixels(tile, width, ROWS: tl.constexpr, COLS: tl.constexpr):
    """Rows (1, 1, ROWS) and columns (1, COLS, 1) of a tile, by its number in the plane."""
    across = tl.cdiv(width, COLS)
    rows = tile // across * ROWS + tl.arange(0, ROWS)[None, None, :]
    cols = tile % across * COLS + tl.arange(0, COLS)[None, :, None]
    return rows, cols


@triton.jit
def block_channels(block, CHANS: tl.constexpr):
    """Channels (CHANS, 1, 1) of a block, by its number in the sample."""
    return block * CHANS + tl.arange(0, CHANS)[:, None, None]


@triton.jit
def plane_offset(
    sample, chans, stride_n, stride_c,
    UNIT: tl.constexpr, CHANS: tl.constexpr, ALIGN: tl.constexpr, OFFSET: tl.constexpr,
):  # fmt: skip
    """Offsets (CHANS, 1, 1) of the first pixels of a sample's channels."""
    along = chans.to(OFFSET)
    if not (UNIT and CHANS > 1):
        along = along * (stride_c.to(OFFSET) * ALIGN)
    return sample.to(OFFSET) * (stride_n.to(OFFSET) * ALIGN) + along


@triton.jit
def pixel_offset(
    rows, cols, stride_h, stride_w,
    UNIT: tl.constexpr, CHANS: tl.constexpr, ALIGN: tl.constexpr, OFFSET: tl.constexpr,
):  # fmt: skip
    """Offsets of pixels from the first of their plane, in the common shape of rows and cols."""
    along = cols.to(OFFSET)
    if not (UNIT and CHANS == 1):
        along = along * (stride_w.to(OFFSET) * ALIGN)
    return rows.to(OFFSET) * (stride_h.to(OFFSET) * ALIGN) + along


@triton.jit
def sum_pixels(values):
    """Sums (CHANS, 1, 1) of a tile (CHANS, COLS, ROWS) over its pixels, in an order that is always the same."""
    return tl.sum(tl.sum(values, 2, keep_dims=True), 1, keep_dims=True)
