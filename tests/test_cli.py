"""The command line: what each command does. What is wrong with a call: test_cli_errors.py."""

from __future__ import annotations

import importlib.metadata
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from cli_workshop import TRAIN, picture
from tiny_training import draw_pair, files_of, save, start

from torchp2p.cli import doctor
from torchp2p.cli.main import COMMANDS, main
from torchp2p.models import load_config
from torchp2p.train import PRESETS, HDTrainConfig, RunConfig, TrainConfig, preset
from torchp2p.train.estimate import Estimate, Phase
from torchp2p.train.presets import MODELS
from torchp2p.train.probe import Cost


@pytest.fixture(autouse=True)
def _no_step_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dry run names stages and options here; what they take: test_estimate.py."""
    found = Estimate((8, 8), (Phase("", 1, Cost(1, 1.0)),), ((8, 8),), None)
    monkeypatch.setattr("torchp2p.cli.estimate.estimate", lambda *arguments, **options: found)


# --- in processes of their own ---------------------------------------------------------------------------------


def test_the_installed_command_trains_and_says_where_the_gallery_is(here: Path) -> None:
    process = start("-m", "torchp2p.cli.main", "train", *TRAIN)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "error" not in errors
    losses, *_, gallery = output.splitlines()
    assert losses.startswith("(epoch: 1, iters: 1,")
    assert gallery == f"gallery: {here / 'checkpoints/new/web/index.html'}"


def test_the_installed_command_fails_with_one_sentence(there: Path) -> None:
    process = start("-m", "torchp2p.cli.main", "translate", "missing")
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert output == ""
    assert errors == "torchp2p translate: error: weights file missing does not exist\n"


def test_the_script_torchp2p_is_this_command() -> None:
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="torchp2p")
    assert script.load() is main


# --- help -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", [[], ["--help"], ["-h"]])
def test_without_a_command_all_commands_are_listed(call: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(call) == 0
    usage = capsys.readouterr().out
    assert all(f"  {command} " in usage for command in COMMANDS)


@pytest.mark.parametrize(
    "call", [[command] for command in COMMANDS] + [["data", sub] for sub in ("pairs", "cityscapes", "check", "demo")]
)
def test_every_command_has_help(call: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = main([*call, "--help"])
    except SystemExit as leaving:
        status = leaving.code
    assert status in (0, None)
    assert capsys.readouterr().out.startswith(f"usage: torchp2p {' '.join(call)}")


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"torchp2p {importlib.metadata.version('torchp2p')}\n"


# --- train: where an option comes from --------------------------------------------------------------------------


def resolved(capsys: pytest.CaptureFixture[str], *arguments: str) -> RunConfig:
    """What ``train`` would train with."""
    assert main(["train", *arguments, "--dry_run"]) == 0
    values = yaml.safe_load(capsys.readouterr().out)
    return MODELS[values.pop("model")].from_mapping(values)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_alone_is_what_it_says(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    without = {"no_vgg_loss": True} if name.startswith("pix2pixhd") else {}
    assert resolved(capsys, f"--preset={name}", *(f"--{field}" for field in without)) == preset(name, **without)


def test_a_model_without_a_preset_has_its_own_options(capsys: pytest.CaptureFixture[str]) -> None:
    found = resolved(capsys, "--model=pix2pixHD", "--no_vgg_loss", "--num_D=3")
    assert found == HDTrainConfig(no_vgg_loss=True, num_D=3)


def test_the_dry_run_of_coarse_to_fine_names_its_stages(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--preset=pix2pixhd-1024p", "--no_vgg_loss", "--dry_run"]) == 0
    stages = [line for line in capsys.readouterr().out.splitlines() if line.startswith("# stage")]
    assert len(stages) == 2
    assert "stage 1 of 2: global generator; 200 epochs in checkpoints/label2city_1024p_global" in stages[0]
    assert "enhancer alone for 10 epochs, then all jointly; 100 epochs in checkpoints/label2city_1024p" in stages[1]


def test_the_options_printed_by_dry_run_are_a_file_for_config(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--preset=colorization", "--lr=3e-5", "--max_minutes=1.5", "--no_flip", "--name=true", "--seed=7"]
    assert main(["train", *arguments, "--dry_run"]) == 0
    printed = capsys.readouterr().out
    (tmp_path / "options.yaml").write_text(printed)
    assert main(["train", f"--config={tmp_path / 'options.yaml'}", "--dry_run"]) == 0
    assert capsys.readouterr().out == printed
    assert yaml.safe_load(printed)["lr"] == 3e-5


def test_dry_run_writes_nothing(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files_of(there)
    resolved(capsys, *TRAIN)
    assert files_of(there) == before
    assert not Path("checkpoints/new").exists()


def test_a_file_takes_precedence_over_the_preset_and_a_flag_over_both(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "options.yaml"
    file.write_text("lr: 3e-4\nn_epochs: 9\n")
    found = resolved(capsys, "--preset=demo", f"--config={file}", "--lr=0.1")
    assert (found.lr, found.n_epochs, found.ngf) == (0.1, 9, preset("demo").ngf)


def test_the_order_of_preset_file_and_flags_on_the_line_does_not_matter(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "options.yaml"
    file.write_text("lr: 3e-4\nn_epochs: 9\n")
    one = resolved(capsys, "--lr=0.1", f"--config={file}", "--preset=demo")
    assert one == resolved(capsys, "--preset=demo", f"--config={file}", "--lr=0.1")


def test_a_file_may_name_the_preset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "options.yaml"
    file.write_text("preset: demo\nlr: 0.5\n")
    assert resolved(capsys, f"--config={file}") == TrainConfig.from_mapping({"lr": 0.5}, preset("demo"))


@pytest.mark.parametrize(
    ("arguments", "no_flip", "use_GAN"),
    [
        (["--no_flip"], True, True),
        (["--no_flip", "--use_GAN", "false"], True, False),
        (["--use_GAN=false", "--no_flip", "true"], True, False),
        (["--no_flip", "false", "--use_GAN"], False, True),
        (["--no_flip", "--name", "x"], True, True),
    ],
)
def test_a_switch_may_stand_alone_or_with_its_value(
    capsys: pytest.CaptureFixture[str], arguments: list[str], no_flip: bool, use_GAN: bool
) -> None:
    found = resolved(capsys, "--preset=pix2pix", *arguments)
    assert (found.no_flip, found.use_GAN) == (no_flip, use_GAN)


def test_resume_needs_no_other_option_than_where(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = resolved(capsys, "--resume", "--name=odd")
    assert found == TrainConfig.from_mapping(load_config(Path("checkpoints/odd/latest_net_G.pth")))


def test_resume_takes_up_what_may_change(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert resolved(capsys, "--resume", "--name=odd", "--n_epochs=9", "--print_freq=2").n_epochs == 9


def test_train_says_how_it_ended_and_how_to_go_on(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *TRAIN, "--max_minutes=1e-9"]) == 0
    stopped = capsys.readouterr().out
    assert "stopped at max_minutes after 1 steps" in stopped
    assert "continue with --resume" in stopped
    assert main(["train", "--resume", "--name=new", "--max_minutes=9"]) == 0
    assert "finished after 3 steps" in capsys.readouterr().out


# --- data and doctor -------------------------------------------------------------------------------------------


def test_data_pairs_joins_two_folders_side_by_side(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for side, value in (("left", 10), ("right", 200)):
        for name in ("a", "sub/b"):
            save(np.full((8, 6, 3), value, np.uint8), here / side / f"{name}.png")
    assert main(["data", "pairs", "left", "right", "joined/train"]) == 0
    assert capsys.readouterr().out == "2 pairs written to joined/train\n"
    joined = picture(here / "joined" / "train" / "sub" / "b.png")
    assert joined.shape == (8, 12, 3)
    assert (joined[:, :6] == 10).all()
    assert (joined[:, 6:] == 200).all()


def test_data_pairs_does_not_overwrite_unless_told(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(draw_pair(36), here / "left" / "a.png")
    save(draw_pair(36), here / "right" / "a.png")
    assert main(["data", "pairs", "left", "right", "joined"]) == 0
    assert main(["data", "pairs", "left", "right", "joined", "--size=8x8"]) == 1
    assert "exist already" in capsys.readouterr().err
    assert main(["data", "pairs", "left", "right", "joined", "--size=8x8", "--overwrite"]) == 0
    assert picture(here / "joined" / "a.png").shape == (8, 16, 3)


def test_data_cityscapes_joins_colour_labels_and_photographs(here: Path) -> None:
    frame = "city_000000_000001"
    save(np.full((8, 16, 1), 7, np.uint8), here / "labels" / "city" / f"{frame}_gtFine_labelIds.png")
    save(np.full((8, 16, 3), 99, np.uint8), here / "photos" / "city" / f"{frame}_leftImg8bit.png")
    assert main(["data", "cityscapes", "labels", "photos", "joined", "--size=4x6"]) == 0
    joined = picture(here / "joined" / "city" / f"{frame}.png")
    assert joined.shape == (4, 12, 3)
    assert (joined[:, :6] == (128, 64, 128)).all(), "road is not in the colour of the palette"
    assert (joined[:, 6:] == 99).all()


def test_data_check_lists_the_damaged_files_and_fails(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", "damaged"]) == 1
    first, second, last = capsys.readouterr().out.splitlines()
    assert "damaged/train/pair1.png" in first
    assert "damaged/train/pair3.png" in second
    assert last == "5 samples, 2 problems"


def test_data_check_names_files_as_they_are(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Square brackets mean colours to the library that prints; to the user they are part of a name."""
    shutil.rmtree(here / "damaged" / "train")
    (here / "damaged" / "train").mkdir()
    (here / "damaged" / "train" / "a[red]b.png").write_bytes(b"no image")
    assert main(["data", "check", "damaged"]) == 1
    assert "damaged/train/a[red]b.png" in capsys.readouterr().out


