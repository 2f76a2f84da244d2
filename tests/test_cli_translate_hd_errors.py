"""Whatever is wrong with a call of ``translate`` on label maps is said in one sentence, and nothing is written."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_labelled_training import fill_studio
from tiny_training import files_of

from torchp2p.cli.main import main
from torchp2p.edit import Clusters
from torchp2p.models import define_hd_G, encoder_from_weights

STYLED, PLAIN = ["translate", "checkpoints/styled"], ["translate", "checkpoints/plain"]
CALLS = {
    "an option of pix2pix": (
        [*PLAIN, "--single"],
        2,
        ["--single is for pix2pix, checkpoints/plain", "is of pix2pixHD"],
    ),
    "styles without features": ([*PLAIN, "--styles=2"], 2, ["--styles:", "was trained without features"]),
    "no styles": ([*STYLED, "--styles=0"], 2, ["--styles must be at least 1, got 0"]),
    "a negative seed": ([*STYLED, "--seed=-1"], 2, ["--seed must be at least 0, got -1"]),
    "two sources of style": (
        [*STYLED, "--use_encoded_image", "--styles=2"],
        2,
        ["--use_encoded_image leaves no choice of style: it cannot go with --styles"],
    ),
    "no such clusters": (
        [*STYLED, "--cluster_path=missing.npz"],
        1,
        ["missing.npz, which does not exist", "torchp2p features encode checkpoints/styled", "--no_style"],
    ),
    "clusters of the original": ([*STYLED, "--cluster_path=old.npy"], 1, ["old.npy", "torchp2p features convert"]),
    "a table for clusters": (
        [*STYLED, "--cluster_path=checkpoints/styled/features.npz"],
        1,
        ["holds no feature clusters, but instance features"],
    ),
    "clusters of other features": (
        [*STYLED, "--cluster_path=wide.npz"],
        1,
        ["wide.npz: clusters must have 3 features, got 5"],
    ),
    "a class without clusters": (
        [*STYLED, "--cluster_path=road.npz", "--override=26001=3"],
        1,
        ["--override 26001=3: road.npz: class 26 has no clusters; there are some for 7"],
    ),
    "no such cluster": (
        [*STYLED, "--cluster_path=road.npz", "--override=7=2"],
        1,
        ["--override 7=2: road.npz: cluster of class 7 must be from 0 to 1, got 2"],
    ),
    "no override": ([*STYLED, "--override=7"], 2, ["--override must be ID=INDEX, such as 26001=3, got '7'"]),
    "no instance maps": (
        [*PLAIN, "data/test_label"],
        2,
        ["name the folder of those of data/test_label with --instances"],
    ),
    "instances of a dataset": ([*PLAIN, "data", "--instances=data"], 2, ["--instances is for a plain folder"]),
    "instances that do not match": (
        [*PLAIN, "data/test_label", "--instances=one"],
        1,
        ["label without inst", "scene_000001"],
    ),
    "no such folder": ([*PLAIN, "missing"], 1, ["the folder of label maps missing does not exist"]),
    "no such phase": ([*PLAIN, "--phase=val"], 1, ["data/val_label", "neither folder exists"]),
    "no phase to test on": (
        [*PLAIN, "trained_on"],
        2,
        ["trained_on has no phase test or val, it has train: choose one with --phase"],
    ),
    "no images to encode": (
        [*STYLED, "blind", "--use_encoded_image"],
        2,
        ["--use_encoded_image needs the real images, which blind does not have"],
    ),
    "no encoder": (
        [*STYLED, "--epoch=1", "--use_encoded_image"],
        1,
        ["there is no encoder checkpoints/styled/1_net_E.pth"],
    ),
    "no label maps wanted": ([*PLAIN, "--num_test=0"], 2, ["--num_test must be at least 1, got 0"]),
    "a label that is none": (
        [*PLAIN, "bad"],
        1,
        ["problems found: 1 in 1 samples", "label 99 at row 0, column 0 is not one of 0 to 34"],
    ),
    "options of one that has its own": (
        [*PLAIN, "--label_nc=3"],
        2,
        ["checkpoints/plain/latest_net_G.pth carries its own"],
    ),
    "channels that do not tell": (
        ["translate", "odd_net_G.pth", "data"],
        2,
        ["sees 20 channels, which 35 labels and edges do not make", "--label_nc"],
    ),
    "pictures with instances": (["translate", "odd_net_G.pth", "data", "--label_nc=0"], 2, ["it needs --no_instance"]),
    "scores of label maps": (["evaluate", "checkpoints/plain"], 2, ["evaluate scores the pairs of pix2pix"]),
}


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Also data, clusters and weights with something wrong."""
    root = tmp_path_factory.mktemp("studio")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        fill_studio()
        _spoil()
    return root


@pytest.fixture
def there(studio: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The studio as the current folder; a test must leave it as it was."""
    monkeypatch.chdir(studio)
    return studio


def _spoil() -> None:
    Clusters({7: np.zeros((2, 3))}).save("road.npz")
    Clusters({7: np.zeros((2, 5))}).save("wide.npz")
    np.save("old.npy", {7: np.zeros((2, 3))})
    shutil.copy("checkpoints/styled/latest_net_G.pth", "checkpoints/styled/1_net_G.pth")
    torch.save(dict(define_hd_G("global", 20, 3, 2, 3, 1).state_dict()), "odd_net_G.pth")
    for part in ("label", "inst"):
        shutil.copytree(f"data/test_{part}", f"blind/test_{part}")
        Path(f"bad/test_{part}").mkdir(parents=True)
        Path(f"trained_on/train_{part}").mkdir(parents=True)
        Image.fromarray(np.full((32, 64), 99, np.uint8)).save(f"bad/test_{part}/x.png")
    Path("one").mkdir()
    shutil.copy("data/test_inst/scene_000000.png", "one")


@pytest.mark.parametrize(("call", "status", "said"), CALLS.values(), ids=CALLS.keys())
def test_what_is_wrong_is_said_in_one_sentence_and_nothing_is_written(
    there: Path, capsys: pytest.CaptureFixture[str], call: list[str], status: int, said: list[str]
) -> None:
    before = files_of(there)
    assert main(call) == status
    errors = capsys.readouterr().err
    assert errors.startswith(f"torchp2p {call[0]}: error: ")
    assert errors.count("error:") == 1
    assert [part for part in said if part not in errors] == []
    assert files_of(there) == before


def test_the_weights_of_a_generator_are_not_taken_for_those_of_an_encoder(there: Path) -> None:
    with pytest.raises(ValueError, match=r"latest_net_G\.pth is not that of an encoder"):
        encoder_from_weights("checkpoints/plain/latest_net_G.pth")
