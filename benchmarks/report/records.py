"""Rows as they are read back from CSV files, and the marked sections of documents."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

Record = dict[str, str]

_MARKER = re.compile(r"<!-- (\w+):(begin|end) -->")


def read_rows(folder: Path, fields: Sequence[str]) -> list[Record]:
    """The rows of every CSV file that has exactly these columns, oldest first."""
    rows: list[Record] = []
    for path in sorted(folder.glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if reader.fieldnames is not None and tuple(reader.fieldnames) == tuple(fields):
                rows += reader
    return rows


def newest(rows: Iterable[Record], key: Sequence[str]) -> list[Record]:
    """The last row of every key, in the order in which keys first appear."""
    return list({tuple(row[name] for name in key): row for row in rows}.values())


def of_last_commit(rows: Iterable[Record]) -> list[Record]:
    """Those of the commit that was measured last: who was compared before and is no longer there is left out."""
    rows = list(rows)
    commit = max(rows, key=lambda row: row["date"])["commit"] if rows else ""
    return [row for row in rows if row["commit"] == commit]


def grouped(rows: Iterable[Record], key: Sequence[str]) -> dict[tuple[str, ...], list[Record]]:
    """The rows of every key, both in their order."""
    found: dict[tuple[str, ...], list[Record]] = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in key), []).append(row)
    return found


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]], text_columns: int = 1) -> str:
    """A Markdown table; all but the first ``text_columns`` columns are set to the right."""
    rule = "---|" * text_columns + "---:|" * (len(heads) - text_columns)
    return "\n".join([f"| {' | '.join(heads)} |", f"|{rule}", *(f"| {' | '.join(row)} |" for row in rows)])


def marked_sections(document: str) -> list[str]:
    """The names of the marked sections of a document.

    Raises:
        ValueError: a section does not begin, or end, once and in this order.
    """
    found = _MARKER.findall(document)
    names = [name for name, _ in found[::2]]
    if found != [(name, edge) for name in names for edge in ("begin", "end")] or len(set(names)) != len(names):
        raise ValueError(f"sections must have a begin and an end marker, once each and in order, got {found}")
    return names


def with_sections(document: str, texts: Mapping[str, str]) -> str:
    """``document`` with new texts in its marked sections, and nothing else changed.

    Raises:
        ValueError: what ``marked_sections`` raises.
    """
    for name in marked_sections(document):
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        before, rest = document.split(begin)
        document = f"{before}{begin}\n{texts[name]}\n{end}{rest.split(end)[1]}"
    return document
