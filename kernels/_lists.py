"""One launch over a list of tensors: which tensor a program works on, and where in it.

A kernel takes the tensors as a tuple of pointers and their sizes as a tuple of whole numbers; both travel with the
launch, so nothing is copied to the device and a CUDA graph may hold it. Each tensor is cut into blocks, and program p
takes block p of the blocks of all tensors, one tensor after the other.
"""

import ctypes
from collections.abc import Iterator, Sequence
from math import isfinite

import triton
import triton.language as tl

MOST = 64
"""Tensors of one launch: what a kernel takes for each must fit into the 4 KiB of arguments that every GPU has."""


def runs(count: int) -> Iterator[slice]:
    """The launches that a list of ``count`` tensors takes; one, in all but name."""
    return (slice(first, first + MOST) for first in range(0, count, MOST))


def blocks(sizes: Sequence[int], block: int) -> int:
    """How many blocks all tensors have together."""
    return sum(-(-size // block) for size in sizes)


def run_time(numbers: Sequence[int]) -> tuple[int, ...]:
    """``numbers``, for a kernel's `number_of`, so that none of them is compiled in.

    Triton compiles anew for a whole number in a tuple that is 1, and for one that divides by 16. As odd numbers above
    1 they all look alike (from 2^30 on they are 64 bits wide, which is the one variant that is wanted).
    """
    return tuple(2 * number + 3 for number in numbers)


def doubles(numbers: Sequence[float]) -> tuple[tuple[float, ...], ...]:
    """``numbers``, for a kernel's `pick_double`: as the sums of three tuples, for Triton passes a float in 32 bits."""
    parts, rest = [], list(numbers)
    for _ in range(3):
        parts.append(tuple(ctypes.c_float(number).value for number in rest))
        rest = [n - part if isfinite(part) else 0.0 for n, part in zip(rest, parts[-1], strict=True)]
    return tuple(parts)


@triton.jit
def number_of(odd):
    """What `run_time` was given, as int64."""
    return (odd.to(tl.int64) - 3) >> 1


@triton.jit
def locate(program, sizes, BLOCK: tl.constexpr):
    """(index of the tensor, first element of the block in it, size of the tensor) for a program."""
    index = program * 0
    first = program * 0
    size = number_of(sizes[0])
    upto = tl.cdiv(size, BLOCK).to(tl.int32)
    for i in tl.static_range(1, len(sizes)):
        here = program >= upto
        index = tl.where(here, i, index)
        first = tl.where(here, upto, first)
        size = tl.where(here, number_of(sizes[i]), size)
        upto += tl.cdiv(number_of(sizes[i]), BLOCK).to(tl.int32)
    return index, (program - first).to(tl.int64) * BLOCK, size


@triton.jit
def pick(entries, index):
    """Entry ``index`` of a tuple. What all entries share (an alignment, say) is known of it."""
    chosen = entries[0]
    for i in tl.static_range(1, len(entries)):
        chosen = tl.where(index == i, entries[i], chosen)
    return chosen


@triton.jit
def pick_double(parts, index):
    """Number ``index`` of those that `doubles` was given."""
    high, middle, low = pick(parts[0], index), pick(parts[1], index), pick(parts[2], index)
    return high.to(tl.float64) + middle.to(tl.float64) + low.to(tl.float64)
