"""The whole way on real street scenes: pairs, a look at them, a training, and its results."""

from __future__ import annotations

import contextlib
import io
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_training import save

from torchp2p.cli.main import main
from torchp2p.data import colourise_labels, read_ids
from torchp2p.data.colour import CITYSCAPES_PALETTE
from torchp2p.data.transforms import resize_ids

pytestmark = pytest.mark.cityscapes

FRAMES = 8
EPOCHS = 2


def say(*call: str) -> str:
    """Run a command that must succeed; what it prints."""
    torch.set_num_threads(1)
    with contextlib.redirect_stdout(io.StringIO()) as output:
        assert main(list(call)) == 0
    return output.getvalue()


def picture(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


@pytest.fixture(scope="session")
def pairs(cityscapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``train`` holds the eight frames as colour label | photograph."""
    root = tmp_path_factory.mktemp("cityscapes")
    train = root / "pairs" / "train"
    told = say("data", "cityscapes", str(cityscapes / "train_label"), str(cityscapes / "train_img"), str(train))
    assert told == f"{FRAMES} pairs written to {train}\n"
    return root / "pairs"


@pytest.fixture(scope="session")
def training(pairs: Path) -> tuple[Path, str]:
    """The folder of a short training on them, and what it printed."""
    checkpoints = pairs.parent / "checkpoints"
    options = [
        "--preset=pix2pix", f"--dataroot={pairs}", f"--checkpoints_dir={checkpoints}", "--name=streets", "--ngf=8",
        "--ndf=8", f"--n_epochs={EPOCHS}", "--n_epochs_decay=0", "--print_freq=2", "--display_freq=8",
        "--n_samples=2", "--num_threads=0", "--lr=1e-3",
    ]  # fmt: skip
    return checkpoints / "streets", say("train", *options)


@pytest.fixture(scope="session")
def results(training: tuple[Path, str]) -> Path:
    """The folder of the translated training frames."""
    run, _ = training
    folder = run.parents[1] / "results"
    say("translate", str(run), "--phase=train", f"--results_dir={folder}")
    return folder / "streets" / "train_latest"


def test_a_pair_is_the_label_in_the_colours_of_the_palette_beside_its_photograph(pairs: Path, cityscapes: Path) -> None:
    files = sorted((pairs / "train").iterdir())
    assert len(files) == FRAMES
    for file in files:
        pair = picture(file)
        assert pair.shape == (256, 512, 3)
        ids = read_ids(cityscapes / "train_label" / f"{file.stem}_gtFine_labelIds.png")
        assert (pair[:, :256] == colourise_labels(resize_ids(ids, (256, 256)))).all()
        photo = Image.open(cityscapes / "train_img" / f"{file.stem}_leftImg8bit.png").resize((256, 256), Image.BICUBIC)
        assert (pair[:, 256:] == np.asarray(photo)).all()


def test_colours_are_those_of_the_palette_only(pairs: Path) -> None:
    palette = {tuple(colour) for colour in np.asarray(CITYSCAPES_PALETTE).tolist()}
    for file in (pairs / "train").iterdir():
        colours = np.unique(picture(file)[:, :256].reshape(-1, 3), axis=0)
        assert {tuple(colour) for colour in colours.tolist()} <= palette


def test_the_pairs_are_sound_and_fill_a_contact_sheet(pairs: Path, tmp_path: Path) -> None:
    told = say("data", "check", str(pairs), f"--sheet={tmp_path / 'sheet.png'}")
    assert f"{FRAMES} samples, 0 problems" in told
    sheet = picture(tmp_path / "sheet.png")
    assert sheet.shape[2] == 3
    assert sheet.shape[1] > 3 * 2 * 128
    assert sheet.std() > 20


def test_training_tells_how_it_goes(training: tuple[Path, str]) -> None:
    _, told = training
    lines = [line for line in told.splitlines() if line.startswith("(epoch:")]
    steps = [int(re.search(r"iters: (\d+)", line)[1]) for line in lines]
    assert steps == list(range(2, FRAMES * EPOCHS + 1, 2))
    assert all(re.search(r"G_L1: \d+\.\d+.*it/s \| peak \d+\.\d GB$", line) for line in lines)
    assert f"finished after {FRAMES * EPOCHS} steps" in told


def test_training_brings_the_images_nearer_to_the_photographs(training: tuple[Path, str]) -> None:
    run, _ = training
    history = torch.load(run / "latest_state.pth", weights_only=True)["progress"]["history"]
    distances = [row["G_L1"] for row in history]
    assert sum(distances[-3:]) < 0.9 * sum(distances[:3])


def test_training_leaves_a_gallery_and_a_video_of_its_progress(training: tuple[Path, str]) -> None:
    run, _ = training
    stills = [picture(run / "web" / "stills" / f"epoch{epoch:03d}.png") for epoch in range(EPOCHS + 1)]
    assert all((one != other).any() for one, other in pairwise(stills))
    with Image.open(run / "web" / "progress.gif") as video:
        assert video.n_frames == EPOCHS + 1
    assert "epoch002" in (run / "web" / "index.html").read_text()


def test_translate_writes_a_triptych_for_every_frame(results: Path, pairs: Path) -> None:
    page = (results / "index.html").read_text()
    for file in (pairs / "train").iterdir():
        triptych = picture(results / "triptychs" / f"{file.stem}.png")
        assert triptych.shape[1] >= 3 * 256
        images = {label: picture(results / "images" / f"{file.stem}_{label}.png") for label in LABELS}
        assert {image.shape for image in images.values()} == {(256, 256, 3)}
        assert images["fake_B"].std() > 5, "the generated image is flat"
        assert file.stem in page


LABELS = ("real_A", "fake_B", "real_B")


def test_unseen_labels_alone_can_be_translated(training: tuple[Path, str], cityscapes: Path, tmp_path: Path) -> None:
    labels = sorted((cityscapes / "test_label").iterdir())[:2]
    for file in labels:
        save(colourise_labels(resize_ids(read_ids(file), (256, 256))), tmp_path / "labels" / f"{file.stem}.png")
    run, _ = training
    say("translate", str(run), str(tmp_path / "labels"), "--single", f"--results_dir={tmp_path}")
    images = tmp_path / "streets" / "images_latest" / "images"
    made = [picture(images / f"{file.stem}_fake_B.png") for file in labels]
    assert (made[0] != made[1]).any()


def test_evaluate_measures_the_frames(training: tuple[Path, str]) -> None:
    run, _ = training
    told = say("evaluate", str(run), "--phase=train")
    assert f"unseen pairs        {FRAMES}" in told
    assert re.search(r"^ratio +\d\.\d+$", told, re.MULTILINE)
