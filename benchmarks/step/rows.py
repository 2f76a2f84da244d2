"""What was found about steps: a row a provider of a case, and a row a kind of work."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table

from ..results import Run, three_digits

DONE = "done"


@dataclass(frozen=True)
class StepRow(Run):
    """One provider on one case; up to ``allocator`` the key. What was not measured is nan."""

    part: str
    """``against``, ``ablate`` or ``scale``: what the run was about."""
    preset: str
    size: str
    """HEIGHTxWIDTH."""
    batch_size: int
    vgg: bool
    provider: str
    precision: str
    allocator: str
    rounds: int
    median_ms: float
    p20_ms: float
    p80_ms: float
    base: str
    """The provider that the next column is about, measured in the same rounds."""
    times_as_fast: float
    """Median over rounds of the base's time divided by this provider's."""
    first_step_ms: float
    compile_ms: float
    """What the first steps took beyond their number of median steps, where something was compiled."""
    peak_mb: float
    """The most memory of the process (of torch's allocator on CUDA), from when the networks stood."""
    step_mb: float
    """Of that, what is there during a step only: without networks, optimiser state, batch, and Python itself."""
    loss_error: float
    """Largest relative difference of a loss of the first step to that of the first provider of the same precision."""
    weight_error: float
    """Largest difference in a tensor of G after the warm-up, relative to its largest value, likewise."""
    weight_distance: float
    """Of all weights of G as one vector, relative to its length."""
    warm_up: int
    outcome: str
    """``done``, or why not."""


@dataclass(frozen=True)
class BreakdownRow(Run):
    """Milliseconds of one kind of work in a step; the key is as in ``StepRow``."""

    preset: str
    size: str
    batch_size: int
    vgg: bool
    provider: str
    precision: str
    kind: str
    kind_ms: float


def table(title: str, rows: Sequence[StepRow]) -> Table:
    """Every provider of one case."""
    shown = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    shown.add_column("provider", no_wrap=True)
    heads = (
        "s",
        "p20",
        "p80",
        f"x {rows[0].base}",
        "first s",
        "compile s",
        "peak GB",
        "step GB",
        "loss",
        "weights",
        "as one",
    )
    for head in heads:
        shown.add_column(head, justify="right", no_wrap=True)
    for row in rows:
        if row.outcome != DONE:
            shown.add_row(row.provider, row.outcome)
            continue
        shown.add_row(
            row.provider,
            *(cell(ms / 1e3) for ms in (row.median_ms, row.p20_ms, row.p80_ms)),
            cell(row.times_as_fast),
            *(cell(ms / 1e3) for ms in (row.first_step_ms, row.compile_ms)),
            *(cell(mb / 1e3) for mb in (row.peak_mb, row.step_mb)),
            *map(error_cell, (row.loss_error, row.weight_error, row.weight_distance)),
        )
    return shown


def cell(value: float) -> str:
    """Three digits; empty for nan."""
    return "" if math.isnan(value) else "0" if value <= 0 else three_digits(value)


def error_cell(error: float) -> str:
    """One digit; empty for nan."""
    return "" if math.isnan(error) else f"{error:.0e}"
