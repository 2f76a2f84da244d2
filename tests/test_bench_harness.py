"""The benchmark harness: what it measures, how it sums that up, how it keeps it."""

from __future__ import annotations

import argparse
import csv
import gc
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from benchmarks import bench_overhead, harness, machine, results
from torchp2p.ops import _dispatch

ROW = results.Row(
    date="2026-01-01T00:00:00+00:00",
    commit="abc1234",
    device="Some CPU, 2 threads",
    threads=2,
    torch="2.13.0",
    allocator="default",
    op="norm_act",
    config="instance leaky_relu",
    provider="native",
    mode="forward",
    dtype="float32",
    layout="contiguous",
    shape="1x2x3x4",
    rounds=5,
    median_ms=1.5,
    p20_ms=1.25,
    p80_ms=2.0,
    speedup_over_eager=3.0,
    gb_per_s=12.0,
)


class Clock:
    """Time that passes only inside the calls that are measured."""

    def __init__(self) -> None:
        self.now = 0.0
        self.history: list[str] = []

    def __call__(self) -> float:
        return self.now

    def call(self, name: str, *seconds: float) -> Callable[[], None]:
        """A call that takes each of ``seconds`` in turn, and the last one from then on."""
        left = list(seconds)

        def run() -> None:
            self.history.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return run


# --- measuring -------------------------------------------------------------------------------------------


def test_providers_run_in_turn() -> None:
    clock = Clock()
    calls = [clock.call(name, 1.0) for name in "ABC"]
    harness.measure(calls, rounds=2, warmup=0, clock=clock)
    assert "".join(clock.history) == "ABC" + "ABC" * 2  # the first round sets the number of repeats


def test_warm_up_calls_are_not_measured() -> None:
    clock = Clock()
    slow_start = clock.call("A", 100.0, 100.0, 1.0)
    assert harness.measure([slow_start], rounds=3, warmup=2, clock=clock) == [[1.0, 1.0, 1.0]]


def test_every_round_gives_one_value_per_provider() -> None:
    clock = Clock()
    calls = [clock.call("A", 1.0, 1.0, 2.0, 3.0), clock.call("B", 5.0)]
    assert harness.measure(calls, rounds=3, warmup=0, clock=clock) == [[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]]


def test_short_calls_are_repeated_alike_until_the_fastest_fills_a_sample() -> None:
    clock = Clock()
    calls = [clock.call("A", 0.25), clock.call("B", 2.0)]
    samples = harness.measure(calls, rounds=1, warmup=0, least_seconds=1.0, clock=clock)
    assert "".join(clock.history) == "AB" + "AAAA" + "BBBB"
    assert samples == [[0.25], [2.0]]


def test_the_garbage_collector_rests_while_measuring_and_comes_back() -> None:
    during: list[bool] = []
    harness.measure([lambda: during.append(gc.isenabled())], rounds=1, warmup=0, least_seconds=0.0)
    assert during[-1] is False
    assert gc.isenabled()


def test_the_garbage_collector_comes_back_after_a_failure() -> None:
    left = [1, 1]
    with pytest.raises(IndexError):
        harness.measure([left.pop], rounds=5, warmup=0)
    assert gc.isenabled()


# --- summing up ------------------------------------------------------------------------------------------


def test_a_summary_is_the_median_and_the_outer_fifths() -> None:
    assert harness.summarise([6.0, 1.0, 3.0, 2.0, 5.0, 4.0]) == harness.Summary(median=3.5, p20=2.0, p80=5.0)


def test_one_outlier_does_not_move_the_median() -> None:
    assert harness.summarise([1.0, 1.0, 1.0, 1.0, 900.0]).median == 1.0


def test_ratios_are_taken_pair_by_pair() -> None:
    eager, ours = [10.0, 80.0, 30.0], [5.0, 20.0, 10.0]  # 2, 4, 3; the ratio of the medians is 3 too, but
    assert harness.ratio(eager, ours) == 3.0
    assert harness.ratio([10.0, 100.0, 30.0], [10.0, 10.0, 20.0]) == 1.5  # that of these medians would be 3


