"""``torchp2p translate`` and ``evaluate`` on pairs: what a pix2pix checkpoint and a folder become."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_workshop import TRAIN, picture
from tiny_training import draw_pair, run_training, save, tiny_config

from torchp2p.cli.main import main
from torchp2p.data import read_image
from torchp2p.models import load_weights

# --- translate ------------------------------------------------------------------------------------------------


def test_translate_needs_no_option_of_the_training_repeated(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["translate", "checkpoints/odd"]) == 0
    results = here / "results" / "odd" / "test_latest"
    assert str(results / "index.html") in capsys.readouterr().out
    for number in range(2):
        pair = read_image(here / "grey" / "test" / f"pair{number}.png")
        images = {label: picture(results / "images" / f"pair{number}_{label}.png") for label in LABELS}
        assert {image.shape for image in images.values()} == {(32, 32, 3)}
        # BtoA: what stands on the right is the input.
        assert abs(images["real_A"].mean() - pair[:, 36:].mean()) < 3
        assert abs(images["real_B"].mean() - pair[:, :36].mean()) < 3
        assert (results / "triptychs" / f"pair{number}.png").is_file()


LABELS = ("real_A", "fake_B", "real_B")


def test_translating_twice_with_one_seed_gives_the_same_pictures_and_another_seed_others(here: Path) -> None:
    results = here / "results" / "tiny" / "test_latest" / "images"
    made = []
    for seed in (3, 3, 4):
        assert main(["translate", "checkpoints/tiny", f"--seed={seed}"]) == 0
        made.append(picture(results / "pair0_fake_B.png"))
    assert (made[0] == made[1]).all()
    assert (made[0] != made[2]).any(), "dropout did not depend on the seed"


def test_the_result_of_an_image_does_not_depend_on_those_after_it(here: Path) -> None:
    image = here / "results" / "tiny" / "test_latest" / "images" / "pair0_fake_B.png"
    made = []
    for arguments in ([], ["--num_test=1"]):
        assert main(["translate", "checkpoints/tiny", *arguments]) == 0
        made.append(picture(image))
    assert (made[0] == made[1]).all()


def test_eval_leaves_out_dropout(here: Path) -> None:
    image = here / "results" / "tiny" / "test_latest" / "images" / "pair0_fake_B.png"
    made = []
    for seed in (3, 4):
        assert main(["translate", "checkpoints/tiny", "--eval", f"--seed={seed}"]) == 0
        made.append(picture(image))
    assert (made[0] == made[1]).all()


def test_single_images_of_odd_sizes_keep_them_with_preprocess_none(here: Path) -> None:
    sizes = {"wide": (37, 51), "tall": (64, 21), "tiny": (9, 10)}
    for name, size in sizes.items():
        pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
        save(pixels, here / "photos" / f"{name}.png")
    assert main(["translate", "checkpoints/tiny", "photos", "--single", "--preprocess", "none"]) == 0
    images = here / "results" / "tiny" / "images_latest" / "images"
    for name, size in sizes.items():
        assert picture(images / f"{name}_fake_B.png").shape == (*size, 3)
        change = picture(images / f"{name}_real_A.png").astype(int) - picture(here / "photos" / f"{name}.png")
        assert np.abs(change).max() <= 1  # what is written is truncated, as in the original
        assert not (images / f"{name}_real_B.png").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["checkpoints/tiny", "data/test", "--single", "--epoch", "latest"],
        ["checkpoints/tiny", "--single", "data/test", "--epoch", "latest"],
        ["--epoch", "latest", "checkpoints/tiny", "--single", "true", "data/test"],
    ],
)
def test_options_may_stand_anywhere(here: Path, arguments: list[str]) -> None:
    assert main(["translate", *arguments]) == 0
    page = (here / "results" / "tiny" / "images_latest" / "index.html").read_text()
    assert "pair1_fake_B.png" in page
    assert "real_B" not in page


def test_what_is_done_to_the_images_is_said(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["translate", "checkpoints/tiny", "data/test"]) == 0
    told = capsys.readouterr().out
    assert "images are read as A|B side by side; --single reads input images alone" in told
    assert "images are resized as in training (preprocess resize_and_crop); --preprocess none keeps their size" in told


def test_the_folder_test_is_preferred_in_every_layout(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for phase, names in (("train", "abc"), ("test", "z")):
        for name in names:
            for side in "AB":
                save(draw_pair(36), here / "layout" / side / phase / f"{name}.png")
    run_training(tiny_config(Path(), name="layout", dataroot="layout", dataset_mode="folders", n_epochs_decay=0))
    assert main(["evaluate", "checkpoints/layout"]) == 0
    assert "unseen pairs        1\n" in capsys.readouterr().out
    assert main(["evaluate", "checkpoints/layout", "layout"]) == 0
    assert "unseen pairs        1\n" in capsys.readouterr().out


def test_photographs_are_colourised_with_single_or_without(here: Path) -> None:
    colour = {"dataset_mode": "colorization", "input_nc": 1, "output_nc": 2, "name": "colour"}
    run_training(tiny_config(Path(), n_epochs=1, n_epochs_decay=0, **colour))
    image = here / "results" / "colour" / "images_latest" / "images" / "pair0_fake_B.png"
    made = []
    for arguments in ([], ["--single"]):
        assert main(["translate", "checkpoints/colour", "data/test", *arguments]) == 0
        made.append(picture(image))
    assert (made[0] == made[1]).all()
    lightness = picture(image.with_name("pair0_real_A.png"))
    assert (lightness[..., 0] == lightness[..., 1]).all(), "the input is not grey"


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_file_of_the_original_project_needs_no_option(here: Path, prefix: str) -> None:
    """A plain state_dict; the options are read off its tensors, so its pictures are those of our own file."""
    weights = load_weights(Path("checkpoints/odd/latest_net_G.pth"))
    folder = here / "label2photo"
    folder.mkdir()
    torch.save({prefix + name: value for name, value in weights.items()}, folder / "latest_net_G.pth")
    sizes = ["--load_size=36", "--crop_size=32"]
    assert main(["translate", "label2photo/latest_net_G.pth", "grey", "--direction=BtoA", *sizes]) == 0
    assert main(["translate", "checkpoints/odd", "grey"]) == 0
    made = [
        picture(here / "results" / name / "test_latest" / "images" / "pair1_fake_B.png")
        for name in ("label2photo", "odd")
    ]
    assert (made[0] == made[1]).all()


def test_a_generator_that_makes_nan_is_said_to_have_failed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = load_weights(Path("checkpoints/odd/latest_net_G.pth"))
    torch.save({name: value * float("nan") for name, value in weights.items()}, "failed.pth")
    assert main(["translate", "failed.pth", "grey", "--load_size=36", "--crop_size=32"]) == 1
    said = "translate: error: pair0: the generator makes nan of this sample; its training has failed\n"
    assert capsys.readouterr().err.endswith(said)


def test_an_epoch_that_was_kept_can_be_translated(here: Path) -> None:
    assert main(["train", *TRAIN, "--save_epoch_freq=1", "--n_epochs=2"]) == 0
    assert main(["translate", "checkpoints/new", "--epoch=1"]) == 0
    assert (here / "results" / "new" / "test_1" / "index.html").is_file()


def test_a_checkpoint_that_was_moved_carries_its_options(here: Path) -> None:
    shutil.move(here / "checkpoints" / "odd" / "latest_net_G.pth", here / "moved.pth")
    assert main(["translate", "moved.pth", "grey"]) == 0
    assert (here / "results" / "odd" / "test_moved" / "index.html").is_file()


# --- evaluate -------------------------------------------------------------------------------------------------


def scores(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, float]:
    """The numbers that ``evaluate`` prints, by what stands in front of them."""
    assert main(["evaluate", *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    return {line[:20].strip(): float(line[20:].split()[0]) for line in lines}


def test_evaluate_prints_the_scores_beside_those_of_the_mean_training_image(
    there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = scores(capsys, "checkpoints/tiny")
    assert found.keys() == {"unseen pairs", "L1", "PSNR", "L1 of mean image", "ratio"}
    assert found["unseen pairs"] == 2
    assert found["ratio"] == pytest.approx(found["L1"] / found["L1 of mean image"], abs=2e-3)


def test_the_scores_are_those_of_the_images_that_translate_writes(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = scores(capsys, "checkpoints/tiny")
    assert main(["translate", "checkpoints/tiny"]) == 0
    images = here / "results" / "tiny" / "test_latest" / "images"
    l1, psnr = [], []
    for number in range(2):
        fake, real = (picture(images / f"pair{number}_{label}.png") / 127.5 for label in ("fake_B", "real_B"))
        l1.append(np.abs(fake - real).mean())
        psnr.append(10 * np.log10(4 / ((fake - real) ** 2).mean()))
    assert found["L1"] == pytest.approx(np.mean(l1), abs=0.005)
    assert found["PSNR"] == pytest.approx(np.mean(psnr), abs=0.1)


def test_num_test_and_phase_choose_the_pairs(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert scores(capsys, "checkpoints/tiny", "--num_test=1")["unseen pairs"] == 1
    assert scores(capsys, "checkpoints/tiny", "--phase=train")["unseen pairs"] == 3


def test_where_the_training_data_are_gone_there_is_no_ratio(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.move(here / "data", here / "kept")
    found = scores(capsys, "checkpoints/tiny", "kept")
    assert found.keys() == {"unseen pairs", "L1", "PSNR"}
