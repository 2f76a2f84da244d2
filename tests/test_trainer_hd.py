"""Training pix2pixHD with the trainer: what it writes, resuming, coarse to fine, and what it refuses."""

from __future__ import annotations

import dataclasses
import logging
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from labelled_data import colours, instances, labels, write, write_frame
from PIL import Image
from rich.console import Console
from tiny_hd_training import LOCAL, SCENES, TINY_HD, hd_flags, stop_in_hd_step, tiny_hd_config
from tiny_training import Stopped, differences, files_of, read_state

from torchp2p.cli.main import main
from torchp2p.models import load_config, load_weights
from torchp2p.train import HDTrainConfig, Outcome, train
from torchp2p.train.nonfinite import NONFINITE_COLOUR
from torchp2p.train.stages import stages_of
from torchp2p.train.state import run_folder


def run(config: HDTrainConfig, *, resume: bool = False) -> Outcome:
    return train(config, resume=resume, console=Console(quiet=True))


# --- what it writes ----------------------------------------------------------------------------------------


def test_the_networks_are_written_as_the_original_names_them(tmp_path: Path) -> None:
    config = tiny_hd_config(tmp_path, instance_feat=True)
    folder = run(config).folder
    names = {path.name for path in folder.glob("*_net_*.pth")}
    assert names == {"latest_net_G.pth", "latest_net_D.pth", "latest_net_E.pth"}
    assert load_config(folder / "latest_net_G.pth") == config.as_dict()
    assert "model.1.weight" in load_weights(folder / "latest_net_G.pth")
    assert "scale0_layer0.0.weight" in load_weights(folder / "latest_net_D.pth")


def test_the_gallery_shows_label_fake_and_real(tmp_path: Path) -> None:
    folder = run(tiny_hd_config(tmp_path)).folder
    shown = {path.name.split("_", 1)[1] for path in (folder / "web" / "images").iterdir()}
    assert shown == {"input_label.png", "synthesized_image.png", "real_image.png"}
    assert len(list((folder / "web" / "stills").iterdir())) == 1 + TINY_HD["niter"] + TINY_HD["niter_decay"]


def test_the_losses_are_logged_under_the_names_of_the_original(tmp_path: Path) -> None:
    history = read_state(run(tiny_hd_config(tmp_path)).folder)["progress"]["history"]
    assert list(history[0]) == ["step", "epoch", "lr", "G_GAN", "G_GAN_Feat", "D_real", "D_fake"]
    assert [row["lr"] for row in history][::SCENES] == [2e-4, 2e-4, 2e-4, 1e-4]


@pytest.mark.parametrize("max_skipped", [3, 99], ids=["until too many in a row", "to its end"])
def test_steps_that_are_not_finite_are_skipped_and_shown_in_magenta(tmp_path: Path, max_skipped: int) -> None:
    config = tiny_hd_config(tmp_path, lr=1e30, display_freq=1, max_skipped=max_skipped)
    if max_skipped == 99:
        run(config)
    else:
        with pytest.raises(FloatingPointError, match="losses were not finite for 3 steps in a row"):
            run(config)
    shown = [
        path for path in (run_folder(config) / "web" / "images").glob("*_synthesized_image.png")
        if NONFINITE_COLOUR in {colour for _, colour in Image.open(path).getcolors(maxcolors=2**16)}
    ]  # fmt: skip
    assert shown


