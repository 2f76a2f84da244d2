"""Writes the tables and plots of the documents from the newest rows of ``benchmarks/results``.

    python -m benchmarks.report [--results FOLDER] [--documents FILE ...] [--plots FOLDER]

What stands in a document between ``<!-- NAME:begin -->`` and ``<!-- NAME:end -->`` is replaced, for NAME results (ops),
goals, work, steps, ablation, scaling, breakdown and curves. Plots need matplotlib (``pip install torchp2p[plots]``).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from torchp2p.files import atomic_write

from ..program import run_as_program
from ..results import Row, columns
from ..step.rows import BreakdownRow, StepRow
from . import curves, goals, ops, steps, work
from .records import Record, marked_sections, read_rows, with_sections

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = (ROOT / "README.md", ROOT / "docs" / "benchmarks.md")


def main(argv: Sequence[str] | None = None) -> None:
    """Rewrite what stands between markers, and draw the plots.

    Raises:
        ValueError: markers that do not match, or no rows for the table of ops.
        ImportError: matplotlib is missing; the documents are then written.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--documents", type=Path, nargs="+", default=list(DOCUMENTS))
    parser.add_argument("--plots", type=Path, default=ROOT / "docs" / "plots")
    options = parser.parse_args(argv)
    of_ops, of_steps, of_kinds = (read_rows(options.results, columns(kind)) for kind in (Row, StepRow, BreakdownRow))
    documents = {path: path.read_text(encoding="utf-8") for path in options.documents}
    wanted = {name for text in documents.values() for name in marked_sections(text)}
    texts = {name: _text(name, of_ops, of_steps, of_kinds, options.results) for name in wanted}
    for path, text in documents.items():
        write(path, with_sections(text, texts))
    _draw(options.plots, of_ops, of_steps, of_kinds)


def write(path: Path, text: str) -> None:
    """Put ``text`` into the file, all or nothing."""
    atomic_write(path, lambda file: file.write(text.encode()))


def _text(name: str, of_ops: list[Record], of_steps: list[Record], of_kinds: list[Record], results: Path) -> str:
    makers = {
        "results": lambda: ops.tables(of_ops),
        "goals": lambda: goals.table(of_steps),
        "work": work.table,
        "steps": lambda: steps.comparisons(of_steps),
        "ablation": lambda: steps.ablations(of_steps),
        "scaling": lambda: steps.scaling(of_steps),
        "breakdown": lambda: steps.breakdowns(of_kinds),
        "curves": lambda: curves.tables(results),
    }
    if name not in makers:
        raise ValueError(f"markers must be of {', '.join(makers)}, got {name!r}")
    return makers[name]()


def _draw(folder: Path, of_ops: list[Record], of_steps: list[Record], of_kinds: list[Record]) -> None:
    from . import plots

    for path in plots.draw_all(folder, of_ops, of_steps, of_kinds):
        print(path)


if __name__ == "__main__":
    run_as_program(main)
