"""The trainer: what it writes, what does not change its result, and what it refuses. Resuming: test_resume.py."""

from __future__ import annotations

import dataclasses
import math
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from rich.console import Console
from tiny_training import (
    EPOCHS,
    PAIRS,
    STEPS,
    differences,
    draw_dataset,
    files_of,
    read_state,
    run_training,
    stop_in_step,
    tiny_config,
)

from torchp2p.data import DatasetError
from torchp2p.models import define_D, generator_from_config, load_config
from torchp2p.train import TrainConfig, build_step, lr_factor, train
from torchp2p.train.nonfinite import NONFINITE_COLOUR
from torchp2p.train.trainer import run_folder

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
    assert differences(read_state(run_folder(config)), read_state(straight)) == []


def test_another_seed_gives_another_training(config: TrainConfig, straight: Path) -> None:
    run_training(dataclasses.replace(config, seed=1))
    found = differences(read_state(run_folder(config)), read_state(straight))
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
    assert differences(dict(weights), dict(read_state(straight)[network])) == []


def test_the_epochs_kept_are_those_of_their_time(straight: Path) -> None:
    halfway, end = (torch.load(straight / f"{epoch}_net_G.pth", weights_only=True) for epoch in (2, EPOCHS))
    last = torch.load(straight / "latest_net_G.pth", weights_only=True)
    assert differences(dict(end), dict(last)) == []
    assert differences(dict(halfway), dict(last))


def test_the_state_names_everything_that_a_resume_needs(straight: Path) -> None:
    state = read_state(straight)
    assert state.keys() == {
        "format", "config", "progress", "rng", "G", "D", "optimizer_G", "optimizer_D", "pool", "penalty_rng",
    }  # fmt: skip
    assert TrainConfig.from_mapping(state["config"]).name == "tiny"
    assert len(state["pool"]["images"]) == 3


def test_the_learning_rate_of_the_epoch_reaches_both_optimisers(straight: Path) -> None:
    state = read_state(straight)
    for optimizer in ("optimizer_G", "optimizer_D"):
        (group,) = state[optimizer]["param_groups"]
        assert group["lr"] == 2e-4 * lr_factor("linear", EPOCHS, 2, 2) < 2e-4


def test_the_history_has_the_losses_and_the_learning_rate_of_every_line(straight: Path) -> None:
    rows = read_state(straight)["progress"]["history"]
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
    rows = read_state(straight)["progress"]["history"]
    assert [event.step for event in board.Scalars("loss/G_L1")] == [row["step"] for row in rows]
    assert [event.value for event in board.Scalars("loss/G_L1")] == pytest.approx([row["G_L1"] for row in rows])


def test_the_stills_show_the_fixed_samples_before_training_and_after_every_epoch(straight: Path) -> None:
    stills = sorted((straight / "web" / "stills").iterdir())
    assert [path.name for path in stills] == [f"epoch{epoch:03d}.png" for epoch in range(EPOCHS + 1)]
    assert all(one.read_bytes() != other.read_bytes() for one, other in pairwise(stills))
    with Image.open(straight / "web" / "progress.gif") as video:
        assert video.n_frames == EPOCHS + 1


def test_no_html_writes_no_gallery(config: TrainConfig) -> None:
    folder = run_training(dataclasses.replace(config, no_html=True)).folder
    assert not (folder / "web").exists()


def test_without_GAN_no_discriminator_is_written(config: TrainConfig) -> None:
    folder = run_training(dataclasses.replace(config, use_GAN=False)).folder
    assert sorted(path.name for path in folder.glob("*_net_*.pth")) == ["latest_net_G.pth"]
    assert "D" not in read_state(folder)


def test_a_training_learns(config: TrainConfig) -> None:
    run_training(dataclasses.replace(config, n_epochs=10, n_epochs_decay=0, lr=2e-3, use_GAN=False, n_samples=0))
    losses = [row["G_L1"] for row in read_state(run_folder(config))["progress"]["history"]]
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


def test_a_generator_that_makes_nan_is_shown_in_magenta_and_the_training_goes_on(config: TrainConfig) -> None:
    outcome = run_training(dataclasses.replace(config, lr=1e30, display_freq=1))
    assert (outcome.progress.step, outcome.stopped_by) == (STEPS, "")
    assert "nan" in (outcome.folder / "loss_log.txt").read_text()
    with Image.open(outcome.folder / "web" / "images" / f"epoch{EPOCHS:03d}_fake_B.png") as shown:
        assert shown.getcolors() == [(32 * 32, NONFINITE_COLOUR)]


# --- what must not happen ---------------------------------------------------------------------------------


def test_a_finished_run_is_not_overwritten(straight: Path) -> None:
    before = files_of(straight)
    stored = TrainConfig.from_mapping(load_config(straight / "latest_net_G.pth"))
    with pytest.raises(FileExistsError, match="already holds a training: continue it with --resume"):
        run_training(stored)
    assert files_of(straight) == before


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
