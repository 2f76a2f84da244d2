"""The trainer: what it writes, and that a stopped training goes on as if it had never been stopped."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import signal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from rich.console import Console
from tiny_training import EPOCHS, PAIRS, STEPS, draw_dataset, flags, run_training, start, tiny_config
from torch import Tensor

from torchp2p.cli.main import main
from torchp2p.data import DatasetError
from torchp2p.models import define_D, generator_from_config, load_config
from torchp2p.train import CheckpointError, TrainConfig, build_step, lr_factor, train
from torchp2p.train.trainer import run_folder

INTERRUPT = Path(__file__).with_name("train_and_interrupt.py")
NETWORKS = ("latest_net_G.pth", "latest_net_D.pth")


@pytest.fixture(autouse=True)
def _one_thread(_same_start_for_every_test: None) -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six drawn pairs for training and two for testing."""
    return draw_dataset(tmp_path_factory.mktemp("trainer") / "data")


@pytest.fixture
def config(tmp_path: Path, data: Path) -> TrainConfig:
    return tiny_config(tmp_path, dataroot=str(data))


@pytest.fixture(scope="session")
def straight(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """The folder of a training that nothing stopped."""
    whole = tiny_config(tmp_path_factory.mktemp("straight"), dataroot=str(data), save_epoch_freq=2)
    outcome = run_training(whole)
    assert (outcome.progress.step, outcome.stopped_by) == (STEPS, "")
    return outcome.folder


def read(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(folder / "latest_state.pth", weights_only=True)
    return state


def differences(one: Any, other: Any, where: str = "state") -> list[str]:
    """Where two states differ, to the last bit; the time spent and the configuration are not compared."""
    if isinstance(one, Tensor):
        same = isinstance(other, Tensor) and one.dtype == other.dtype and torch.equal(one, other)
        return [] if same else [where]
    if isinstance(one, dict) and isinstance(other, dict):
        if one.keys() != other.keys():
            return [f"{where}: {sorted(map(str, one.keys() ^ other.keys()))}"]
        skipped = ("seconds", "config")
        found = [differences(one[key], other[key], f"{where}.{key}") for key in one if key not in skipped]
        return [each for part in found for each in part]
    if isinstance(one, (list, tuple)):
        if len(one) != len(other):
            return [f"{where}: {len(one)} and {len(other)} entries"]
        found = [differences(*both, f"{where}[{index}]") for index, both in enumerate(zip(one, other, strict=True))]
        return [each for part in found for each in part]
    return [] if one == other else [f"{where}: {one!r} and {other!r}"]


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


# --- resuming --------------------------------------------------------------------------------------------


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
    assert read(run_folder(config))["progress"]["step"] == saved
    assert run_training(config, resume=True).progress.step == STEPS
    assert differences(read(run_folder(config)), read(straight)) == []


@pytest.mark.usefixtures("checkpoints")
def test_a_training_killed_while_it_saves_resumes_from_the_save_before(config: TrainConfig, straight: Path) -> None:
    config = dataclasses.replace(config, save_latest_freq=5)
    status, _ = run_interrupted(config, 8, "killed-while-saving")
    folder = run_folder(config)
    assert status == -signal.SIGKILL
    assert read(folder)["progress"]["step"] == 5
    assert list(folder.glob(".*.pth")), "nothing half-written was left behind, so nothing was tested"
    run_training(config, resume=True)
    assert differences(read(folder), read(straight)) == []
    assert not list(folder.glob(".*.pth")), "the half-written file is still there"


@pytest.mark.parametrize(("name", "status", "workers"), [("SIGINT", 130, 2), ("SIGTERM", 143, 0)])
@pytest.mark.usefixtures("checkpoints")
def test_a_signal_saves_first_exits_with_its_number_and_the_training_resumes_to_the_same_state(
    config: TrainConfig, straight: Path, name: str, status: int, workers: int
) -> None:
    config = dataclasses.replace(config, num_threads=workers)
    code, errors = run_interrupted(config, 10, name)
    assert (code, errors) == (status, "")
    assert read(run_folder(config))["progress"]["step"] == 10
    assert main(["train", "--resume", f"--name={config.name}", f"--checkpoints_dir={config.checkpoints_dir}"]) == 0
    assert differences(read(run_folder(config)), read(straight)) == []


@pytest.mark.parametrize("options", [{"gan_mode": "wgangp", "norm": "instance"}, {"use_GAN": False}, {"batch_size": 4}])
def test_every_kind_of_training_resumes_to_the_same_state(
    tmp_path: Path, data: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tiny_config(tmp_path / "whole", dataroot=str(data), **options)
    run_training(whole)
    config = tiny_config(tmp_path / "halves", dataroot=str(data), save_latest_freq=5, **options)
    stop_in_step(7, monkeypatch)
    with pytest.raises(Stopped):
        run_training(config)
    monkeypatch.undo()
    assert read(run_folder(config))["progress"]["step"] == 5
    run_training(config, resume=True)
    assert differences(read(run_folder(config)), read(run_folder(whole))) == []


class Stopped(Exception):
    """Raised by the tests to leave a training."""


def stop_in_step(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on, the training ends like a crash in its step ``number``."""
    from torchp2p.train import trainer

    class Stopping(trainer.Pix2PixStep):
        taken = 0

        def __call__(self, batch):
            self.taken += 1
            if self.taken == number:
                raise Stopped
            return super().__call__(batch)

    monkeypatch.setattr(trainer, "Pix2PixStep", Stopping)


def test_max_minutes_stops_with_everything_saved_and_the_training_resumes_to_the_same_state(
    config: TrainConfig, straight: Path
) -> None:
    outcome = run_training(dataclasses.replace(config, max_minutes=1e-9))
    assert (outcome.stopped_by, outcome.progress.step) == ("max_minutes", 1)
    again = run_training(dataclasses.replace(config, max_minutes=60.0), resume=True)
    assert (again.stopped_by, again.progress.step) == ("", STEPS)
    assert differences(read(again.folder), read(straight)) == []


def test_a_finished_training_can_be_given_more_epochs(config: TrainConfig) -> None:
    short = dataclasses.replace(config, n_epochs=1, n_epochs_decay=0, lr_policy="constant")
    run_training(short)
    longer = dataclasses.replace(short, n_epochs=3)
    assert run_training(longer, resume=True).progress.step == 3 * PAIRS
    rows = read(run_folder(longer))["progress"]["history"]
    assert [row["step"] for row in rows] == list(range(1, 3 * PAIRS + 1))


def test_a_finished_training_that_is_resumed_is_finished(config: TrainConfig) -> None:
    folder = run_training(config).folder
    before = read(folder)
    assert run_training(config, resume=True).progress.step == STEPS
    assert differences(read(folder), before) == []


def test_a_training_that_died_before_its_first_save_starts_anew(
    config: TrainConfig, straight: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_in_step(3, monkeypatch)
    with pytest.raises(Stopped):
        run_training(config)
    monkeypatch.undo()
    run_training(config)
    assert differences(read(run_folder(config)), read(straight)) == []


def test_a_training_on_a_gpu_goes_on_where_there_is_none(config: TrainConfig, straight: Path) -> None:
    folder = run_training(dataclasses.replace(config, max_minutes=1e-9)).folder
    state = read(folder)
    state["config"] |= {"device": "cuda", "max_minutes": None}
    torch.save(state, folder / "latest_state.pth")
    again = ["--resume", f"--name={config.name}", f"--checkpoints_dir={config.checkpoints_dir}", "--device=cpu"]
    assert main(["train", *again]) == 0
    assert differences(read(folder), read(straight)) == []


# --- what does not change the result ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [{"n_samples": 4, "display_freq": 1}, {"n_samples": 0}, {"no_html": True}, {"num_threads": 2}, {"no_check": True}],
    ids=str,
)
def test_pictures_and_readers_change_neither_weights_nor_random_numbers(
    config: TrainConfig, straight: Path, changes: dict[str, Any]
) -> None:
    config = dataclasses.replace(config, **changes)
    run_training(config)
    assert differences(read(run_folder(config)), read(straight)) == []


def test_another_seed_gives_another_training(config: TrainConfig, straight: Path) -> None:
    run_training(dataclasses.replace(config, seed=1))
    found = differences(read(run_folder(config)), read(straight))
    assert any(each.startswith("state.G.") for each in found)
    assert any(each.startswith("state.progress.history") for each in found)


# --- what a training leaves behind ------------------------------------------------------------------------


def test_a_finished_run_holds_what_the_user_looks_for(straight: Path) -> None:
    expected = [
        "latest_state.pth", "latest_net_G.pth", "latest_net_D.pth", "2_net_G.pth", "2_net_D.pth", "4_net_G.pth",
        "4_net_D.pth", "loss_log.txt", "dataset_check.json", "web/index.html", "web/progress.gif",
        *(f"web/stills/epoch{epoch:03d}.png" for epoch in range(EPOCHS + 1)),
        *(f"web/images/epoch{EPOCHS:03d}_{label}.png" for label in ("real_A", "fake_B", "real_B")),
    ]  # fmt: skip
    assert [name for name in expected if not (straight / name).is_file()] == []
    assert not list(straight.rglob(".*")), "something hidden was left behind"


def test_only_the_epochs_asked_for_are_kept(straight: Path) -> None:
    kept = sorted(path.name for path in straight.glob("*_net_G.pth"))
    assert kept == ["2_net_G.pth", "4_net_G.pth", "latest_net_G.pth"]


@pytest.mark.parametrize("network", ["G", "D"])
def test_the_network_files_are_plain_state_dicts_that_carry_the_configuration(straight: Path, network: str) -> None:
    path = straight / f"latest_net_{network}.pth"
    weights = torch.load(path, weights_only=True)
    stored = TrainConfig.from_mapping(load_config(path))
    assert stored.name == "tiny"
    if network == "G":
        net = generator_from_config(stored.as_dict())
    else:
        net = define_D(stored.netD, 6, stored.ndf, stored.n_layers_D, stored.norm)
    assert list(weights) == list(net.state_dict())
    net.load_state_dict(weights, strict=True)
    assert differences(dict(weights), dict(read(straight)[network])) == []


def test_the_epochs_kept_are_those_of_their_time(straight: Path) -> None:
    halfway, end = (torch.load(straight / f"{epoch}_net_G.pth", weights_only=True) for epoch in (2, EPOCHS))
    last = torch.load(straight / "latest_net_G.pth", weights_only=True)
    assert differences(dict(end), dict(last)) == []
    assert differences(dict(halfway), dict(last))


def test_the_state_names_everything_that_a_resume_needs(straight: Path) -> None:
    state = read(straight)
    assert state.keys() == {
        "format", "config", "progress", "rng", "G", "D", "optimizer_G", "optimizer_D", "pool", "penalty_rng",
    }  # fmt: skip
    assert TrainConfig.from_mapping(state["config"]).name == "tiny"
    assert len(state["pool"]["images"]) == 3


def test_the_history_has_the_losses_and_the_learning_rate_of_every_line(straight: Path) -> None:
    rows = read(straight)["progress"]["history"]
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert [row["epoch"] for row in rows] == [1 + step // PAIRS for step in range(STEPS)]
    for row in rows:
        assert row.keys() == {"step", "epoch", "lr", "G_GAN", "G_L1", "D_real", "D_fake"}
        assert row["lr"] == 2e-4 * lr_factor("linear", row["epoch"], 2, 2)
        assert all(math.isfinite(value) for value in row.values())


def test_loss_log_has_a_line_for_every_print_freq_steps_and_the_last(config: TrainConfig) -> None:
    run_training(dataclasses.replace(config, print_freq=5))
    header, *lines = (run_folder(config) / "loss_log.txt").read_text().splitlines()
    assert re.fullmatch(r"=+ Training Loss \(.+\) =+", header)
    pattern = r"\(epoch: (\d+), iters: (\d+), time: \d+\.\d{3}\)( \w+: -?\d+\.\d{3}){4}"
    found = [re.fullmatch(pattern, line) for line in lines]
    assert all(found), lines
    assert [int(match[2]) for match in found if match] == [5, 10, 15, 20, 24]


def test_tensorboard_gets_every_loss_and_the_pictures(straight: Path) -> None:
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    board = event_accumulator.EventAccumulator(str(straight))
    board.Reload()
    assert set(board.Tags()["scalars"]) == {"lr", *(f"loss/{name}" for name in ("G_GAN", "G_L1", "D_real", "D_fake"))}
    assert set(board.Tags()["images"]) == {"real_A", "fake_B", "real_B"}
    rows = read(straight)["progress"]["history"]
    assert [event.step for event in board.Scalars("loss/G_L1")] == [row["step"] for row in rows]
    assert [event.value for event in board.Scalars("loss/G_L1")] == pytest.approx([row["G_L1"] for row in rows])


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


def test_the_stills_show_the_fixed_samples_before_training_and_after_every_epoch(straight: Path) -> None:
    stills = sorted((straight / "web" / "stills").iterdir())
    assert [path.name for path in stills] == [f"epoch{epoch:03d}.png" for epoch in range(EPOCHS + 1)]
    assert all(one.read_bytes() != other.read_bytes() for one, other in pairwise(stills))
    with Image.open(straight / "web" / "progress.gif") as video:
        assert video.n_frames == EPOCHS + 1


def test_the_stills_after_a_resume_are_those_of_a_training_that_was_not_stopped(
    config: TrainConfig, straight: Path
) -> None:
    run_training(dataclasses.replace(config, max_minutes=1e-9))
    folder = run_training(config, resume=True).folder
    for path in (straight / "web" / "stills").iterdir():
        assert (folder / "web" / "stills" / path.name).read_bytes() == path.read_bytes()


def test_no_html_writes_no_gallery(config: TrainConfig) -> None:
    folder = run_training(dataclasses.replace(config, no_html=True)).folder
    assert not (folder / "web").exists()


def test_without_GAN_no_discriminator_is_written(config: TrainConfig) -> None:
    folder = run_training(dataclasses.replace(config, use_GAN=False)).folder
    assert sorted(path.name for path in folder.glob("*_net_*.pth")) == ["latest_net_G.pth"]
    assert "D" not in read(folder)


def test_a_training_learns(config: TrainConfig) -> None:
    run_training(dataclasses.replace(config, n_epochs=10, n_epochs_decay=0, lr=2e-3, use_GAN=False, n_samples=0))
    losses = [row["G_L1"] for row in read(run_folder(config))["progress"]["history"]]
    assert sum(losses[-PAIRS:]) < 0.9 * sum(losses[:PAIRS])


def test_the_seed_fixes_the_weights_that_a_training_starts_from() -> None:
    config = tiny_config(Path("nowhere"))
    first, second = (build_step(config).G.state_dict() for _ in range(2))
    other = build_step(dataclasses.replace(config, seed=1)).G.state_dict()
    assert differences(dict(first), dict(second)) == []
    assert differences(dict(first), dict(other))


def test_progress_is_told_in_unbroken_lines_where_there_is_no_terminal(
    config: TrainConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    train(dataclasses.replace(config, print_freq=6), console=Console(width=40))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == EPOCHS
    assert all(re.search(r"iters: \d+.* G_L1: .* it/s \| peak \d+\.\d GB$", line) for line in lines)


# --- what must not happen ---------------------------------------------------------------------------------


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_finished_run_is_not_overwritten(straight: Path) -> None:
    before = files_of(straight)
    again = tiny_config(straight.parents[1], dataroot="anywhere")
    with pytest.raises(FileExistsError, match="already holds a training: continue it with --resume"):
        run_training(dataclasses.replace(again, dataroot=load_config(straight / "latest_net_G.pth")["dataroot"]))
    assert files_of(straight) == before


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
    assert errors == f"torchp2p train: error: File too large: {folder / 'latest_state.pth'}\n"
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert not list(folder.glob(".*.pth")), "half a file was left behind"
    run_training(dataclasses.replace(config, max_minutes=None), resume=True)
    assert differences(read(folder), read(straight)) == []


def test_a_run_folder_that_cannot_be_written_to_is_found_before_the_first_step(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_in_step(1, monkeypatch)
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OSError, match="the run's folder cannot be written to: Not a directory") as caught:
        run_training(dataclasses.replace(config, checkpoints_dir=str(tmp_path / "file")))
    assert str(tmp_path / "file") in str(caught.value)
    assert (tmp_path / "file").read_text() == "not a folder"


def test_damaged_images_are_all_named_before_the_first_step(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_in_step(1, monkeypatch)
    bad = draw_dataset(tmp_path / "bad")
    whole = (bad / "train" / "pair1.png").read_bytes()
    (bad / "train" / "pair1.png").write_bytes(whole[: len(whole) // 2])
    (bad / "train" / "pair4.png").write_text("no image")
    with pytest.raises(DatasetError, match="problems found: 2 in 6 samples") as caught:
        run_training(dataclasses.replace(config, dataroot=str(bad)))
    assert [Path(problem.path).name for problem in caught.value.problems] == ["pair1.png", "pair4.png"]
    assert files_of(run_folder(config)) == {}


def test_files_that_were_checked_are_not_decoded_again_on_resume(config: TrainConfig) -> None:
    config = dataclasses.replace(config, max_minutes=1e-9)
    stamp = run_training(config).folder / "dataset_check.json"
    assert len(json.loads(stamp.read_text())["files"]) == PAIRS
    before = stamp.stat().st_mtime_ns
    run_training(config, resume=True)
    assert stamp.stat().st_mtime_ns == before