def test_ratios_need_as_many_values_on_either_side() -> None:
    with pytest.raises(ValueError, match="zip"):
        harness.ratio([1.0], [1.0, 2.0])


def test_ours_is_compared_with_each_peer_in_the_same_layout() -> None:
    providers = [
        harness.Provider("eager", lambda mode: lambda: None),
        harness.Provider("eager", lambda mode: lambda: None, "channels_last"),
        harness.Provider("native", lambda mode: lambda: None),
        harness.Provider("native", lambda mode: lambda: None, "channels_last"),
    ]
    assert harness.advantage(providers, [[6.0], [8.0], [2.0], [4.0]]) == [3.0, 2.0, None, None]


def test_a_lost_comparison_says_so() -> None:
    assert "LOSES" in results.verdict(0.99)
    assert results.verdict(1.0) == "1.00x"


# --- what is timed ---------------------------------------------------------------------------------------


def test_forward_records_no_graph() -> None:
    x = torch.ones(2, requires_grad=True)
    y = harness.timed_call(torch.exp, [x], "forward")()
    assert not cast(torch.Tensor, y).requires_grad


def test_forward_grad_records_a_graph() -> None:
    y = harness.timed_call(torch.exp, [torch.ones(2)], "forward_grad")()
    assert cast(torch.Tensor, y).requires_grad


def test_forward_backward_gives_the_gradient_of_every_input_and_draws_nothing() -> None:
    call = harness.timed_call(torch.mul, [torch.ones(2), torch.ones(2)], "forward_backward")
    before = torch.random.get_rng_state()
    first, second = cast(tuple[torch.Tensor, torch.Tensor], call())
    assert torch.equal(first, second)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_gradient_is_channels_last_where_the_input_is_whatever_the_layout_of_the_result() -> None:
    seen = []

    def contiguous_result(x: Tensor) -> Tensor:
        y = x.contiguous()
        y.register_hook(lambda grad: seen.append(grad.is_contiguous(memory_format=torch.channels_last)))
        return y

    x = torch.ones(1, 2, 3, 4).contiguous(memory_format=torch.channels_last)
    harness.timed_call(contiguous_result, [x], "forward_backward")()
    assert seen == [True]


def test_so_it_comes_to_the_activation_of_an_eager_channels_last_network() -> None:
    """Which holds although eager's instance norm makes a contiguous activation of a channels_last input."""
    layers = [nn.Conv2d(4, 8, 3), nn.InstanceNorm2d(8), nn.LeakyReLU(0.2), nn.Conv2d(8, 8, 3)]
    network = nn.Sequential(*layers).to(memory_format=torch.channels_last)
    activation = network[:3](torch.randn(1, 4, 16, 16).contiguous(memory_format=torch.channels_last))
    (gradient,) = torch.autograd.grad(network[3](activation).square().sum(), activation)
    assert activation.is_contiguous()
    assert gradient.is_contiguous(memory_format=torch.channels_last)


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match=r"mode must be forward.*got 'sideways'"):
        harness.timed_call(torch.exp, [torch.ones(2)], "sideways")


# --- keeping ---------------------------------------------------------------------------------------------


def test_on_a_gpu_ours_is_measured_by_the_triton_kernels_as_well() -> None:
    chosen: list[str] = []

    def prepare(mode: str) -> Callable[[], object]:
        return lambda: chosen.append(f"{mode} {_dispatch._requested}")

    providers = [harness.Provider("eager", prepare), harness.Provider("native", prepare, "channels_last")]
    both = harness.with_both_kernels(providers)
    assert [(each.name, each.layout) for each in both] == [
        ("eager", "contiguous"), ("native", "channels_last"), ("triton", "channels_last"),
    ]  # fmt: skip
    for provider in both:
        provider.prepare("forward")()
    assert chosen == ["forward None", "forward native", "forward triton"]


def test_without_a_gpu_the_device_cuda_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device cuda was asked for, but this torch sees no CUDA device"):
        machine.gpu_name()


