"""``torchp2p data check`` on labelled folders: what is found without an option, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from labelled_data import colours, instances, labels, write, write_frame
from PIL import Image

from torchp2p.cli.main import main


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two sound frames in ``data``."""
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        write_frame(Path("data"), name)


def checked(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    assert main(["data", "check", "data", *arguments]) == status
    return capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["--label_nc=35"], ["--load_features"], ["--dataset_mode=labelled"]])
def test_folders_of_label_maps_are_known_as_such(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert checked(capsys, *arguments) == "2 samples, 0 problems\n"


def test_folders_of_cityscapes_are_known_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    Path("data").rename("kept")
    frame = "data/{}/train/bonn/bonn_000_000_{}.png"
    write(Path(frame.format("gtFine", "gtFine_labelIds")), labels(8, 16))
    write(Path(frame.format("gtFine", "gtFine_instanceIds")), instances(8, 16))
    write(Path(frame.format("leftImg8bit", "leftImg8bit")), colours(8, 16))
    assert checked(capsys) == "1 samples, 0 problems\n"


def test_folders_of_pictures_as_input_are_known_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    Path("data").rename("kept")
    for side in "AB":
        write(Path(f"data/train_{side}/x.png"), colours(8, 16))
    assert checked(capsys) == "1 samples, 0 problems\n"


def test_the_phase_that_is_asked_for_is_checked(capsys: pytest.CaptureFixture[str]) -> None:
    write_frame(Path("data"), "three", phase="test")
    assert checked(capsys, "--phase=test") == "1 samples, 0 problems\n"


def test_every_kind_of_fault_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        write_frame(Path("data"), name)
    void = labels(20, 40)
    void[3, 5] = 255
    write(Path("data/train_label/a.png"), void)
    write(Path("data/train_inst/b.png"), instances(20, 38))
    Path("data/train_img/one.png").write_bytes(b"no image")
    *problems, count = checked(capsys, status=1).splitlines()
    assert count == "4 samples, 3 problems"
    expected = (
        "data/train_label/a.png: label 255 at row 3, column 5 is not one of 0 to 34",
        "data/train_inst/b.png: inst must have the size of the label data/train_label/b.png, 20x40",
        "data/train_img/one.png",
    )
    assert [said for said, line in zip(expected, problems, strict=True) if said not in line] == []


def test_label_nc_and_unknown_label_say_which_labels_are_sound(capsys: pytest.CaptureFixture[str]) -> None:
    write(Path("data/train_label/one.png"), np.full((20, 40), 3, np.uint8))
    write(Path("data/train_label/two.png"), np.full((20, 40), 4, np.uint8))
    assert "label 4 at row 0, column 0 is not one of 0 to 3" in checked(capsys, "--label_nc=4", status=1)
    assert checked(capsys, "--label_nc=4", "--unknown_label=last") == "2 samples, 0 problems\n"


def test_the_contact_sheet_shows_labels_in_colour(capsys: pytest.CaptureFixture[str]) -> None:
    write(Path("data/train_label/one.png"), np.full((20, 40), 7, np.uint8))
    checked(capsys, "--sheet=sheet.png", "--count=1")
    road = (np.asarray(Image.open("sheet.png")) == (128, 64, 128)).all(axis=2)
    assert road.sum() == 128 * 64, "a thumbnail of nothing but road"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--phase=val"], 1, "a labelled dataset is in data/val_label or data/gtFine/val; neither folder exists"),
        (["--dataset_mode=aligned"], 1, "there is no folder data/train"),
        (["--direction=BtoA"], 2, "'direction' is not an option"),
        (["--label_nc=300"], 1, "label_nc must be at most 256"),
        (["--label_nc=0"], 2, "no_instance must be true"),
        (["--unknown_label=void"], 2, "unknown_label must be one of error, last, ignore, got 'void'"),
    ],
)
def test_what_is_wrong_with_the_call_is_one_sentence(
    capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, message: str
) -> None:
    assert main(["data", "check", "data", *arguments]) == status
    complaint = capsys.readouterr().err
    assert complaint.startswith("torchp2p data: error: ")
    assert complaint.count("\n") == 1
    assert message in complaint


def test_without_instance_maps_the_sentence_says_how_to_do_without(capsys: pytest.CaptureFixture[str]) -> None:
    Path("data/train_inst").rename("kept")
    assert main(["data", "check", "data"]) == 1
    assert "no_instance true does without it" in capsys.readouterr().err
    assert checked(capsys, "--no_instance") == "2 samples, 0 problems\n"
