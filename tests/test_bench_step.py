"""The benchmark of whole steps: all providers take the same step, each in a process whose end ends no other."""

from __future__ import annotations

import csv
import dataclasses
import math
from pathlib import Path

import pytest
import torch

from benchmarks import bench_step
from benchmarks.step import compare as comparing
from benchmarks.step import options, worker
from benchmarks.step.breakdown import OPTIMISER, breakdown, kind_of
from benchmarks.step.compare import Plan, compare
from benchmarks.step.providers import PROVIDERS, Provider, ablations, against
from benchmarks.step.rows import DONE, StepRow
from benchmarks.step.training import Case, training
from benchmarks.step.worker import Failed, Memory, WarmUp, errors
from torchp2p.cli.parsing import UsageError
from torchp2p.train import Lean

TINY = {"ngf": 2, "ndf": 2}
TINY_HD = {**TINY, "n_downsample_global": 2, "n_blocks_global": 1, "n_blocks_local": 1, "label_nc": 4, "nef": 2}
PIX2PIX = Case("demo", (128, 128), 1, changes={**TINY, "no_dropout": True})
CASES = {
    "pix2pix": PIX2PIX,
    "pix2pixHD": Case("pix2pixhd-512p", (32, 64), 1, changes=TINY_HD),
    "with features": Case("pix2pixhd-512p-feat", (32, 64), 1, changes={**TINY_HD, "n_downsample_E": 2}),
    "local": Case("pix2pixhd-1024p", (64, 128), 1, changes=TINY_HD),
    "features precomputed": Case("pix2pixhd-1024p-feat", (64, 128), 1, changes=TINY_HD),
}
PLAIN = Provider("reference", allocator="keep")
OURS = Provider("torchp2p", ours=True, allocator="keep")


# --- what a provider does --------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_ours_and_the_reference_take_the_same_step_from_the_same_weights(case: Case) -> None:
    ours, plain = (training(case, provider) for provider in (OURS, PLAIN))
    before = [parameter.detach().clone() for parameter in plain.G.parameters()]
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(ours.G.parameters(), before, strict=True))
    mine, theirs = ours.step(), plain.step()
    assert set(mine) == set(theirs)
    for name, value in theirs.items():
        torch.testing.assert_close(mine[name], value, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize(
    "provider",
    [provider for provider in PROVIDERS.values() if provider.compile_mode is None and provider.allocator == "keep"],
    ids=lambda provider: provider.name,
)
def test_every_eager_provider_has_nearly_the_losses_of_the_reference(provider: Provider) -> None:
    bound = 0.05 if provider.precision == "bfloat16" else 1e-4
    found, theirs = (training(CASES["pix2pixHD"], each).step() for each in (provider, PLAIN))
    for name, value in theirs.items():
        assert found[name].dtype == torch.float32
        torch.testing.assert_close(found[name], value, rtol=bound, atol=bound)


def test_a_provider_that_compiles_says_so_to_every_network(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda net, mode, dynamic: asked.append(f"{type(net).__name__} {mode}")
    )
    training(CASES["pix2pixHD"], PROVIDERS["compile_max"])
    assert asked == ["PlainGlobal max-autotune-no-cudagraphs", "PlainMultiscale max-autotune-no-cudagraphs"]


def test_the_adam_of_the_reference_is_made_as_the_originals_make_it() -> None:
    of_plain, of_ours, unfused = (
        training(PIX2PIX, provider).optimizers[0].param_groups[0]["fused"]
        for provider in (PLAIN, OURS, dataclasses.replace(OURS, fused_adam=False))
    )
    assert (of_plain, of_ours, unfused) == (None, True, False)


def test_adam_keeps_two_numbers_for_every_weight() -> None:
    made = training(PIX2PIX, OURS)
    assert made.state_bytes == 0
    made.step()
    weights = sum(
        p.numel() for optimizer in made.optimizers for group in optimizer.param_groups for p in group["params"]
    )
    assert 8 * weights <= made.state_bytes < 8.1 * weights


# --- who takes part ---------------------------------------------------------------------------------------------


def test_torchp2p_takes_part_in_both_precisions_whoever_else_does() -> None:
    found = [provider.name for provider in against("channels_last,reference")]
    assert found == ["channels_last", "reference", "torchp2p", "torchp2p_bfloat16"]


def test_torchp2p_with_all_its_switches_for_memory_takes_part_where_it_is_named() -> None:
    found = [provider.name for provider in against("reference,torchp2p_small_bfloat16")]
    assert found == ["reference", "torchp2p_small_bfloat16", "torchp2p", "torchp2p_bfloat16"]
    small = PROVIDERS["torchp2p_small_bfloat16"]
    assert (small.precision, small.lean) == ("bfloat16", Lean(recompute=True, bf16_state=True))


def test_an_unknown_provider_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UsageError, match=r"--against must be of reference, .*'referense'; did you mean 'reference'"):
        against("referense")