def test_rows_are_appended_below_those_that_are_there(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "cpu.csv"
    results.append_rows(path, [ROW])
    before = path.read_bytes()
    results.append_rows(path, [replace(ROW, provider="eager"), replace(ROW, provider="compile")])
    assert path.read_bytes().startswith(before)
    rows = list(csv.DictReader(path.open()))
    assert [row["provider"] for row in rows] == ["native", "eager", "compile"]
    assert rows[0]["median_ms"] == "1.5"
    assert rows[0]["device"] == "Some CPU, 2 threads"


def test_the_header_is_written_once(tmp_path: Path) -> None:
    path = tmp_path / "cpu.csv"
    for _ in range(3):
        results.append_rows(path, [ROW])
    assert path.read_text().count("median_ms") == 1
    assert path.read_text().splitlines()[0] == ",".join(results.FIELDS)


def test_a_file_with_other_columns_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "cpu.csv"
    path.write_text("date,op\n2025,old\n")
    with pytest.raises(ValueError, match=re.escape(f"{path} must have the columns date,commit,") + ".*got date,op"):
        results.append_rows(path, [ROW])
    assert path.read_text() == "date,op\n2025,old\n"


def test_rows_that_cannot_be_written_leave_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "cpu.csv"
    results.append_rows(path, [ROW])
    before = path.read_bytes()

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torchp2p.files.os.replace", full_disk)
    with pytest.raises(OSError, match="No space left"):
        results.append_rows(path, [ROW])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


# --- the machine -----------------------------------------------------------------------------------------


def test_a_device_name_becomes_a_file_name() -> None:
    assert machine.slug("Intel(R) Xeon(R) @ 2.20GHz, 2 threads") == "intel-r-xeon-r-2-20ghz-2-threads"
    assert machine.slug(machine.processor_name())


def test_the_commit_is_unknown_without_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert machine.commit() == "unknown"


def test_an_unknown_allocator_is_refused() -> None:
    with pytest.raises(ValueError, match="allocator must be one of default, keep, got 'jemalloc'"):
        machine.use_allocator("jemalloc")


# --- a whole session -------------------------------------------------------------------------------------


def session_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> harness.Session:
    monkeypatch.setattr(harness, "BANDWIDTH_BYTES", 2**16)
    monkeypatch.setattr(harness, "PEAK_SIDE", 16)
    options = argparse.Namespace(quick=True, device="cpu", threads=2, allocator="default", results=folder)
    return harness.Session(options)


def test_a_session_keeps_every_provider_and_the_bandwidth_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = session_in(tmp_path, monkeypatch)
    case = harness.Case("op", "config", "float32", "1x2", {"forward": 10**6})
    providers = [harness.Provider(name, lambda mode: lambda: None) for name in ("eager", "native")]
    session.run(case, providers, ["forward"])
    session.save()
    (path,) = tmp_path.glob("*-2-threads.csv")
    rows = list(csv.DictReader(path.open()))
    assert [(row["op"], row["provider"]) for row in rows] == [
        ("memory", "copy"),
        ("memory", "read"),
        ("peak", "matmul"),
        ("peak", "matmul"),
        ("op", "eager"),
        ("op", "native"),
    ]
    ours = rows[-1]
    assert float(ours["gb_per_s"]) == pytest.approx(1 / float(ours["median_ms"]), rel=1e-4)  # 10^6 bytes
    assert (ours["torch"], ours["threads"], ours["rounds"]) == (torch.__version__, "2", "5")
    assert re.fullmatch(r"unknown|[0-9a-f]{7,}(-dirty)?", ours["commit"])


def test_a_mode_without_stated_traffic_has_no_bandwidth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = session_in(tmp_path, monkeypatch)
    case = harness.Case("op", "", "float32", "1", {})
    session.run(case, [harness.Provider("eager", lambda mode: lambda: None)], ["forward_grad"])
    assert math.isnan(session.rows[-1].gb_per_s)


def test_the_overhead_benchmark_runs_from_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(harness, "BANDWIDTH_BYTES", 2**16)
    monkeypatch.setattr(harness, "PEAK_SIDE", 16)
    bench_overhead.main(["--quick", "--results", str(tmp_path)])
    (path,) = tmp_path.glob("*-1-thread.csv")
    rows = list(csv.DictReader(path.open()))
    assert len(rows) == 4 + 3 * 3 * 2
    assert "norm_act instance leaky_relu forward_backward" in capsys.readouterr().out
