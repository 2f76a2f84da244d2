"""``torchp2p translate`` on label maps: what a pix2pixHD checkpoint and a folder become."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_workshop import picture
from PIL import Image
from tiny_labelled_training import TINY, fill_studio, train_tiny

from torchp2p.cli.checkpoint import open_checkpoint
from torchp2p.cli.main import main
from torchp2p.edit import Clusters
from torchp2p.models import define_hd_G, load_weights

SCENES = ("scene_000000", "scene_000001")
CITYSCAPES = "frankfurt_000000_000294"


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("studio")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        fill_studio()
    return root


@pytest.fixture
def here(studio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the studio as the current folder, to work in."""
    copy = tmp_path / "copy"
    shutil.copytree(studio, copy)
    monkeypatch.chdir(copy)
    return copy


def translated(*arguments: str, place: str = "styled/test_latest") -> dict[str, np.ndarray]:
    """The pictures that ``translate`` makes, by name."""
    shutil.rmtree("results", ignore_errors=True)
    assert main(["translate", *arguments]) == 0
    return {path.stem: picture(path) for path in Path("results", place, "images").iterdir()}


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def an_instance() -> int:
    """Of a class with clusters, in the first test scene, and covering much of it."""
    ids, counts = np.unique(picture("data/test_inst/scene_000000.png"), return_counts=True)
    clustered = Clusters.load("checkpoints/styled/features_clustered_010.npz").rows
    return next(int(ids[place]) for place in counts.argsort()[::-1] if ids[place] in clustered)


# --- without features -------------------------------------------------------------------------------------------


def test_the_test_phase_of_the_training_is_translated_without_an_option(here: Path, capsys) -> None:
    made = translated("checkpoints/plain", place="plain/test_latest")
    labels = ("input_label", "synthesized_image", "real_image")
    assert made.keys() == {f"{scene}_{label}" for scene in SCENES for label in labels}
    assert {image.shape for image in made.values()} == {(36, 64, 3)}
    told = capsys.readouterr().out
    assert "2 label maps; gallery: " + str(here / "results/plain/test_latest/index.html") in told
    page = Path("results/plain/test_latest/index.html").read_text()
    assert "plain, test, epoch latest" in page
    assert all(f"images/{name}.png" in page for name in made)


def test_images_need_not_be_there(here: Path) -> None:
    shutil.rmtree("data/test_img")
    made = translated("checkpoints/plain", place="plain/test_latest")
    assert made.keys() == {f"{scene}_{label}" for scene in SCENES for label in ("input_label", "synthesized_image")}


