"""The table of ops: milliseconds of the fused op, and how many times as fast it is as each other way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..results import OURS
from .records import Record, of_last_commit

RIVALS = (("eager", "contiguous"), ("eager", "channels_last"), ("compile", "contiguous"))

WITHOUT_GRADIENT = ("instance_edges",)
DTYPES = ("float32", "int32")


def tables(rows: Iterable[Record]) -> str:
    """A Markdown table for every machine, from the newest run of each case.

    Raises:
        ValueError: there are no rows of the kind that is shown.
    """
    rows = list(rows)
    ours = {(row["op"], _machine(row)) for row in rows if row["provider"] == OURS}
    shown = [
        row
        for row in rows
        if (row["op"], _machine(row)) in ours and row["dtype"] in DTYPES and row["mode"] == _mode(row)
    ]
    if not shown:
        raise ValueError("there are no float32 forward_backward rows to show")
    machines = dict.fromkeys(_machine(row) for row in shown)
    return "\n\n".join(_table(machine, [row for row in shown if _machine(row) == machine]) for machine in machines)


def _machine(row: Record) -> tuple[str, str, str]:
    return row["device"], row["torch"], row["allocator"]


def _op(row: Record) -> str:
    return row["op"]


def _mode(row: Record) -> str:
    """The mode of an op that is shown: with its gradient, where it has one."""
    return "forward" if row["op"] in WITHOUT_GRADIENT else "forward_backward"


def _table(machine: tuple[str, str, str], rows: list[Record]) -> str:
    device, torch_version, allocator = machine
    newest = max(row["date"] for row in rows)
    columns = ("op", "case", "ms", *(f"x {name} {layout}" for name, layout in RIVALS), "x others")
    lines = [
        f"{device}, torch {torch_version}, allocator {allocator}, {newest[:10]}",
        "",
        f"| {' | '.join(columns)} |",
        "|---|---|---:|" + "---:|" * len(RIVALS) + "---|",
    ]
    for op, shape, config in dict.fromkeys((row["op"], row["shape"], row["config"]) for row in sorted(rows, key=_op)):
        of_case = [row for row in rows if (row["op"], row["shape"], row["config"]) == (op, shape, config)]
        newest_of = {(row["provider"], row["layout"]): row for row in of_last_commit(of_case)}
        own = newest_of.get((OURS, "contiguous"))
        if own is not None:
            cells = (op, f"{shape} {config}", f"{float(own['median_ms']):.3g}", *_ratios(newest_of))
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _ratios(rows: dict[tuple[str, str], Record]) -> Iterator[str]:
    """How many times as fast ours is as each rival, and as whoever else was measured.

    Each is the quotient of two ratios to eager, which each were taken within one run.
    """

    def ratio(provider: str, layout: str) -> str:
        ours, theirs = rows.get((OURS, layout)), rows.get((provider, layout))
        if ours is None or theirs is None:
            return ""
        quotient = float(ours["speedup_over_eager"]) / float(theirs["speedup_over_eager"])
        return f"{quotient:.0f}" if quotient >= 20 else f"{quotient:.1f}"

    yield from (ratio(*rival) for rival in RIVALS)
    others = [key for key in rows if key not in RIVALS and key[0] != OURS and ratio(*key)]
    yield ", ".join(f"{provider} {ratio(provider, layout)}" for provider, layout in others)
