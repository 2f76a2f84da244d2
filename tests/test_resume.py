"""A training that was stopped, by whatever, goes on as if it had never been: every tensor to the last bit."""

from __future__ import annotations

import dataclasses
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import (
    PAIRS,
    STEPS,
    Stopped,
    differences,
    files_of,
    flags,
    read_state,
    run_training,
    start,
    stop_in_step,
)

from torchp2p.cli.main import main
from torchp2p.models import load_config
from torchp2p.train import CheckpointError, TrainConfig
from torchp2p.train.trainer import run_folder

INTERRUPT = Path(__file__).with_name("train_and_interrupt.py")
NETWORKS = ("latest_net_G.pth", "latest_net_D.pth")


def run_interrupted(config: TrainConfig, step: int, what: str) -> tuple[int, str]:
    """Train in another process, to which ``what`` happens after ``step``; its exit status and its stderr."""
    process = start(str(INTERRUPT), str(step), what, "train", *flags(config), cwd=config.checkpoints_dir)
    _, errors = process.communicate(timeout=120)
    return process.returncode, errors


@pytest.fixture
def checkpoints(config: TrainConfig) -> Path:
    """An empty folder of checkpoints, from where the other processes start."""
    folder = Path(config.checkpoints_dir)
    folder.mkdir()
    return folder


# --- to the very same state ------------------------------------------------------------------------------------------


RESUMES = {
    "mid-epoch": (9, 13, {"save_latest_freq": 9}),
    "mid-epoch, reading in workers": (9, 13, {"save_latest_freq": 9, "num_threads": 2}),
    "with the last batch of an epoch": (12, 15, {"save_latest_freq": 12}),
    "after an epoch, reading in workers": (12, 15, {"save_epoch_freq": 2, "num_threads": 2}),
}
"""The step of the save, the step of the kill, and what makes the difference."""


@pytest.mark.parametrize(("saved", "killed", "changes"), RESUMES.values(), ids=RESUMES.keys())
@pytest.mark.usefixtures("checkpoints")
def test_a_training_killed_after_a_save_resumes_to_the_very_state_of_one_that_was_not(
    config: TrainConfig, straight: Path, saved: int, killed: int, changes: dict[str, Any]
) -> None:
    config = dataclasses.replace(config, **changes)
    status, _ = run_interrupted(config, killed, "SIGKILL")
    assert status == -signal.SIGKILL
    assert read_state(run_folder(config))["progress"]["step"] == saved
    assert run_training(config, resume=True).progress.step == STEPS
    assert differences(read_state(run_folder(config)), read_state(straight)) == []


@pytest.mark.usefixtures("checkpoints")
def test_a_training_killed_while_it_saves_resumes_from_the_save_before(config: TrainConfig, straight: Path) -> None:
    config = dataclasses.replace(config, save_latest_freq=5)
    status, _ = run_interrupted(config, 8, "killed-while-saving")
    folder = run_folder(config)
    assert status == -signal.SIGKILL
    assert read_state(folder)["progress"]["step"] == 5
    assert list(folder.glob(".*.pth")), "nothing half-written was left behind, so nothing was tested"
    run_training(config, resume=True)
    assert differences(read_state(folder), read_state(straight)) == []
    assert not list(folder.glob(".*.pth")), "the half-written file is still there"


