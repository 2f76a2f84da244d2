"""Whole training steps: torchp2p against the original procedure on plain modules, eager and compiled.

    torchp2p bench step --preset pix2pixhd-512p --size 256x512 --against reference,channels_last,autocast,compile

Every provider is a process of its own, with its own allocator and its own peak of memory; they take their steps in
turn (A B C A B C), so a machine that slows down slows them all, and ratios are taken round by round. Weights and batch
are the same for all. docs/benchmarks.md says what is measured and what is not.
"""

from __future__ import annotations

import datetime
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from . import machine, results
from .harness import ratio, summarise
from .program import run_as_program
from .step import options
from .step.compare import Found, Plan, compare
from .step.providers import Provider
from .step.rows import DONE, BreakdownRow, StepRow, table
from .step.training import Case

PAGE = 140
"""Characters of a line where there is no terminal."""


KINDS = {"steps": StepRow, "breakdown": BreakdownRow}
"""The rows by the name of their file."""


@dataclass(frozen=True)
class Setting:
    """What all cases of one run have in common."""

    part: str
    device: str
    providers: Sequence[Provider]
    plan: Plan
    console: Console


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, show and keep.

    Raises:
        UsageError: of the options.
        ValueError: ``--device cuda`` without a GPU, weights that are not VGG's, rows with other columns where these
            are to go, or, once all rows are kept, no provider that has finished in any of them.
        OSError: no file of the weights, or the folder of the rows cannot be written to.
    """
    given = options.parsed(sys.argv[1:] if argv is None else argv)
    device = machine.gpu_name() if given.device == "cuda" else machine.processor_name()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else PAGE)
    setting = Setting(options.part(given), device, options.providers(given), options.plan(given), console)
    folder = Path(given.results) if given.results else machine.results_folder()
    with options.vgg_weights(given.vgg) as vgg:
        cases = options.cases(given, vgg)
        for kind, row in KINDS.items():
            results.prepare(_path(folder, kind, setting), row)
        console.print(f"{device}, torch {torch.__version__}, commit {machine.commit()}")
        rows = [row for case in cases for row in _measure(case, setting, folder)]
    if all(row.outcome != DONE for row in rows):
        raise ValueError(f"no provider has finished: {'; '.join(f'{row.provider}: {row.outcome}' for row in rows)}")


def _measure(case: Case, setting: Setting, folder: Path) -> list[StepRow]:
    """The rows of one case: shown, and kept at once, for the next may take an hour."""
    console = setting.console
    with console.status("") as status:
        found = compare(case, setting.providers, setting.plan, lambda what: status.update(f"{_title(case)}: {what}"))
    rows = [step_row(case, setting, each, found[0]) for each in found]
    console.print(table(_title(case), rows))
    of_kinds = [row for each, own in zip(found, rows, strict=True) for row in breakdown_rows(each, own)]
    made_by_kind: dict[str, Sequence[Any]] = {"steps": rows, "breakdown": of_kinds}
    for kind, made in made_by_kind.items():
        if made:
            path = _path(folder, kind, setting)
            results.append_rows(path, made)
            console.print(f"{len(made)} rows appended to {path}")
    return rows


def step_row(case: Case, setting: Setting, found: Found, base: Found) -> StepRow:
    """What is kept of one provider."""
    measured = not found.failure and bool(found.seconds)
    summary = summarise(found.seconds * 2 if len(found.seconds) == 1 else found.seconds) if measured else None
    warm_up = found.warm_up
    compile_ms = math.nan
    if summary and warm_up and found.provider.compile_mode:
        compile_ms = 1e3 * max(0.0, sum(warm_up.seconds) - len(warm_up.seconds) * summary.median)
    faster = math.nan
    if measured:
        faster = 1.0 if found is base else ratio(found.of_base, found.seconds)
    memory = found.memory
    return StepRow(
        date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        commit=machine.commit(),
        device=setting.device,
        threads=case.threads,
        torch=torch.__version__,
        part=setting.part,
        preset=case.preset,
        size=f"{case.size[0]}x{case.size[1]}",
        batch_size=case.batch_size,
        vgg=case.vgg is not None,
        provider=found.provider.name,
        precision=found.provider.precision,
        allocator=found.provider.allocator,
        rounds=len(found.seconds),
        median_ms=1e3 * summary.median if summary else math.nan,
        p20_ms=1e3 * summary.p20 if summary else math.nan,
        p80_ms=1e3 * summary.p80 if summary else math.nan,
        base=base.provider.name,
        times_as_fast=faster,
        first_step_ms=1e3 * warm_up.seconds[0] if warm_up else math.nan,
        compile_ms=compile_ms,
        peak_mb=memory.peak / 1e6 if memory else math.nan,
        step_mb=(memory.peak - memory.standing) / 1e6 if memory else math.nan,
        loss_error=found.loss_error,
        weight_error=warm_up.weight_error if warm_up else math.nan,
        weight_distance=warm_up.weight_distance if warm_up else math.nan,
        warm_up=setting.plan.warm_up,
        outcome=found.failure or DONE,
    )


def breakdown_rows(found: Found, row: StepRow) -> Iterator[BreakdownRow]:
    """The kinds of work of one provider, if they were asked for."""
    shared = {name: getattr(row, name) for name in results.columns(BreakdownRow) if hasattr(row, name)}
    for kind, milliseconds in found.breakdown.items():
        yield BreakdownRow(**shared, kind=kind, kind_ms=milliseconds)


def _path(folder: Path, kind: str, setting: Setting) -> Path:
    """The file of rows of one of KINDS."""
    return folder / f"{kind}_{machine.slug(setting.device)}.csv"


def _title(case: Case) -> str:
    vgg = ", VGG" if case.vgg else ""
    threads = f"{case.threads} thread{'' if case.threads == 1 else 's'}"
    return f"{case.preset} {case.size[0]}x{case.size[1]}, batches of {case.batch_size}{vgg}, {threads}"


if __name__ == "__main__":
    run_as_program(main)
