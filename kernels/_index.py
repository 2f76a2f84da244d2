"""Where elements lie: 32 or 64-bit offsets, aligned rows, and the pixels that a border repeats."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


def offset_type(*tensors: Tensor | None) -> tl.dtype:
    """The integer type that holds every offset in each of the tensors: int64 only where int32 does not."""
    spans = [
        sum((size - 1) * stride for size, stride in zip(t.shape, t.stride(), strict=True))
        for t in tensors
        if t is not None
    ]
    # Past the end, too: a masked tail computes offsets that it does not use.
    return tl.int64 if max(spans, default=0) >= 2**31 - 2**20 else tl.int32


def common_alignment(*numbers: int) -> int:
    """16 if it divides all of the sizes and strides given, else 1: a constexpr of two values for ``tl.multiple_of``.

    Kernels that know it load 16 bytes at once; those that do not are right, and somewhat slower.
    """
    return 16 if all(number % 16 == 0 for number in numbers) else 1


def layout_of(x: Tensor) -> torch.memory_format:
    """The layout that results take after ``x``: channels_last where x is that, or a slice of it, else contiguous."""
    if x.is_contiguous():
        return torch.contiguous_format
    last = x.is_contiguous(memory_format=torch.channels_last)
    # A slice of pixels or of channels is neither; its channel stride still tells.
    last = last or (x.shape[1] > 1 and x.stride(1) == 1 and x.stride(3) >= x.shape[1])
    return torch.channels_last if last else torch.contiguous_format


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """What sums and statistics of values of ``dtype`` are taken in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def accumulator_type(dtype: torch.dtype) -> tl.dtype:
    """The same for a kernel."""
    return tl.float64 if dtype == torch.float64 else tl.float32


@triton.jit
def source_index(i, size, MODE: tl.constexpr):
    """The row or column, 0 <= . < size, that a padded image shows at ``i``, which may lie outside.

    MODE is "reflect", "replicate", or "zeros", which leaves ``i`` alone: mask with ``is_inside``.
    """
    if MODE == "reflect":
        i = tl.where(i < 0, -i, i)
        i = tl.where(i >= size, 2 * (size - 1) - i, i)
    elif MODE == "replicate":
        i = tl.minimum(tl.maximum(i, 0), size - 1)
    return i


@triton.jit
def is_inside(i, size):
    """Whether ``i`` is a row or column of the image itself."""
    return (i >= 0) & (i < size)
