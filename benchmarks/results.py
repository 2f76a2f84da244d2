"""What was measured: one row a measurement, kept as CSV, shown as a table."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from torchp2p.files import atomic_write

OURS = "native"


@dataclass(frozen=True)
class Run:
    """What every row begins with: when and where it was measured, and what was."""

    date: str
    commit: str
    device: str
    threads: int
    torch: str


@dataclass(frozen=True)
class Row(Run):
    """One provider on one case. Everything up to ``shape`` is the key; times are milliseconds a call."""

    allocator: str
    op: str
    config: str
    provider: str
    mode: str
    dtype: str
    layout: str
    shape: str
    rounds: int
    median_ms: float
    p20_ms: float
    p80_ms: float
    speedup_over_eager: float
    """Median over rounds of eager's time divided by this provider's in the same round."""
    gb_per_s: float
    """Least possible traffic of the op divided by the median time; nan where traffic means nothing."""


def columns(row: type[Any]) -> tuple[str, ...]:
    """The columns of a file of such rows, by which files are told apart."""
    return tuple(field.name for field in dataclasses.fields(row))


FIELDS = columns(Row)


def prepare(path: Path, row: type[Any]) -> None:
    """See that such rows can be appended to ``path``, and make its folder, before anything is measured.

    Raises:
        ValueError: the file has other columns than they.
        OSError: the folder cannot be made or written to, or the file not be read.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        reason = "it is a file" if isinstance(error, FileExistsError) else error.strerror
        sentence = f"the folder of the rows cannot be written to: {reason}"
        raise OSError(error.errno, sentence, str(path.parent)) from error
    _content(path, columns(row))


def append_rows(path: Path, rows: Sequence[Any]) -> None:
    """Add ``rows``, at least one and all of one dataclass, to the CSV file ``path``, which is made if need be.

    Old rows stay byte for byte.

    Raises:
        ValueError: the file has other columns than they.
        OSError: it cannot be read or written; the old content is then untouched.
    """
    fields = columns(type(rows[0]))
    old = _content(path, fields)
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        writer.writerow(_cell(getattr(row, name)) for name in fields)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, lambda file: file.write((old + text.getvalue()).encode()))


def _content(path: Path, fields: Sequence[str]) -> str:
    """What the file holds: the line of its columns at the least, which are to be ``fields``."""
    header = ",".join(fields)
    old = path.read_text() if path.exists() else header + "\n"
    first_line = old.partition("\n")[0]
    if first_line != header:
        raise ValueError(f"{path} must have the columns {header}, got {first_line}")
    return old


def _cell(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def table(title: str, rows: Sequence[Row], ours_over: Sequence[float | None], copy_gb_per_s: float) -> Table:
    """Every provider of one case. ``ours_over[i]``: how many times as fast as row i ours is, None for ours."""
    unit, scale = ("us", 1000) if max(row.median_ms for row in rows) < 1 else ("ms", 1)
    shown = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    shown.add_column("provider", no_wrap=True)
    for name in (unit, "p20", "p80", "GB/s", "of copy", "x eager", f"{OURS} is"):
        shown.add_column(name, justify="right", no_wrap=True)
    for row, over in zip(rows, ours_over, strict=True):
        has_traffic = not math.isnan(row.gb_per_s)
        shown.add_row(
            row.provider if row.layout == "contiguous" else f"{row.provider} {row.layout}",
            *(three_digits(time * scale) for time in (row.median_ms, row.p20_ms, row.p80_ms)),
            f"{row.gb_per_s:.1f}" if has_traffic else "",
            f"{row.gb_per_s / copy_gb_per_s:.0%}" if has_traffic else "",
            f"{row.speedup_over_eager:.2f}",
            "" if over is None else verdict(over),
        )
    return shown


def verdict(over: float) -> str:
    """How many times as fast as one peer ours is; a loss is called one."""
    return f"{over:.2f}x" if over >= 1 else f"[bold red]{over:.2f}x LOSES[/]"


def three_digits(value: float) -> str:
    """A positive number to three digits, without an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}"
