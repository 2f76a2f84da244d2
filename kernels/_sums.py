"""Sums of rows in an order that is always the same: the second stage of every reduction of sums."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from torchp2p.kernels._launch import launch
from torchp2p.kernels._tiles import cdiv

SUMMED = (64, 32)
"""Rows x columns that are added at once."""


def sum_rows(partials: Tensor) -> Tensor:
    """The sums (B, C) over the rows of ``partials`` (B, P, C), contiguous, in its dtype. One launch."""
    batches, rows, columns = partials.shape
    sums = torch.empty((batches, columns), dtype=partials.dtype, device=partials.device)
    launch(
        _sum_rows, (batches * cdiv(columns, SUMMED[1]),), partials, sums, rows, columns,
        ROWS=SUMMED[0], COLS=SUMMED[1], num_warps=4,
    )  # fmt: skip
    return sums


@triton.jit(do_not_specialize=["rows", "columns"])
def _sum_rows(partials, sums, rows: tl.int32, columns: tl.int32, ROWS: tl.constexpr, COLS: tl.constexpr):
    """Reads every partial once, writes every sum. A program for COLS columns of a batch adds ROWS rows at a time."""
    blocks = tl.cdiv(columns, COLS)
    batch = tl.program_id(0) // blocks
    col = tl.program_id(0) % blocks * COLS + tl.arange(0, COLS)  # (COLS,)
    total = tl.zeros((ROWS, COLS), sums.dtype.element_ty)
    for start in range(0, rows, ROWS):
        row = start + tl.arange(0, ROWS)
        mask = (row < rows)[:, None] & (col < columns)[None, :]
        here = (batch.to(tl.int64) * rows + row)[:, None] * columns + col[None, :]
        total += tl.load(partials + here, mask=mask, other=0.0)
    tl.store(sums + batch * columns + col, tl.sum(total, 0), mask=col < columns)