def test_every_switch_of_the_lean_step_is_ablated() -> None:
    found = {provider.name: provider for provider in ablations("bfloat16", "cpu")}
    for switch in dataclasses.fields(Lean):
        if isinstance(switch.default, bool):
            name = f"{'without' if switch.default else 'with'} {switch.name}"
            assert getattr(found[name].lean, switch.name) is not switch.default
            assert dataclasses.replace(found[name].lean, **{switch.name: switch.default}) == Lean()
    assert {provider.precision for provider in found.values()} == {"bfloat16"}
    assert next(iter(found)) == "torchp2p_bfloat16"


def test_ablations_are_of_the_algorithm_the_backend_the_allocator_and_adam_too() -> None:
    on_cpu, on_cuda = ({each.name for each in ablations("float32", device)} for device in ("cpu", "cuda"))
    assert on_cpu & on_cuda >= {"algorithm vendor", "backend reference", "without fused Adam"}
    assert on_cpu - on_cuda == {"allocator default", "with channels_last"}
    assert on_cuda - on_cpu == {"without cuda_graph", "without channels_last"}


# --- the comparison ---------------------------------------------------------------------------------------------


SECONDS = {"A": 4.0, "B": 2.0, "C": 1.0, "D": 8.0}


class Theatre:
    """Processes that only act: what each was told, in order, and seconds that are theirs."""

    def __init__(self) -> None:
        self.history: list[str] = []
        self.alive: set[str] = set()
        self.most_alive = 0

    def process(self, case: Case, provider: Provider, limit: float) -> Actor:
        if provider.name == "stillborn":
            raise Failed("needs more than 1 GB")
        return Actor(self, provider.name)


class Actor:
    def __init__(self, theatre: Theatre, name: str) -> None:
        self.theatre, self.name = theatre, name
        theatre.alive.add(name)
        theatre.most_alive = max(theatre.most_alive, len(theatre.alive))

    def call(self, command: str, *arguments: object) -> object:
        self.theatre.history.append(f"{self.name} {command}")
        if self.name == "mortal" and command == "step":
            raise Failed("its process ended with status -9")
        seconds = SECONDS.get(self.name, 1.0)
        return {
            "warm_up": WarmUp((9.0, seconds), {"G_GAN": seconds}, 0.5, 0.25, self.name != "C"),
            "step": seconds,
            "memory": Memory(3, 1),
            "breakdown": {"convolution": 1.0},
        }[command]

    def close(self) -> None:
        self.theatre.alive.discard(self.name)


@pytest.fixture
def theatre(monkeypatch: pytest.MonkeyPatch) -> Theatre:
    made = Theatre()
    monkeypatch.setattr(comparing, "Process", made.process)
    return made


def played(theatre: Theatre, names: str, **changes: object) -> dict[str, comparing.Found]:
    plan = dataclasses.replace(Plan(rounds=2, warm_up=2, together=9, limit=1.0), **changes)
    found = compare(PIX2PIX, [Provider(name) for name in names.split()], plan)
    assert not theatre.alive
    return {each.provider.name: each for each in found}


