"""The README's table is what the newest rows say, and nothing else in the README moves."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.report import BEGIN, END, between_markers, main, tables
from benchmarks.results import FIELDS


def row(provider: str, layout: str, ms: float, date: str = "2026-01-02T00:00:00", **changes: str) -> dict[str, str]:
    values = dict.fromkeys(FIELDS, "") | {
        "date": date, "device": "a chip", "threads": "2", "torch": "2.13", "allocator": "keep", "op": "norm_act",
        "config": "instance relu", "provider": provider, "mode": "forward_backward", "dtype": "float32",
        "layout": layout, "shape": "1x2x3x4", "median_ms": str(ms),
    }  # fmt: skip
    return values | changes


def test_ratios_compare_each_rival_with_ours_in_its_layout() -> None:
    rows = [
        row("eager", "contiguous", 6.0),
        row("eager", "channels_last", 20.0),
        row("native", "contiguous", 2.0),
        row("native", "channels_last", 4.0),
    ]
    assert "| 1x2x3x4 instance relu | 2.00 | 3.0 | 5.0 |  |" in tables(rows)


def test_a_newer_run_of_a_case_replaces_the_older_one() -> None:
    old = [row("eager", "contiguous", 6.0), row("native", "contiguous", 2.0)]
    new = [
        row("eager", "contiguous", 6.0, "2026-02-01T00:00:00"),
        row("native", "contiguous", 1.0, "2026-02-01T00:00:00"),
    ]
    assert "| 1.00 | 6.0 |" in tables(old + new)
    assert "3.0" not in tables(old + new)


def test_machines_have_a_table_each() -> None:
    rows = [row("native", "contiguous", 2.0), row("native", "contiguous", 3.0, device="another chip")]
    assert tables(rows).count("|---|") == 2


def test_without_rows_to_show_nothing_is_written(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"a {BEGIN} b {END} c")
    with pytest.raises(ValueError, match="no float32 forward_backward rows"):
        main(["--results", str(tmp_path), "--readme", str(readme)])
    assert readme.read_text() == f"a {BEGIN} b {END} c"


def test_only_what_stands_between_the_markers_changes() -> None:
    assert between_markers(f"a {BEGIN} b {END} c", "new") == f"a {BEGIN}\nnew\n{END} c"


@pytest.mark.parametrize("document", ["", BEGIN, END + BEGIN, BEGIN + END + BEGIN])
def test_a_document_without_both_markers_is_refused(document: str) -> None:
    with pytest.raises(ValueError, match="must hold"):
        between_markers(document, "new")