# --- resuming ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("killed", [6, 10], ids=["with the global generator fixed", "after its release"])
def test_a_training_that_died_resumes_to_the_state_of_one_that_did_not(
    tmp_path: Path, killed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = run(tiny_hd_config(tmp_path / "straight", **LOCAL)).folder
    config = tiny_hd_config(tmp_path / "died", **LOCAL, save_latest_freq=killed - 1)
    with monkeypatch.context() as patched:
        stop_in_hd_step(killed, patched)
        with pytest.raises(Stopped):
            run(config)
    assert read_state(run_folder(config))["progress"]["step"] == killed - 1
    run(config, resume=True)
    assert differences(read_state(run_folder(config)), read_state(straight)) == []


def test_while_it_is_fixed_the_global_generator_does_not_move(tmp_path: Path) -> None:
    config = tiny_hd_config(tmp_path, **LOCAL, save_epoch_freq=1)
    folder = run(config).folder
    weights = [load_weights(folder / f"{epoch}_net_G.pth") for epoch in (1, 2, 3)]
    moved = [
        {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
        for before, after in pairwise(weights)
    ]
    assert moved == [{"model1_1", "model1_2"}, {"model", "model1_1", "model1_2"}]


def test_a_resumed_training_of_another_model_is_refused(tmp_path: Path) -> None:
    config = tiny_hd_config(tmp_path)
    run(config)
    place = [f"--checkpoints_dir={config.checkpoints_dir}", f"--name={config.name}"]
    assert main(["train", "--model=pix2pix", "--resume", *place]) != 0


# --- coarse to fine ----------------------------------------------------------------------------------------


def coarse_to_fine(folder: Path, **changes: Any) -> list[str]:
    fine = {
        "load_size": 128,
        "coarse_to_fine": True,
        "niter_global": 1,
        "niter_decay_global": 0,
        "niter": 1,
        "niter_decay": 0,
    }
    return ["train", *hd_flags(folder, **{**LOCAL, "niter_fix_global": 1, "instance_feat": False, **fine, **changes})]


def test_one_command_trains_the_global_generator_and_then_the_enhancer_from_it(tmp_path: Path) -> None:
    assert main(coarse_to_fine(tmp_path)) == 0
    coarse, fine = (tmp_path / "checkpoints" / name for name in ("tinyhd_global", "tinyhd"))
    start, end = load_weights(coarse / "latest_net_G.pth"), load_weights(fine / "latest_net_G.pth")
    kept = [name for name in end if name.startswith("model.")]
    assert kept
    assert all(torch.equal(start[name], end[name]) for name in kept)  # fixed for its only epoch
    assert load_config(coarse / "latest_net_G.pth")["load_size"] == 64


def test_coarse_to_fine_resumes_in_the_stage_that_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(coarse_to_fine(tmp_path / "straight")) == 0
    command = coarse_to_fine(tmp_path / "died", save_latest_freq=1)
    for step, resume in ((2, []), (SCENES, ["--resume"])):  # in the first stage, then at the end of the second
        with monkeypatch.context() as patched:
            stop_in_hd_step(step, patched)
            with pytest.raises(Stopped):
                main([*command, *resume])
    assert main([*command, "--resume"]) == 0
    for name in ("tinyhd_global", "tinyhd"):
        states = [read_state(tmp_path / run / "checkpoints" / name) for run in ("straight", "died")]
        assert differences(*states) == []


def test_features_are_made_between_the_stages_and_the_encoder_goes_along(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_frame(tmp_path / "data", name, size=(32, 64))
        (tmp_path / "data" / "train_feat" / f"{name}.png").unlink()
    options = {"dataset_mode": "labelled", "dataroot": tmp_path / "data", "load_size": 64, "resize_or_crop": "none"}
    command = coarse_to_fine(tmp_path, **options, instance_feat=True, load_features=True)
    assert main(command) == 0
    assert {path.name for path in (tmp_path / "data" / "train_feat").iterdir()} == {"a.png", "b.png"}
    coarse, fine = (
        load_weights(tmp_path / f"checkpoints/{name}/latest_net_E.pth") for name in ("tinyhd_global", "tinyhd")
    )
    assert coarse.keys() == fine.keys()
    assert all(torch.equal(coarse[name], fine[name]) for name in coarse)


AHEAD: dict[str, tuple[dict[str, Any], list[str], list[str]]] = {
    "features beside no files": ({"dataset_mode": "demo"}, [], ["which the demo does not have"]),
    "features that are there already": ({}, ["train_feat/a.png"], ["train_feat already holds features"]),
    "features of another size": (
        {"load_size": 32},
        [],
        ["twice the size of the images of the stage before, 16x32 (height x width)", "found 32x64"],
    ),
}
"""What differs from a training with features between its stages, files that are there, and what is said."""


@pytest.mark.parametrize(("changes", "there", "said"), AHEAD.values(), ids=AHEAD.keys())
def test_what_a_later_stage_would_refuse_is_said_before_the_first_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], there: list[str], said: list[str]
) -> None:
    write_frame(tmp_path / "data", "a", size=(32, 64))
    if not there:
        (tmp_path / "data" / "train_feat" / "a.png").unlink()
    before = files_of(tmp_path)
    options = {"dataset_mode": "labelled", "dataroot": tmp_path / "data", "load_size": 64, "resize_or_crop": "none"}
    command = coarse_to_fine(tmp_path, **{**options, **changes}, instance_feat=True, load_features=True)
    assert main(command) == 1
    errors = capsys.readouterr().err
    assert [part for part in said if part not in errors] == []
    assert files_of(tmp_path) == before


def test_the_coarse_stage_is_what_the_enhancer_is_built_on(tmp_path: Path) -> None:
    config = tiny_hd_config(tmp_path, **LOCAL, coarse_to_fine=True, num_D=3, ngf=4)
    coarse, fine = (stage.config for stage in stages_of(config))
    assert isinstance(coarse, HDTrainConfig)
    assert (coarse.netG, coarse.ngf, coarse.num_D, coarse.load_size) == ("global", 8, 2, config.load_size // 2)
    assert fine == dataclasses.replace(config, coarse_to_fine=False, load_pretrain=str(run_folder(coarse)))


# --- what it refuses, and what it says -----------------------------------------------------------------------


def frame(root: Path) -> list[str]:
    """One frame on the disk, and the command that trains on it."""
    write_frame(root / "data", "x", size=(32, 64))
    return ["train", *hd_flags(root, dataset_mode="labelled", dataroot=root / "data")]


FAULTS: dict[str, tuple[Any, list[str]]] = {
    "a label out of range": (
        lambda data: write(data / "train_label/x.png", np.full((32, 64), 40, np.uint8)),
        ["train_label/x.png", "label 40 at row 0, column 0"],
    ),
    "a label of floats": (
        lambda data: (
            write(data / "train_label/x.tif", np.ones((32, 64), np.float32)) is None
            or (data / "train_label/x.png").unlink()
        ),
        ["train_label/x.tif"],
    ),
    "a label in colours": (lambda data: write(data / "train_label/x.png", colours(32, 64)), ["train_label/x.png"]),
    "no instance map": (lambda data: (data / "train_inst/x.png").unlink(), ["train_inst"]),
    "an instance map of another size": (
        lambda data: write(data / "train_inst/x.png", instances(16, 64)),
        ["train_inst/x.png", "16x64", "32x64"],
    ),
    "an image of another size": (lambda data: write(data / "train_img/x.png", colours(32, 32)), ["train_img/x.png"]),
}


@pytest.mark.parametrize(("spoil", "said"), FAULTS.values(), ids=FAULTS.keys())
def test_bad_data_are_named_before_the_first_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: Any, said: list[str]
) -> None:
    command = frame(tmp_path)
    spoil(tmp_path / "data")
    assert main(command) == 1
    errors = capsys.readouterr().err
    assert [part for part in said if part not in errors] == []
    assert errors.count("error:") == 1
    assert not list((tmp_path / "checkpoints").rglob("*.pth"))


def wrong_vgg(root: Path) -> list[str]:
    torch.save({"features.0.weight": torch.zeros(8, 3, 3, 3)}, root / "vgg16.pth")
    return ["--no_vgg_loss=false", f"--vgg_weights={root / 'vgg16.pth'}"]


OPTIONS: dict[str, tuple[Any, list[str]]] = {
    "weights of another network for VGG": (wrong_vgg, ["vgg16.pth is not that of torchvision's vgg19"]),
    "no weights for VGG": (
        lambda root: ["--no_vgg_loss=false", f"--vgg_weights={root / 'none.pth'}"],
        ["none.pth does not exist"],
    ),
    "no word on VGG": (lambda root: ["--no_vgg_loss=false"], ["vgg_weights must name a file", "no_vgg_loss"]),
    "a pretrained model that is not there": (
        lambda root: [f"--load_pretrain={root / 'none'}"],
        ["none/latest_net_G.pth does not exist"],
    ),
    "features without an encoder": (lambda root: ["--load_features"], ["load_features needs instance_feat"]),
    "a global generator to fix that is not there": (
        lambda root: ["--niter_fix_global=1"],
        ["niter_fix_global needs netG local, got netG global"],
    ),
    "too many scales for the size": (
        lambda root: ["--num_D=9"],
        ["images of 32x64 (height x width) cannot be trained on", "statistics need more than one value"],
    ),
    "a learning rate that leaves the numbers": (
        lambda root: ["--lr=1e30", "--max_skipped=2", "--niter=9"],
        ["losses were not finite for 2 steps in a row", "the first output that is not finite is that of"],
    ),
    "images as input with instances": (lambda root: ["--label_nc=0"], ["no_instance must be true"]),
}


@pytest.mark.parametrize(("options", "said"), OPTIONS.values(), ids=OPTIONS.keys())
def test_options_that_cannot_be_are_said_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: Any, said: list[str]
) -> None:
    assert main([*frame(tmp_path), *options(tmp_path)]) != 0
    errors = capsys.readouterr().err
    assert [part for part in said if part not in errors] == []
    assert errors.count("error:") == 1
    assert not list((tmp_path / "checkpoints").rglob("*.pth"))


def test_a_size_that_is_no_multiple_is_padded_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "data"
    for part, plane in {"label": labels(30, 62), "inst": instances(30, 62), "img": colours(30, 62)}.items():
        write(root / f"train_{part}" / "x.png", plane)
    config = tiny_hd_config(
        tmp_path, dataset_mode="labelled", dataroot=str(root), load_size=62, niter=1, niter_decay=0
    )  # fmt: skip
    with caplog.at_level(logging.WARNING, logger="torchp2p"):
        outcome = run(config)
    assert outcome.progress.step == 1
    assert "images of 30x62 (height x width) are padded by reflection to multiples of 4" in caplog.text


def test_a_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*coarse_to_fine(tmp_path), "--dry_run"]) == 0
    assert files_of(tmp_path) == {}
    assert "# stage 2 of 2" in capsys.readouterr().out
