"""Tables of whole steps: comparisons, ablations, scaling, and where the time goes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..step.providers import OURS
from ..step.rows import DONE, cell, error_cell
from .goals import advantage
from .records import Record, grouped, markdown, newest, of_last_commit

MACHINE = ("device", "torch")
CASE = ("preset", "size", "batch_size", "vgg", "threads")
NOTHING = "No rows yet."


def comparisons(rows: Sequence[Record]) -> str:
    """A table a case: every provider, the losing ones too."""
    return _tables([row for row in rows if row["part"] == "against"], _comparison)


def ablations(rows: Sequence[Record]) -> str:
    """A table a case: what each switch of the lean step is worth."""
    return _tables([row for row in rows if row["part"] == "ablate"], _ablation)


def scaling(rows: Sequence[Record]) -> str:
    """A table a preset: sizes and threads."""
    shown = newest((row for row in rows if row["part"] == "scale"), (*MACHINE, *CASE, "provider"))
    parts = []
    for (device, torch, preset), of_preset in grouped(shown, (*MACHINE, "preset")).items():
        names = list(dict.fromkeys(row["provider"] for row in of_preset))
        heads = ["size", "threads", *(f"{name} s" for name in names), *(f"{name} GB" for name in names)]
        lines = []
        for (size, threads), found in grouped(of_preset, ("size", "threads")).items():
            by_name = {row["provider"]: row for row in found}
            seconds = [_seconds(by_name[name]) if name in by_name else "" for name in names]
            memory = [cell(_float(by_name[name], "peak_mb") / 1e3) if name in by_name else "" for name in names]
            lines.append((size, threads, *seconds, *memory))
        parts += [_caption(device, torch, of_preset, f"{preset}: "), markdown(heads, lines, 2)]
    return "\n\n".join(parts) or NOTHING


def breakdowns(rows: Sequence[Record]) -> str:
    """A table a case: milliseconds by kind of work."""
    shown = newest(rows, (*MACHINE, *CASE, "provider", "kind"))
    parts = []
    for key, found in grouped(shown, (*MACHINE, *CASE)).items():
        # A kind that a newer run no longer has is no part of the newest.
        last = {row["provider"]: row["date"] for row in found}
        found = [row for row in found if row["date"] == last[row["provider"]]]
        by_name = grouped(found, ("provider",))
        kinds = list(dict.fromkeys(row["kind"] for row in found))
        lines = []
        for kind in kinds:
            of_kind = {row["provider"]: float(row["kind_ms"]) for row in found if row["kind"] == kind}
            lines.append((kind, *(cell(of_kind.get(name, math.nan)) for (name,) in by_name)))
        parts += [_caption(key[0], key[1], found, _case(found[0])), markdown(("ms", *(n for (n,) in by_name)), lines)]
    return "\n\n".join(parts) or NOTHING


def _tables(rows: Sequence[Record], table: object) -> str:
    assert callable(table)
    shown = newest(rows, (*MACHINE, *CASE, "provider"))
    parts = []
    for (device, torch, *_), of_case in grouped(shown, (*MACHINE, *CASE)).items():
        found = of_last_commit(of_case)
        parts += [_caption(device, torch, found, _case(found[0])), str(table(found))]
    return "\n\n".join(parts) or NOTHING


def _comparison(rows: Sequence[Record]) -> str:
    heads = ("provider", "s", "p20 to p80", f"x {rows[0]['base']}", "x best peer", "first step s", "compile s")
    return markdown(
        (*heads, "peak GB", "of it a step's", "loss", "weights", "as one"), (_provider(row, rows) for row in rows)
    )


def _provider(row: Record, rows: Sequence[Record]) -> tuple[str, ...]:
    if row["outcome"] != DONE:
        return row["provider"], row["outcome"], *[""] * 10
    best = advantage(row, rows) if row["provider"].startswith(OURS) else math.nan
    return (
        row["provider"],
        _seconds(row),
        f"{cell(_float(row, 'p20_ms') / 1e3)} to {cell(_float(row, 'p80_ms') / 1e3)}",
        _ratio(_float(row, "times_as_fast")),
        _ratio(best),
        *(cell(_float(row, name) / 1e3) for name in ("first_step_ms", "compile_ms", "peak_mb", "step_mb")),
        *(error_cell(_float(row, name)) for name in ("loss_error", "weight_error", "weight_distance")),
    )


def _ablation(rows: Sequence[Record]) -> str:
    base = next((row for row in rows if row["provider"] == row["base"]), None)
    lines = []
    for row in rows:
        if row["outcome"] != DONE:
            lines.append((row["provider"], row["outcome"], "", ""))
            continue
        more = (_float(row, "peak_mb") - _float(base, "peak_mb")) / 1e3 if base else math.nan
        slower = 1 / _float(row, "times_as_fast")
        memory = "" if math.isnan(more) else f"{more:+.2f}"
        lines.append((row["provider"], _ratio(slower), memory, error_cell(_float(row, "loss_error"))))
    return markdown(("torchp2p", "times as slow", "GB more", "loss"), lines)


def _case(row: Record) -> str:
    vgg = ", VGG" if row["vgg"] == "True" else ""
    threads = "1 thread" if row["threads"] == "1" else f"{row['threads']} threads"
    return f"{row['preset']} {row['size']}, batches of {row['batch_size']}{vgg}, {threads}: "


def _caption(device: str, torch: str, rows: Sequence[Record], what: str) -> str:
    last = max(rows, key=lambda row: row["date"])
    return f"{what}{device}, torch {torch}, commit {last['commit']}, {last['date'][:10]}"


def _seconds(row: Record) -> str:
    return cell(_float(row, "median_ms") / 1e3) if row["outcome"] == DONE else row["outcome"]


def _ratio(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.2f}"


def _float(row: Record, name: str) -> float:
    return float(row[name])