def test_providers_take_their_steps_in_turn(theatre: Theatre) -> None:
    played(theatre, "A B C")
    assert [line for line in theatre.history if line.endswith("step")] == ["A step", "B step", "C step"] * 2


def test_the_base_steps_in_the_rounds_of_every_group(theatre: Theatre) -> None:
    found = played(theatre, "A B C D", together=3)
    assert theatre.most_alive == 3
    assert len(found["A"].seconds) == 4
    assert found["D"].of_base == [4.0, 4.0]


def test_with_one_at_a_time_every_process_is_alone_beside_the_rounds_that_the_base_took(theatre: Theatre) -> None:
    found = played(theatre, "A B stillborn D", together=1)
    assert theatre.most_alive == 1
    assert (found["D"].seconds, found["D"].of_base) == ([8.0, 8.0], [4.0, 4.0])
    assert all(math.isnan(seconds) for seconds in played(theatre, "stillborn B", together=1)["B"].of_base)


def test_a_process_that_cannot_start_is_a_row_and_the_others_go_on(theatre: Theatre) -> None:
    found = played(theatre, "A stillborn B")
    assert found["stillborn"].failure == "needs more than 1 GB"
    assert found["B"].seconds == [2.0, 2.0]


def test_a_process_that_ends_on_the_way_is_a_row_and_the_others_go_on(theatre: Theatre) -> None:
    found = played(theatre, "A mortal B")
    assert found["mortal"].failure == "its process ended with status -9"
    assert found["B"].of_base == [4.0, 4.0]


def test_without_the_base_the_others_have_times_and_no_ratios(theatre: Theatre) -> None:
    found = played(theatre, "stillborn B")
    assert found["B"].seconds == [2.0, 2.0]
    assert all(math.isnan(seconds) for seconds in found["B"].of_base)


def test_losses_are_compared_with_the_first_of_the_same_precision(theatre: Theatre) -> None:
    assert played(theatre, "A B D")["D"].loss_error == 1.0  # 8 to 4


def test_losses_with_other_numbers_of_dropout_are_not_compared(theatre: Theatre) -> None:
    assert math.isnan(played(theatre, "A C")["C"].loss_error)
    found = played(theatre, "C A D")
    assert math.isnan(found["A"].loss_error)
    assert found["D"].loss_error == 1.0  # to A, though C is the base


def test_the_step_under_the_profiler_comes_after_the_memory_was_taken(theatre: Theatre) -> None:
    played(theatre, "A B", profile=True)
    assert theatre.history[-4:] == ["B memory", "B breakdown", "A memory", "A breakdown"]


def test_errors_of_weights_are_relative() -> None:
    ours, theirs = [torch.tensor([1.0, 2.5]), torch.zeros(2)], [torch.tensor([1.0, 2.0]), torch.tensor([0.0, 2.0])]
    largest, distance = errors(ours, theirs)
    assert largest == 1.0
    assert distance == pytest.approx((0.25 + 4.0) ** 0.5 / 3.0)


# --- where the time goes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("aten::convolution_backward", "convolution"),
        ("torchp2p::conv_norm_act_backward", "convolution"),
        ("aten::bmm", "convolution"),
        ("torchp2p::norm_act", "norm and activation"),
        ("aten::leaky_relu_backward", "norm and activation"),
        ("torchp2p::label_conv2d_backward", "labels and edges"),
        ("aten::_fused_adam_", OPTIMISER),
        ("torchp2p::gan_loss", "losses"),
        ("aten::copy_", "padding and copies"),
        ("aten::reflection_pad2d", "padding and copies"),
        ("aten::avg_pool2d", "pooling"),
        ("aten::add_", "sums and products"),
        ("mystery", "other"),
    ],
)
def test_an_operator_is_of_a_kind(name: str, kind: str) -> None:
    assert kind_of(name) == kind