@pytest.mark.parametrize(("name", "status", "workers"), [("SIGINT", 130, 2), ("SIGTERM", 143, 0)])
@pytest.mark.usefixtures("checkpoints")
def test_a_signal_saves_first_exits_with_its_number_and_the_training_resumes_to_the_same_state(
    config: TrainConfig, straight: Path, name: str, status: int, workers: int
) -> None:
    config = dataclasses.replace(config, num_threads=workers)
    code, errors = run_interrupted(config, 10, name)
    assert code == status
    assert "error" not in errors
    assert read_state(run_folder(config))["progress"]["step"] == 10
    assert main(["train", "--resume", f"--name={config.name}", f"--checkpoints_dir={config.checkpoints_dir}"]) == 0
    assert differences(read_state(run_folder(config)), read_state(straight)) == []


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT raises, as in a terminal; a process in the background of a shell ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_a_second_signal_does_not_wait_for_the_end_of_the_step(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt_twice(*_: object) -> None:
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("torchp2p.train.pix2pix_recipe.Pix2PixStep.__call__", interrupt_twice)
    with pytest.raises(KeyboardInterrupt):
        run_training(config)


def test_the_signals_are_left_as_they_were(config: TrainConfig) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    run_training(dataclasses.replace(config, max_minutes=1e-9))
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize("options", [{"gan_mode": "wgangp", "norm": "instance"}, {"use_GAN": False}, {"batch_size": 4}])
def test_every_kind_of_training_resumes_to_the_same_state(
    config: TrainConfig, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = dataclasses.replace(config, name="whole", **options)
    run_training(whole)
    config = dataclasses.replace(config, save_latest_freq=5, **options)
    stop_in_step(7, monkeypatch)
    with pytest.raises(Stopped):
        run_training(config)
    monkeypatch.undo()
    assert read_state(run_folder(config))["progress"]["step"] == 5
    run_training(config, resume=True)
    assert differences(read_state(run_folder(config)), read_state(run_folder(whole))) == []


def test_max_minutes_stops_with_everything_saved_and_the_training_resumes_to_the_same_state(
    config: TrainConfig, straight: Path
) -> None:
    outcome = run_training(dataclasses.replace(config, max_minutes=1e-9))
    assert (outcome.stopped_by, outcome.progress.step) == ("max_minutes", 1)
    again = run_training(dataclasses.replace(config, max_minutes=60.0), resume=True)
    assert (again.stopped_by, again.progress.step) == ("", STEPS)
    assert differences(read_state(again.folder), read_state(straight)) == []


def test_a_finished_training_can_be_given_more_epochs(config: TrainConfig) -> None:
    short = dataclasses.replace(config, n_epochs=1, n_epochs_decay=0, lr_policy="constant")
    run_training(short)
    longer = dataclasses.replace(short, n_epochs=3)
    assert run_training(longer, resume=True).progress.step == 3 * PAIRS
    rows = read_state(run_folder(longer))["progress"]["history"]
    assert [row["step"] for row in rows] == list(range(1, 3 * PAIRS + 1))


def test_a_finished_training_that_is_resumed_is_finished(config: TrainConfig) -> None:
    folder = run_training(config).folder
    before = read_state(folder)
    assert run_training(config, resume=True).progress.step == STEPS
    assert differences(read_state(folder), before) == []


def test_a_training_that_died_before_its_first_save_starts_anew(
    config: TrainConfig, straight: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_in_step(3, monkeypatch)
    with pytest.raises(Stopped):
        run_training(config)
    monkeypatch.undo()
    run_training(config)
    assert differences(read_state(run_folder(config)), read_state(straight)) == []


def test_a_training_on_a_gpu_goes_on_where_there_is_none(config: TrainConfig, straight: Path) -> None:
    folder = run_training(dataclasses.replace(config, max_minutes=1e-9)).folder
    state = read_state(folder)
    state["config"] |= {"device": "cuda", "max_minutes": None}
    torch.save(state, folder / "latest_state.pth")
    again = ["--resume", f"--name={config.name}", f"--checkpoints_dir={config.checkpoints_dir}", "--device=cpu"]
    assert main(["train", *again]) == 0
    assert differences(read_state(folder), read_state(straight)) == []


def test_the_stills_after_a_resume_are_those_of_a_training_that_was_not_stopped(
    config: TrainConfig, straight: Path
) -> None:
    run_training(dataclasses.replace(config, max_minutes=1e-9))
    folder = run_training(config, resume=True).folder
    for path in (straight / "web" / "stills").iterdir():
        assert (folder / "web" / "stills" / path.name).read_bytes() == path.read_bytes()


def test_after_a_kill_tensorboard_shows_every_step_once(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    config = dataclasses.replace(config, save_latest_freq=5)
    stop_in_step(9, monkeypatch)
    with pytest.raises(Stopped):
        run_training(config)
    monkeypatch.undo()
    folder = run_training(config, resume=True).folder
    board = event_accumulator.EventAccumulator(str(folder))
    board.Reload()
    assert [event.step for event in board.Scalars("lr")] == list(range(1, STEPS + 1))


def test_files_that_were_checked_are_not_decoded_again_on_resume(config: TrainConfig) -> None:
    config = dataclasses.replace(config, max_minutes=1e-9)
    stamp = run_training(config).folder / "dataset_check.json"
    assert len(json.loads(stamp.read_text())["files"]) == PAIRS
    before = stamp.stat().st_mtime_ns
    run_training(config, resume=True)
    assert stamp.stat().st_mtime_ns == before


# --- what cannot go on ----------------------------------------------------------------------------------------------


def test_options_that_would_make_it_another_training_are_named_on_resume(straight: Path) -> None:
    before = files_of(straight)
    stored = TrainConfig.from_mapping(load_config(straight / "latest_net_G.pth"))
    with pytest.raises(CheckpointError, match=r"cannot go on with ngf: 4, not 8; lr: 0\.0002, not 0\.1$"):
        run_training(dataclasses.replace(stored, ngf=8, lr=0.1), resume=True)
    assert files_of(straight) == before


def test_there_must_be_something_to_resume(config: TrainConfig) -> None:
    with pytest.raises(CheckpointError, match=r"^there is nothing to resume: .*latest_state\.pth does not exist$"):
        run_training(config, resume=True)
    assert not Path(config.checkpoints_dir).exists()


DAMAGE = {
    "empty": lambda _content: b"",
    "truncated": lambda content: content[: len(content) // 2],
    "something else": lambda _content: b"no zip file at all",
    "a byte overwritten": lambda content: content[:200] + b"\xff" * 64 + content[264:],
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_state_is_refused_in_one_sentence_and_nothing_is_written(
    config: TrainConfig, straight: Path, damage: Any
) -> None:
    folder = run_folder(config)
    folder.mkdir(parents=True)
    (folder / "latest_state.pth").write_bytes(damage((straight / "latest_state.pth").read_bytes()))
    before = files_of(folder)
    with pytest.raises(CheckpointError, match=r"latest_state\.pth (is damaged|carries pickled)"):
        run_training(config, resume=True)
    assert files_of(folder) == before


@pytest.mark.parametrize("content", [{"G": {}}, {"format": 99}, [1, 2]], ids=str)
def test_a_state_of_another_version_is_refused(config: TrainConfig, content: Any) -> None:
    folder = run_folder(config)
    folder.mkdir(parents=True)
    torch.save(content, folder / "latest_state.pth")
    with pytest.raises(CheckpointError, match="is not a training state of this version of torchp2p"):
        run_training(config, resume=True)


def test_a_full_disk_ends_the_training_in_one_sentence_and_the_save_before_survives(
    config: TrainConfig, checkpoints: Path, straight: Path
) -> None:
    config = dataclasses.replace(config, max_minutes=1e-9, display_freq=1000)
    run_training(config)
    folder = run_folder(config)
    before = {name: (folder / name).read_bytes() for name in ("latest_state.pth", *NETWORKS)}
    again = [f"--checkpoints_dir={checkpoints}", f"--name={config.name}", "--max_minutes=9", "--save_latest_freq=5"]
    process = start(str(INTERRUPT), "2", "full-disk", "train", "--resume", *again, cwd=checkpoints)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert errors.splitlines()[-1] == f"torchp2p train: error: File too large: {folder / 'latest_state.pth'}"
    assert "Traceback" not in errors
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert not list(folder.glob(".*.pth")), "half a file was left behind"
    run_training(dataclasses.replace(config, max_minutes=None), resume=True)
    assert differences(read_state(folder), read_state(straight)) == []
