"""Writes the README's results table from the newest rows of ``benchmarks/results``; no figure is typed by hand.

    python -m benchmarks.report [--results FOLDER] [--readme FILE]

For every machine and shape: milliseconds of the fused op, and how many times as fast it is as each other way.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.results import FIELDS, OURS
from torchp2p.files import atomic_write

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
RIVALS = (("eager", "contiguous"), ("eager", "channels_last"), ("compile", "contiguous"))

Record = dict[str, str]


def main(argv: Sequence[str] | None = None) -> None:
    """Rewrite what stands between the markers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = Path(__file__).resolve().parent.parent
    parser.add_argument("--results", type=Path, default=root / "benchmarks" / "results")
    parser.add_argument("--readme", type=Path, default=root / "README.md")
    options = parser.parse_args(argv)
    text = between_markers(options.readme.read_text(encoding="utf-8"), tables(read_rows(options.results)))
    atomic_write(options.readme, lambda file: file.write(text.encode()))


def read_rows(folder: Path) -> list[Record]:
    """The rows of every CSV file that the harness wrote, oldest first."""
    rows: list[Record] = []
    for path in sorted(folder.glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if reader.fieldnames is not None and tuple(reader.fieldnames) == FIELDS:
                rows += reader
    return rows


def tables(rows: Iterable[Record]) -> str:
    """A Markdown table for every machine, from the newest run of each case.

    Raises:
        ValueError: there are no rows of the kind that is shown.
    """
    shown = [
        row
        for row in rows
        if row["op"] == "norm_act" and row["mode"] == "forward_backward" and row["dtype"] == "float32"
    ]
    if not shown:
        raise ValueError("there are no float32 forward_backward rows of norm_act to show")
    machines = dict.fromkeys(_machine(row) for row in shown)
    return "\n\n".join(_table(machine, [row for row in shown if _machine(row) == machine]) for machine in machines)


def between_markers(document: str, content: str) -> str:
    """``document`` with ``content`` between its two markers.

    Raises:
        ValueError: the markers are not there, once each and in order.
    """
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in after or END in after:
        raise ValueError(f"the document must hold {BEGIN} and then {END}, once each")
    return f"{before}{BEGIN}\n{content}\n{END}{after}"


def _machine(row: Record) -> tuple[str, str, str]:
    return row["device"], row["torch"], row["allocator"]


def _table(machine: tuple[str, str, str], rows: list[Record]) -> str:
    device, torch_version, allocator = machine
    newest = max(row["date"] for row in rows)
    lines = [
        f"{device}, torch {torch_version}, allocator {allocator}, {newest[:10]}",
        "",
        "| shape | ms | " + " | ".join(f"x {name} {layout}" for name, layout in RIVALS) + " |",
        "|---|---:|" + "---:|" * len(RIVALS),
    ]
    for case in dict.fromkeys((row["shape"], row["config"]) for row in rows):
        of_case = [row for row in rows if (row["shape"], row["config"]) == case]
        last = max(row["date"] for row in of_case)
        times = {(row["provider"], row["layout"]): float(row["median_ms"]) for row in of_case if row["date"] == last}
        ratios = []
        for provider, layout in RIVALS:
            ours, theirs = times.get((OURS, layout)), times.get((provider, layout))
            ratios.append(f"{theirs / ours:.1f}" if ours and theirs else "")
        own = times.get((OURS, "contiguous"))
        lines.append(f"| {case[0]} {case[1]} | {own:.2f} | " + " | ".join(ratios) + " |" if own else f"| {case[0]} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
