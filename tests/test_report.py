"""Tables and plots are what the newest rows say, and nothing else in a document moves."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.loss_curves import KEY
from benchmarks.report import curves, goals, plots, roofline, steps, work
from benchmarks.report.__main__ import main
from benchmarks.report.ops import tables
from benchmarks.report.records import read_rows, with_sections
from benchmarks.results import FIELDS, append_rows, columns
from benchmarks.step.providers import PROVIDERS
from benchmarks.step.rows import BreakdownRow, StepRow
from benchmarks.step.training import Case, training
from torchp2p.train import Lean

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"


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


def test_a_provider_that_the_newest_commit_no_longer_has_is_left_out() -> None:
    before = [row(name, "contiguous", 6.0, 1.0, commit="a") for name in ("eager", "native", "retired")]
    now = [row(name, "contiguous", 6.0, 1.0, commit="b", date="2026-01-03T00:00:00") for name in ("eager", "native")]
    assert "retired" in tables(before)
    assert "retired" not in tables(before + now)


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
        main(["--results", str(tmp_path), "--documents", str(readme)])
    assert readme.read_text() == f"a {BEGIN} b {END} c"


def test_only_what_stands_between_the_markers_changes() -> None:
    assert with_sections(f"a {BEGIN} b {END} c", {"results": "new"}) == f"a {BEGIN}\nnew\n{END} c"


@pytest.mark.parametrize("document", [BEGIN, END + BEGIN, BEGIN + END + BEGIN, BEGIN + END + BEGIN + END])
def test_markers_that_do_not_match_are_refused(document: str) -> None:
    with pytest.raises(ValueError, match="must have a begin and an end marker"):
        with_sections(document, {"results": "new"})


def test_a_section_that_nobody_can_write_is_refused(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("<!-- poems:begin --><!-- poems:end -->")
    with pytest.raises(ValueError, match=r"markers must be of results, goals, .*got 'poems'"):
        main(["--results", str(tmp_path), "--documents", str(readme)])


# --- whole steps ------------------------------------------------------------------------------------------------


def step(provider: str, ms: float, faster: float, **changes: object) -> dict[str, str]:
    values: dict[str, object] = {
        "date": "2026-01-02T00:00:00", "commit": "abc", "device": "a chip", "threads": 2, "torch": "2.13",
        "part": "against", "preset": "pix2pix", "size": "256x256", "batch_size": 1, "vgg": False,
        "provider": provider, "precision": "bfloat16" if "bfloat16" in provider else "float32",
        "allocator": "keep" if provider.startswith(("torchp2p", "with")) else "default", "rounds": 7,
        "median_ms": ms, "p20_ms": ms, "p80_ms": ms, "base": "reference", "times_as_fast": faster,
        "first_step_ms": ms, "compile_ms": "nan", "peak_mb": 1000, "step_mb": 400, "loss_error": "nan",
        "weight_error": "nan", "weight_distance": "nan", "warm_up": 10, "outcome": "done", **changes,
    }  # fmt: skip
    assert tuple(values) == columns(StepRow)
    return {name: str(value) for name, value in values.items()}


STEPS = [
    step("reference", 1000, 1.0),
    step("compile", 800, 1.25),
    step("compile_max", 700, 1.43, outcome="needs more than 1 GB"),
    step("torchp2p", 500, 2.0, loss_error=1e-7),
]


def test_a_comparison_has_every_provider_and_ours_beside_its_best_peer() -> None:
    lines = steps.comparisons(STEPS).splitlines()
    assert lines[0] == "pix2pix 256x256, batches of 1, 2 threads: a chip, torch 2.13, commit abc, 2026-01-02"
    assert "| torchp2p | 0.500 | 0.500 to 0.500 | 2.00 | 1.60 | 0.500 |  | 1.00 | 0.400 | 1e-07 |  |  |" in lines
    assert any(line.startswith("| compile_max | needs more than 1 GB |") for line in lines)
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1


def test_a_newer_row_of_a_provider_replaces_the_older_one() -> None:
    newer = steps.comparisons([*STEPS, step("torchp2p", 250, 4.0, date="2026-01-03T00:00:00")])
    assert "| torchp2p | 0.250 |" in newer
    assert "| torchp2p | 0.500 |" not in newer


def test_an_ablation_says_how_much_slower_and_larger_a_step_is_without_a_switch() -> None:
    ours = step("torchp2p", 500, 1.0, part="ablate", base="torchp2p")
    without = step("without judge_once", 1000, 0.5, part="ablate", base="torchp2p", peak_mb=1500)
    assert "| without judge_once | 2.00 | +0.50 |  |" in steps.ablations([ours, without, *STEPS])
    assert "| reference |" not in steps.ablations([ours, without, *STEPS])


def test_scaling_has_a_line_for_every_size_and_number_of_threads() -> None:
    rows = [
        step(name, 100 * pixels, 1.0, part="scale", size=f"{256 * pixels}x256", threads=threads)
        for name in ("reference", "torchp2p") for pixels in (1, 2) for threads in (1, 2)
    ]  # fmt: skip
    shown = steps.scaling(rows)
    assert shown.count("\n| 512x256 |") == 2
    assert "| 256x256 | 1 | 0.100 | 0.100 | 1.00 | 1.00 |" in shown


def kind(provider: str, name: str, ms: float, date: str = "2026-01-02T00:00:00") -> dict[str, str]:
    values = {**step(provider, 1, 1.0, date=date), "kind": name, "kind_ms": str(ms)}
    return {column: values[column] for column in columns(BreakdownRow)}


def test_a_breakdown_has_a_line_for_every_kind_of_the_newest_run() -> None:
    old, new = kind("torchp2p", "losses", 9.0), "2026-01-03T00:00:00"
    rows = [old, kind("torchp2p", "convolution", 2.0, new), kind("reference", "convolution", 4.0)]
    shown = steps.breakdowns(rows)
    assert "| convolution | 2.00 | 4.00 |" in shown
    assert "losses" not in shown


@pytest.mark.parametrize("table", [steps.comparisons, steps.ablations, steps.scaling, steps.breakdowns])
def test_without_rows_a_table_of_steps_says_so(table) -> None:
    assert table([]) == "No rows yet."


# --- goals --------------------------------------------------------------------------------------------------------


def test_a_goal_is_reached_missed_or_not_measured() -> None:
    lines = goals.table([*STEPS, step("torchp2p_bfloat16", 450, 2.2)]).splitlines()
    assert "| CPU | pix2pix 256x256, float32 | ≥ 1.5 x the reference | 2.00 x | reached |" in lines
    assert "| CPU | pix2pix 256x256, bfloat16 | ≥ 2.5 x the reference | 2.20 x | MISSED |" in lines
    assert "| H100 | pix2pix 256x256, bfloat16 | ≥ 5 x the reference |  | not measured |" in lines


@pytest.mark.parametrize(
    ("times", "shown"), [(1.4975, "1.498 x | MISSED"), (1.49996, "1.49996 x | MISSED"), (1.5, "1.50 x | reached")]
)
def test_a_goal_that_is_missed_by_a_hair_is_not_rounded_to_what_was_asked(times: float, shown: str) -> None:
    assert f"| ≥ 1.5 x the reference | {shown} |" in goals.table([STEPS[0], step("torchp2p", 500, times)])


def test_the_goal_of_a_gpu_is_not_reached_on_a_cpu_nor_the_other_way_round() -> None:
    on_gpu = [step("reference", 9, 1.0, device="NVIDIA H100"), step("torchp2p", 1, 9.0, device="NVIDIA H100")]
    (first, *_) = goals.GOALS
    assert goals.reached(first, on_gpu) != goals.reached(first, STEPS) == 2.0


def test_the_best_peer_is_of_the_same_precision_has_finished_and_leaves_the_allocator_alone() -> None:
    peers = [step("reference_keep", 400, 2.5, allocator="keep"), step("autocast", 300, 3.3, precision="bfloat16")]
    assert goals.advantage(STEPS[-1], [*STEPS, *peers]) == pytest.approx(2.0 / 1.25)


def test_a_goal_of_memory_is_a_share_of_what_plain_modules_take() -> None:
    large = {"preset": "pix2pixhd-512p", "size": "512x1024"}
    rows = [step("reference", 9, 1.0, peak_mb=2000, **large), step("torchp2p", 9, 1.0, peak_mb=800, **large)]
    assert "| peak ≤ 50% of plain modules at 512x1024 | 40% | reached |" in goals.table(rows)
    small = step("torchp2p_small", 9, 1.0, peak_mb=1100, **large)
    assert "`--recompute --bf16_state` | peak ≤ 50% of plain modules at 512x1024 | 55% | MISSED |" in goals.table(
        [*rows, small]
    )


# --- loss curves --------------------------------------------------------------------------------------------------


def test_curves_are_held_against_the_band_of_the_originals(tmp_path) -> None:
    values = {("reference", 1): 1.0, ("reference", 2): 3.0, ("channels_last", 1): 2.5, ("torchp2p", 2): 2.0}
    rows = [
        {**dict.fromkeys(KEY, "x"), "provider": provider, "threads": threads, "step": at, "G_L1": value}
        for (provider, threads), value in values.items()
        for at in (1, 2)
    ]
    with (tmp_path / "loss_curves_x.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    assert "| G_L1 | 100% | 50% | 0% to 100% (33%) | 0.00 | 3.00 | 0.833 | 1 to 1.75 |" in curves.tables(tmp_path)


# --- arithmetic -------------------------------------------------------------------------------------------------

TINY_HD = Case(
    "pix2pixhd-512p", (32, 64), 1,
    changes={"ngf": 32, "ndf": 2, "n_downsample_global": 2, "n_blocks_global": 1, "label_nc": 4},
)  # fmt: skip


@pytest.mark.parametrize("case", [TINY_HD, Case("demo", (128, 128), 1, changes={"ngf": 2, "ndf": 2})], ids=str)
def test_tensors_without_memory_take_as_many_operations_as_real_ones(case: Case) -> None:
    with FlopCounterMode(display=False) as counter:
        training(case, PROVIDERS["reference"]).step()
    assert work.of_original(case) == counter.get_total_flops()


def test_winograd_leaves_a_third_of_a_residual_block_and_phases_take_a_third_more_of_the_last_layer() -> None:
    direct, taken = (work.of_ours(TINY_HD, Lean(algorithm=name)) for name in ("vendor", None))
    of_block = 2 * 3 * (2 * 9 * 128 * 128 * 8 * 16)  # two convolutions, each with its two gradients
    of_head = 3 * (2 * 49 * 32 * 3 * 32 * 64)
    assert direct - taken == of_block * 98 // 144 - of_head * 15 // 49
    assert direct < work.of_original(TINY_HD)


def test_the_table_of_work_has_a_line_for_every_case() -> None:
    (line,) = work.table([TINY_HD]).splitlines()[2:]
    assert line.startswith("| pix2pixhd-512p 32x64 | ")


# --- plots --------------------------------------------------------------------------------------------------------

MACHINE_ROWS = [
    row("copy", "contiguous", 10.0, 1.0, op="memory", mode="forward", gb_per_s="50", shape="5 bytes"),
    row("matmul", "contiguous", 1.0, 1.0, op="peak", mode="forward", gb_per_s="nan", shape="100x100x100"),
]


def test_the_roofs_are_what_the_same_runs_measured() -> None:
    found = roofline.roofs(MACHINE_ROWS)
    assert found == roofline.Roofs(gb_per_s=50.0, gflops=pytest.approx(2.0))
    assert roofline.roofs(MACHINE_ROWS[:1]) is None


def test_a_point_of_the_roofline_has_the_operations_of_its_elements_and_the_traffic_of_its_row() -> None:
    own = row("native", "contiguous", 1.0, 1.0, mode="forward", gb_per_s="0.096", shape="1x2x3x4")
    (point,) = roofline.points([own, row("compile", "contiguous", 1.0, 1.0, gb_per_s="1")])
    assert point.gflops == pytest.approx(7 * 24 / 1e6)
    assert point.intensity == pytest.approx(7 * 24 / 96e3)


def test_all_plots_are_drawn_and_the_same_rows_make_the_same_bytes(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (pip install torchp2p[plots])")
    own = row("native", "contiguous", 1.0, 1.0, mode="forward", gb_per_s="0.1")
    scale = [step("torchp2p", 100, 1.0, part="scale"), step("torchp2p", 200, 1.0, part="scale", size="512x512")]
    kinds = [kind("torchp2p", "convolution", 2.0), kind("torchp2p", "losses", 1.0)]
    drawn = [plots.draw_all(tmp_path / str(n), [*MACHINE_ROWS, own], scale, kinds) for n in range(2)]
    names = ["breakdown_a-chip.svg", "memory_a-chip.svg", "scaling_a-chip.svg", "roofline_a-chip.svg"]
    assert [path.name for path in drawn[0]] == names
    assert [path.read_bytes() for path in drawn[0]] == [path.read_bytes() for path in drawn[1]]


def test_the_documents_are_written_even_where_plots_cannot_be_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    page = tmp_path / "page.md"
    page.write_text("<!-- steps:begin --><!-- steps:end -->")
    with pytest.raises(ImportError, match=r"plots need matplotlib: pip install torchp2p\[plots\]"):
        main(["--results", str(tmp_path), "--documents", str(page), "--plots", str(tmp_path)])
    assert "No rows yet." in page.read_text()


def test_rows_of_other_columns_are_no_rows_of_steps(tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("case,who\n1,2\n")
    found = StepRow(**{name: 1 for name in columns(StepRow)})  # type: ignore[arg-type]
    append_rows(tmp_path / "steps_chip.csv", [found])
    assert [each["size"] for each in read_rows(tmp_path, columns(StepRow))] == ["1"]