def test_label_maps_of_any_size_keep_it_and_are_said_to_be_padded(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    for folder, mode in (("test_label", "L"), ("test_inst", "I;16")):
        for path in Path("data", folder).iterdir():
            Image.fromarray(picture(path)[:35, :61].copy()).save(path)
            assert Image.open(path).mode == mode
    shutil.rmtree("data/test_img")
    made = translated("checkpoints/plain", "--resize_or_crop=none", place="plain/test_latest")
    assert {image.shape for image in made.values()} == {(35, 61, 3)}
    assert "image of 35x61 is padded by reflection to 40x64" in caplog.text


def test_a_resize_is_said(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    translated("checkpoints/plain", "--load_size=48", place="plain/test_latest")
    told = capsys.readouterr().out
    assert "label maps are resized (scale_width, load_size 48)" in told
    assert "--resize_or_crop none keeps their size" in told


@pytest.mark.parametrize(
    ("mode", "size"), [("crop", (36, 64)), ("scale_width_and_crop", (27, 48)), ("resize_and_crop", (48, 48))]
)
def test_what_training_crops_is_translated_whole(here: Path, mode: str, size: tuple[int, int]) -> None:
    train_tiny("cropped", resize_or_crop=mode, load_size=48, crop_size=16)
    made = translated("checkpoints/cropped", place="cropped/test_latest")
    assert {image.shape for image in made.values()} == {(*size, 3)}
    cropped = translated(
        "checkpoints/cropped", f"--resize_or_crop={mode}", "--crop_size=16", place="cropped/test_latest"
    )
    assert {image.shape for image in cropped.values()} == {(16, 16, 3)}


def test_plain_folders_of_label_and_instance_maps_give_the_same_pictures(here: Path) -> None:
    expected = translated("checkpoints/plain", place="plain/test_latest")
    shutil.copytree("data/test_label", "labels")
    shutil.copytree("data/test_inst", "instances")
    made = translated("checkpoints/plain", "labels", "--instances=instances", place="plain/labels_latest")
    assert same(made, {name: image for name, image in expected.items() if "real" not in name})


def test_a_folder_of_cityscapes_holds_both_maps(here: Path) -> None:
    expected = translated("checkpoints/plain", place="plain/test_latest")
    Path("frankfurt").mkdir()
    for part, suffix in (("label", "labelIds"), ("inst", "instanceIds")):
        shutil.copy(f"data/test_{part}/scene_000000.png", f"frankfurt/{CITYSCAPES}_gtFine_{suffix}.png")
    made = translated("checkpoints/plain", "frankfurt", place="plain/labels_latest")
    assert made.keys() == {f"{CITYSCAPES}_{label}" for label in ("input_label", "synthesized_image")}
    for label in ("input_label", "synthesized_image"):
        assert np.array_equal(made[f"{CITYSCAPES}_{label}"], expected[f"scene_000000_{label}"])


def test_phase_and_num_test_choose_the_label_maps(here: Path) -> None:
    made = translated("checkpoints/plain", "--phase=train", "--num_test=1", place="plain/train_latest")
    assert {name[:12] for name in made} == {"scene_000000"}
    assert made["scene_000000_input_label"].shape == (32, 64, 3)


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("run", ["plain", "styled"])
def test_a_bare_file_of_the_original_needs_no_option(here: Path, prefix: str, run: str) -> None:
    """Plain state_dicts, as the label2city networks come; the original's 35 labels and edges are found by count."""
    arguments = ["--use_encoded_image"] if run == "styled" else []
    expected = translated(f"checkpoints/{run}", *arguments, place=f"{run}/test_latest")
    Path("label2city").mkdir()
    for network in "GE" if run == "styled" else "G":
        weights = load_weights(Path(f"checkpoints/{run}/latest_net_{network}.pth"))
        torch.save({prefix + name: value for name, value in weights.items()}, f"label2city/latest_net_{network}.pth")
    flags = [*arguments, "--load_size=64"]
    made = translated("label2city/latest_net_G.pth", "data", *flags, place="label2city/test_latest")
    assert same(made, expected)


def test_a_label_that_is_ignored_in_training_is_ignored_here(here: Path) -> None:
    for phase in ("train", "test"):
        path = Path(f"data/{phase}_label/scene_000000.png")
        label = picture(path).copy()
        label[:9] = 99
        Image.fromarray(label).save(path)
    train_tiny("holes", unknown_label="ignore", no_html=False)
    made = translated("checkpoints/holes", place="holes/test_latest")
    assert not made["scene_000000_input_label"][:9].any()


@pytest.mark.parametrize("bare", [False, True], ids=["run", "bare file"])
def test_pictures_can_be_the_input(here: Path, bare: bool) -> None:
    for phase in ("train", "test"):
        for side, part in (("A", "img"), ("B", "img")):
            shutil.copytree(f"data/{phase}_{part}", f"pictures/{phase}_{side}")
    train_tiny("pictures", dataroot="pictures", label_nc=0, no_instance=True)
    expected = translated("checkpoints/pictures", place="pictures/test_latest")
    assert np.array_equal(expected["scene_000000_input_label"], picture("pictures/test_A/scene_000000.png"))
    if bare:
        Path("other").mkdir()
        torch.save(dict(load_weights("checkpoints/pictures/latest_net_G.pth")), "other/latest_net_G.pth")
        made = translated("other/latest_net_G.pth", "pictures", "--load_size=64", place="other/test_latest")
    else:
        made = translated("checkpoints/pictures", "pictures/test_A", place="pictures/labels_latest")
        expected = {name: image for name, image in expected.items() if "real" not in name}
    assert same(made, expected)


def test_a_bare_file_of_other_labels_is_told_how_many(here: Path) -> None:
    train_tiny("forty", label_nc=40, no_instance=True)
    expected = translated("checkpoints/forty", place="forty/test_latest")
    Path("other").mkdir()
    torch.save(dict(load_weights("checkpoints/forty/latest_net_G.pth")), "other/latest_net_G.pth")
    flags = ["--label_nc=40", "--no_instance", "--load_size=64"]
    assert same(translated("other/latest_net_G.pth", "data", *flags, place="other/test_latest"), expected)


def test_a_bare_local_enhancer_works_at_twice_the_size_of_a_global_generator(here: Path) -> None:
    for netG in ("global", "local"):
        torch.save(dict(define_hd_G(netG, 36, 3, 1, 3, 1, 1, 1).state_dict()), f"{netG}_net_G.pth")
    sizes = {netG: open_checkpoint(f"{netG}_net_G.pth").config.load_size for netG in ("global", "local")}
    assert sizes == {"global": 1024, "local": 2048}
    flags = ["local_net_G.pth", "data", "--resize_or_crop=none"]
    config = open_checkpoint("local_net_G.pth").config
    made = translated(*flags, place=f"{config.name}/test_local")
    assert made["scene_000000_synthesized_image"].shape == (36, 64, 3)


def test_a_training_on_precomputed_features_has_the_encoder_that_made_them(here: Path) -> None:
    call = [
        "train", "--model=pix2pixHD", "--name=fine", "--netG=local", "--coarse_to_fine", "--instance_feat",
        "--load_features", "--niter_global=1", "--niter_decay_global=0", "--n_blocks_local=1",
    ]  # fmt: skip
    assert main(call + [f"--{key}={value}" for key, value in TINY.items()]) == 0
    coarse, fine = (load_weights(f"checkpoints/{name}/latest_net_E.pth") for name in ("fine_global", "fine"))
    assert all(torch.equal(coarse[name], fine[name]) for name in coarse)
    encoded = translated("checkpoints/fine", "--use_encoded_image", place="fine/test_latest")
    without = translated("checkpoints/fine", "--no_style", place="fine/test_latest")
    name = "scene_000000_synthesized_image"
    assert (encoded[name] != without[name]).any()


def test_the_styles_of_classes_are_drawn_by_their_label(here: Path) -> None:
    train_tiny("classes", label_feat=True)
    rng = np.random.default_rng(0)
    Clusters({label: rng.standard_normal((4, 3)) * 9 for label in range(35)}).save("styles.npz")
    flags = ["--cluster_path=styles.npz", "--override"]
    name = "scene_000000_synthesized_image"
    labels, counts = np.unique(picture("data/test_label/scene_000000.png"), return_counts=True)
    most = int(labels[counts.argmax()])
    made = [translated("checkpoints/classes", *flags, f"{most}={n}", place="classes/test_latest") for n in (0, 1)]
    assert (made[0][name] != made[1][name]).any()


# --- styles -----------------------------------------------------------------------------------------------------


def test_diverse_styles_stand_side_by_side_and_differ(here: Path) -> None:
    train_tiny("many", instance_feat=True, seed=1)
    rng = np.random.default_rng(0)
    many = Clusters({label: rng.standard_normal((10, 3)) for label in range(35)})
    many.save("checkpoints/many/features_clustered_010.npz")
    made = translated("checkpoints/many", "--styles=3", "--seed=5", place="many/test_latest")
    names = [f"scene_000000_synthesized_image_{number}" for number in range(3)]
    assert [name for name in sorted(made) if "synthesized" in name and "000000" in name] == names
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (made[names[one]] != made[names[other]]).any()
    row = next(
        line for line in Path("results/many/test_latest/index.html").read_text().splitlines() if names[0] in line
    )
    assert all(name in row for name in names)
    second = translated("checkpoints/many", "--seed=6", place="many/test_latest")
    assert np.array_equal(second["scene_000000_synthesized_image"], made[names[1]]), "style k is not that of seed + k"


def test_one_seed_gives_the_same_pictures(here: Path) -> None:
    first, second = (translated("checkpoints/styled", "--styles=2", "--seed=3") for _ in range(2))
    assert same(first, second)


def test_the_style_of_the_real_image_is_that_of_the_encoder_not_of_the_clusters(here: Path) -> None:
    drawn = translated("checkpoints/styled")
    encoded = translated("checkpoints/styled", "--use_encoded_image")
    without = translated("checkpoints/styled", "--no_style")
    name = "scene_000000_synthesized_image"
    assert (drawn[name] != without[name]).any()
    assert (encoded[name] != without[name]).any()


def test_override_gives_one_instance_another_style(here: Path) -> None:
    instance = an_instance()
    rng = np.random.default_rng(0)
    Clusters({label: rng.standard_normal((4, 3)) * 9 for label in range(35)}).save("styles.npz")
    made = [
        translated("checkpoints/styled", "--cluster_path=styles.npz", f"--override={instance}={index}")
        for index in (0, 1, 1)
    ]
    name = "scene_000000_synthesized_image"
    assert (made[0][name] != made[1][name]).any()
    assert same(made[1], made[2])


def test_overrides_may_be_given_together_or_one_by_one(here: Path) -> None:
    together = translated("checkpoints/styled", "--override=7=0,23=0")
    assert same(together, translated("checkpoints/styled", "--override", "7=0", "--override", "23=0"))


def test_an_override_that_no_label_map_has_is_said(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = {label: np.zeros((1, 3)) for label in range(35)}
    Clusters(rows).save("styles.npz")
    translated("checkpoints/styled", "--cluster_path=styles.npz", f"--override={an_instance()}=0,26999=0")
    assert "--override: no label map has 26999\n" in capsys.readouterr().out


def test_without_clusters_style_can_be_left_out_when_asked(here: Path) -> None:
    Path("checkpoints/styled/features_clustered_010.npz").unlink()
    assert translated("checkpoints/styled", "--no_style").keys() >= {"scene_000000_synthesized_image"}


def test_a_class_without_clusters_is_zeros(here: Path) -> None:
    Clusters({}).save("none.npz")
    assert same(
        translated("checkpoints/styled", "--cluster_path=none.npz"), translated("checkpoints/styled", "--no_style")
    )
