"""How the benchmarks are called: what options mean, and what is said of those that cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import bench_gan_loss, bench_step, harness, machine
from benchmarks.step import compare as comparing
from benchmarks.step import options
from torchp2p.cli.main import main


def test_scaling_is_every_size_on_one_thread_and_on_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    found = options.cases(options.parsed(["--preset", "pix2pixhd-512p", "--scale"]), None)
    assert [(case.size, case.threads) for case in found[:3]] == [((256, 256), 1), ((256, 256), 4), ((256, 512), 1)]
    assert found[-1].size == (1024, 2048)


@pytest.mark.parametrize(
    ("name", "size"), [("pix2pix", (256, 256)), ("demo", (128, 128)), ("pix2pixhd-1024p", (1024, 2048))]
)
def test_a_preset_has_a_size_of_its_own(name: str, size: tuple[int, int]) -> None:
    (case,) = options.cases(options.parsed(["--preset", name, "--threads", "2"]), None)
    assert (case.size, case.threads) == (size, 2)


@pytest.mark.parametrize(
    ("call", "rounds", "warm_up", "together"),
    [([], 7, 10, 3), (["--quick"], 3, 5, 3), (["--once"], 1, 1, 1), (["--quick", "--rounds", "9"], 9, 5, 3)],
)
def test_how_long_to_measure(call: list[str], rounds: int, warm_up: int, together: int) -> None:
    plan = options.plan(options.parsed(call))
    assert (plan.rounds, plan.warm_up, plan.together) == (rounds, warm_up, together)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (["--size", "100x100"], "--size must be of multiples of 256 with pix2pix, got 100x100"),
        (["--size", "big"], "--size must be HEIGHTxWIDTH in pixels, such as 256x512, got 'big'"),
        (["--threads", "0"], "--threads must be whole numbers from 1, with commas, got '0'"),
        (["--rounds", "0"], "--rounds must be more than 0, got 0"),
        (["--device", "tpu"], "--device must be one of cpu, cuda, got 'tpu'"),
        (["--ablate", "--against", "compile"], "--ablate and --against must not both be given"),
        (["--vgg", "random"], "--vgg is for presets of pix2pixHD, got pix2pix"),
        (["--presets", "demo"], "--presets is not an option; did you mean '--preset'?"),
        (["--preset", "nix"], "preset must be one of pix2pix, "),
        (["--size", "axb"], "--size must be HEIGHTxWIDTH in pixels, such as 256x512, got 'axb'"),
        (["--size", "0x0"], "--size must be HEIGHTxWIDTH in pixels, such as 256x512, got '0x0'"),
        (["--against", "referense"], "--against must be of reference, "),
        (["--rounds", "-1"], "--rounds must be more than 0, got -1"),
        (["--rounds", "many"], "rounds must be a whole number, got 'many'"),
        (["--warm_up", "0"], "--warm_up must be more than 0, got 0"),
        (["--together", "0"], "--together must be more than 0, got 0"),
        (["--limit", "-1"], "--limit must be more than 0, got -1.0"),
        (["--limit", "nan"], "limit must be a number, got 'nan'"),
        (["--threads", "x"], "--threads must be whole numbers from 1, with commas, got 'x'"),
        (["--precision", "float16"], "--precision must be one of float32, bfloat16, got 'float16'"),
    ],
)
def test_a_wrong_call_is_one_sentence(call: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "step", *call]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"torchp2p bench: error: {sentence}")
    assert said.count("\n") == 1


@pytest.fixture
def nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(*_arguments: object, **_options: object) -> None:
        raise AssertionError("something was measured")

    monkeypatch.setattr(comparing, "Process", measured)
    monkeypatch.setattr(harness, "measure", measured)


BENCHES = pytest.mark.parametrize("bench", [bench_step, bench_gan_loss], ids=["steps", "an op"])


@BENCHES
@pytest.mark.usefixtures("nothing_is_measured")
def test_a_folder_that_cannot_take_the_rows_is_said_before_anything_is_measured(bench: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError, match="the folder of the rows cannot be written to: ") as caught:
            bench.main(["--results", str(folder)])
        assert caught.value.filename == str(folder)
    assert (tmp_path / "file").read_text() == "mine"


@BENCHES
@pytest.mark.usefixtures("nothing_is_measured")
def test_rows_with_other_columns_are_found_before_anything_is_measured(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "processor_name", lambda: "chip")
    for name in ("steps_chip", "chip-1-thread"):
        (tmp_path / f"{name}.csv").write_text("date,op\n2025,old\n")
    with pytest.raises(ValueError, match=r"\.csv must have the columns date,commit,.*got date,op"):
        bench.main(["--threads", "1", "--results", str(tmp_path)])


@pytest.mark.usefixtures("nothing_is_measured")
def test_weights_that_are_not_there_are_said_before_anything_is_measured(tmp_path: Path) -> None:
    call = ["--preset", "pix2pixhd-512p", "--vgg", str(tmp_path / "vgg19.pth"), "--results", str(tmp_path)]
    with pytest.raises(FileNotFoundError, match=r"vgg19\.pth does not exist"):
        bench_step.main(call)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", ["0", "-1", "x"])
def test_a_number_of_threads_that_is_none_is_one_sentence(number: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "ops", "gan_loss", "--threads", number]) == 2
    said = capsys.readouterr().err
    assert said == f"torchp2p bench: error: argument --threads: must be a whole number from 1, got '{number}'\n"


def test_cuda_without_a_gpu_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for kind in (["step"], ["ops", "gan_loss"]):
        assert main(["bench", *kind, "--device", "cuda"]) == 1
        said = capsys.readouterr().err
        assert said == "torchp2p bench: error: device cuda was asked for, but this torch sees no CUDA device\n"


def test_what_to_measure_must_be_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "stap"]) == 2
    assert "must be step or ops, got 'stap'; did you mean 'step'?" in capsys.readouterr().err
    assert main(["bench", "ops", "gan_los"]) == 2
    assert "got 'gan_los'; did you mean 'gan_loss'?" in capsys.readouterr().err


def test_installed_benchmarks_keep_their_rows_in_the_current_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.results_folder().name == "results"
    monkeypatch.setattr(machine, "__file__", "/somewhere/torchp2p/benchmarks/machine.py")
    assert machine.results_folder() == Path("benchmark_results")


def test_the_help_of_ops_names_them_and_the_options_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "ops", "--help"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("usage: torchp2p bench ops [NAME ...] [-h] [--quick]")
    assert "norm_act" in said
    assert "--results FOLDER" in said