def test_data_check_draws_a_contact_sheet(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", "data", "--sheet=sheet.png", "--count=2"]) == 0
    assert f"contact sheet: {here / 'sheet.png'}" in capsys.readouterr().out
    assert picture(here / "sheet.png").std() > 10


def test_data_demo_draws_scenes_in_the_layout_of_pix2pixhd(here: Path) -> None:
    assert main(["data", "demo", "scenes", "--count=2", "--size=32x64", "--phase=test"]) == 0
    for part in ("label", "inst", "img"):
        files = sorted((here / "scenes" / f"test_{part}").iterdir())
        assert [picture(file).shape[:2] for file in files] == [(32, 64), (32, 64)]


def test_doctor_shows_what_runs_each_op_and_why_the_others_do_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    report = capsys.readouterr().out
    for word in ("torchp2p", "torch", "CUDA", "compiled module", "TORCHP2P_BACKEND", "triton", "native"):
        assert word in report
    rows = {line.split("│")[1].strip(): line for line in report.splitlines() if line.count("│") == 7}
    for op in doctor.OPS:
        assert rows[op].split("│")[2].strip() == "native", f"{op} does not run on the native backend here"


def test_doctor_says_every_reason_once(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "why_not", lambda op, backend, *_: f"no {backend} here" if backend == "triton" else "")
    assert main(["doctor"]) == 0
    report = capsys.readouterr().out
    assert report.count("no (1)") == len(doctor.OPS)
    assert report.count("(1) no triton here\n") == 1


def test_doctor_names_the_extra_that_installs_what_is_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.metadata.version

    def without_tensorboard(package: str) -> Any:
        if package == "tensorboard":
            raise importlib.metadata.PackageNotFoundError(package)
        return found(package)

    monkeypatch.setattr("importlib.metadata.version", without_tensorboard)
    assert main(["doctor"]) == 0
    assert "not installed (pip install torchp2p[tensorboard])" in capsys.readouterr().out
