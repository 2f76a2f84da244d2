"""The README's table is what the newest rows say, and nothing else in the README moves."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.report import BEGIN, END, between_markers, main, tables
from benchmarks.results import FIELDS


def row(provider: str, layout: str, ms: float, speedup: float, **changes: str) -> dict[str, str]:
    values = dict.fromkeys(FIELDS, "") | {
        "date": "2026-01-02T00:00:00", "device": "a chip", "threads": "2", "torch": "2.13", "allocator": "keep",
        "op": "norm_act", "config": "instance relu", "provider": provider, "mode": "forward_backward",
        "dtype": "float32", "layout": layout, "shape": "1x2x3x4", "median_ms": str(ms),
        "speedup_over_eager": str(speedup),
    }  # fmt: skip
    return values | changes


def test_ratios_compare_each_rival_with_ours_in_its_layout() -> None:
    rows = [
        row("eager", "contiguous", 6.0, 1.0),
        row("eager", "channels_last", 20.0, 0.3),
        row("native", "contiguous", 2.0, 3.0),
        row("native", "channels_last", 4.0, 1.5),
        row("original", "contiguous", 60.0, 0.1),
    ]
    assert "| norm_act | 1x2x3x4 instance relu | 2 | 3.0 | 5.0 |  | original 30 |" in tables(rows)


def test_a_newer_run_of_a_case_replaces_the_older_one() -> None:
    old = [row("eager", "contiguous", 6.0, 1.0), row("native", "contiguous", 2.0, 3.0)]
    new = [row("eager", "contiguous", 6.0, 1.0), row("native", "contiguous", 1.0, 6.0)]
    assert "| 1 | 6.0 |" in tables(old + new)
    assert tables(old + new).count("instance relu") == 1


def test_an_op_without_a_gradient_is_shown_forward() -> None:
    edges = {"op": "instance_edges", "mode": "forward", "dtype": "int32"}
    assert "| instance_edges |" in tables([row("native", "contiguous", 2.0, 3.0, **edges)])


def test_forward_alone_and_the_bandwidth_of_memory_are_not_shown() -> None:
    rows = [row("native", "contiguous", 2.0, 3.0), row("native", "contiguous", 7.0, 3.0, mode="forward")]
    shown = tables([*rows, row("copy", "contiguous", 9.0, 1.0, op="memory", mode="forward")])
    assert shown.count("\n| ") == 2  # the head and one case


def test_machines_have_a_table_each() -> None:
    rows = [row("native", "contiguous", 2.0, 3.0), row("native", "contiguous", 3.0, 3.0, device="another chip")]
    assert tables(rows).count("|---|---|---:|") == 2


def test_without_rows_to_show_nothing_is_written(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"a {BEGIN} b {END} c")
    with pytest.raises(ValueError, match="no float32 forward_backward rows to show"):
        main(["--results", str(tmp_path), "--readme", str(readme)])
    assert readme.read_text() == f"a {BEGIN} b {END} c"


def test_only_what_stands_between_the_markers_changes() -> None:
    assert between_markers(f"a {BEGIN} b {END} c", "new") == f"a {BEGIN}\nnew\n{END} c"


@pytest.mark.parametrize("document", ["", BEGIN, END + BEGIN, BEGIN + END + BEGIN])
def test_a_document_without_both_markers_is_refused(document: str) -> None:
    with pytest.raises(ValueError, match="must hold"):
        between_markers(document, "new")