def test_the_kinds_of_a_step_hold_its_optimiser_even_where_that_is_made_of_sums_and_products() -> None:
    found = breakdown(training(PIX2PIX, PLAIN).step, torch.device("cpu"))
    assert found["convolution"] > 0
    assert found[OPTIMISER] > 0


# --- processes, rows, the command ----------------------------------------------------------------------------------


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Presets with few channels; a run of the command is then a matter of seconds."""
    whole = options.Case
    monkeypatch.setattr(options, "Case", lambda *given: dataclasses.replace(whole(*given), changes=TINY))


@pytest.mark.usefixtures("tiny")
def test_the_command_keeps_a_row_for_every_provider(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = ["--preset", "demo", "--against", "reference", "--threads", "1", "--rounds", "2", "--warm_up", "2"]
    bench_step.main([*call, "--profile", "--results", str(tmp_path)])
    rows = read(tmp_path, "steps")
    assert [row["provider"] for row in rows] == ["reference", "torchp2p", "torchp2p_bfloat16"]
    reference, ours, in_bfloat16 = rows
    assert {row["outcome"] for row in rows} == {DONE}
    assert (ours["preset"], ours["size"], ours["threads"], ours["base"]) == ("demo", "128x128", "1", "reference")
    assert float(reference["times_as_fast"]) == 1.0
    assert float(ours["times_as_fast"]) > 0
    assert float(ours["loss_error"]) < 1e-4
    assert math.isnan(float(in_bfloat16["loss_error"]))  # there is no other provider in bfloat16
    assert 100 < float(ours["peak_mb"]) < 2000
    assert 0 < float(ours["step_mb"]) < float(ours["peak_mb"])
    assert {row["provider"] for row in read(tmp_path, "breakdown")} == {row["provider"] for row in rows}
    assert "demo 128x128, batches of 1, 1 thread" in capsys.readouterr().out


@pytest.mark.usefixtures("tiny")
def test_a_run_in_which_no_provider_finishes_is_an_error_and_keeps_its_rows(tmp_path: Path) -> None:
    call = ["--preset", "demo", "--against", "reference", "--threads", "1", "--once", "--limit", "0.05"]
    with pytest.raises(ValueError, match=r"^no provider has finished: reference: needs more than 0.05 GB; torchp2p: "):
        bench_step.main([*call, "--results", str(tmp_path)])
    assert {row["outcome"] for row in read(tmp_path, "steps")} == {"needs more than 0.05 GB"}


def read(folder: Path, kind: str) -> list[dict[str, str]]:
    (path,) = folder.glob(f"{kind}_*.csv")
    return list(csv.DictReader(path.open()))


def test_a_process_that_would_take_too_much_memory_ends_itself() -> None:
    with pytest.raises(Failed, match=r"^needs more than 0.05 GB$"):
        worker.Process(PIX2PIX, PLAIN, 0.05)


def test_a_provider_that_raises_says_what() -> None:
    case = dataclasses.replace(PIX2PIX, changes={"ngf": 0})
    with pytest.raises(Failed, match=r"^ConfigError: ngf must be at least 1, got 0$"):
        worker.Process(case, PLAIN, 8.0)


def test_rows_of_what_failed_say_why_and_hold_no_numbers() -> None:
    setting = bench_step.Setting("against", "chip", [PLAIN], Plan(2, 2, 2, 1.0), bench_step.Console())
    failed = comparing.Found(PLAIN, failure="needs more than 1 GB")
    row = bench_step.step_row(PIX2PIX, setting, failed, failed)
    assert row.outcome == "needs more than 1 GB"
    assert all(math.isnan(getattr(row, name)) for name in ("median_ms", "times_as_fast", "peak_mb", "weight_error"))
    assert {field.name for field in dataclasses.fields(StepRow)} >= {"date", "commit", "device", "torch"}
