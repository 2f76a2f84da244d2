"""Which files make up a sample of a labelled dataset: layouts, names, and what is said when they do not match."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from torchp2p.data.labelled_files import LabelledFiles, find_labelled_files


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def find(
    root: Path, phase: str = "train", *, rgb: bool = False, instances: bool = True, features: bool = False
) -> list[LabelledFiles]:
    return find_labelled_files(root, phase, rgb=rgb, instances=instances, features=features)


class TestFolders:
    def test_parts_are_matched_by_name_whatever_the_extension(self, tmp_path: Path) -> None:
        touch(tmp_path, "train_label/b.png", "train_label/a.png", "train_inst/a.tif", "train_inst/b.png")
        touch(tmp_path, "train_img/a.jpg", "train_img/b.JPG")
        first, second = find(tmp_path)
        assert (first.name, second.name) == ("a", "b")
        assert first.paths == {
            "label": tmp_path / "train_label/a.png",
            "inst": tmp_path / "train_inst/a.tif",
            "image": tmp_path / "train_img/a.jpg",
        }

    def test_the_suffixes_of_cityscapes_are_no_part_of_the_name(self, tmp_path: Path) -> None:
        touch(tmp_path, "train_label/a_0_gtFine_labelIds.png", "train_inst/a_0_gtFine_instanceIds.png")
        touch(tmp_path, "train_img/a_0_leftImg8bit.png", "train_feat/a_0_gtFine_labelIds.png")
        (found,) = find(tmp_path, features=True)
        assert found.name == "a_0"
        assert set(found.paths) == {"label", "inst", "image", "feat"}

    def test_subfolders_are_part_of_the_name(self, tmp_path: Path) -> None:
        touch(tmp_path, "train_label/c/a.png", "train_inst/c/a.png", "train_img/c/a.png")
        assert find(tmp_path)[0].name == "c/a"

    def test_rgb_input_is_in_a_and_its_target_in_b(self, tmp_path: Path) -> None:
        touch(tmp_path, "train_A/x.jpg", "train_B/x.png")
        (found,) = find(tmp_path, rgb=True, instances=False)
        assert found.paths == {"label": tmp_path / "train_A/x.jpg", "image": tmp_path / "train_B/x.png"}

    def test_features_belong_under_the_name_of_the_label_as_png(self, tmp_path: Path) -> None:
        touch(tmp_path, "train_label/c/a_gtFine_labelIds.tif", "train_img/c/a_leftImg8bit.jpg")
        (found,) = find(tmp_path, instances=False)
        assert found.feature == tmp_path / "train_feat/c/a_gtFine_labelIds.png"

    def test_outside_training_images_may_be_absent(self, tmp_path: Path) -> None:
        touch(tmp_path, "test_label/x.png", "test_inst/x.png")
        assert set(find(tmp_path, "test")[0].paths) == {"label", "inst"}

    def test_outside_training_images_that_are_there_belong_to_the_sample(self, tmp_path: Path) -> None:
        touch(tmp_path, "test_label/x.png", "test_inst/x.png", "test_img/x.png")
        assert "image" in find(tmp_path, "test")[0].paths

    def test_parts_that_are_not_wanted_are_not_looked_at(self, tmp_path: Path) -> None:
        touch(tmp_path, "train_label/x.png", "train_img/x.png", "train_inst/y.png", "train_feat/z.png")
        assert set(find(tmp_path, instances=False)[0].paths) == {"label", "image"}


class TestCityscapes:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        """Two cities, with the files of the download that are no part of a sample."""
        for frame in ("aachen/aachen_000000_000019", "ulm/ulm_000001_000019"):
            for kind in ("labelIds", "instanceIds", "color"):
                touch(tmp_path, f"gtFine/train/{frame}_gtFine_{kind}.png")
            touch(tmp_path, f"gtFine/train/{frame}_gtFine_polygons.json", f"leftImg8bit/train/{frame}_leftImg8bit.png")
        return tmp_path

    def test_the_folders_of_the_download_are_read_as_they_are(self, root: Path) -> None:
        found = find(root)
        assert [each.name for each in found] == ["aachen/aachen_000000_000019", "ulm/ulm_000001_000019"]
        assert {part: path.name.removeprefix("ulm_000001_000019_") for part, path in found[1].paths.items()} == {
            "label": "gtFine_labelIds.png",
            "inst": "gtFine_instanceIds.png",
            "image": "leftImg8bit.png",
        }

    def test_rgb_input_is_the_colour_label(self, root: Path) -> None:
        (found, _) = find(root, rgb=True, instances=False)
        assert found.paths["label"].name == "aachen_000000_000019_gtFine_color.png"

    def test_features_belong_beside_the_other_folders(self, root: Path) -> None:
        expected = root / "train_feat/aachen/aachen_000000_000019_gtFine_labelIds.png"
        assert find(root)[0].feature == expected

    def test_a_split_without_photographs_will_do_outside_training(self, root: Path) -> None:
        (root / "gtFine/train").rename(root / "gtFine/val")
        assert set(find(root, "val")[0].paths) == {"label", "inst"}


def _remove(name: str) -> Callable[[Path], object]:
    return lambda root: (root / name).unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_remove("train_inst/2.png"), r"train_label \(label without inst\): no partner for 1 of its images: 2$"),
        (_remove("train_img/1.png"), r"train_label \(label without image\): no partner for 1 of its images: 1$"),
        (_remove("train_label/2.png"), r"train_inst \(inst without label\): .*: 2; .*train_img \(image without.*: 2$"),
        (_remove("train_feat/0.png"), r"train_label \(label without feat\): no partner for 1 of its images: 0$"),
        (lambda root: touch(root, "train_label/1.tif"), r"train_label/1\.png and .*1\.tif have the same name"),
        (lambda root: touch(root, "gtFine/train/a/a_gtFine_labelIds.png"), r"train_label or in .*gtFine/train; both"),
    ],
)
def test_files_that_do_not_match_are_listed(tmp_path: Path, spoil: Callable[[Path], object], message: str) -> None:
    folders = ("train_label", "train_inst", "train_img", "train_feat")
    touch(tmp_path, *(f"{folder}/{number}.png" for folder in folders for number in range(3)))
    spoil(tmp_path)
    with pytest.raises(ValueError, match=message):
        find(tmp_path, features=True)


def test_equal_counts_of_different_names_are_never_matched_by_order(tmp_path: Path) -> None:
    touch(tmp_path, "train_label/1.png", "train_img/2.png")
    with pytest.raises(ValueError, match=r"images: 1; .* images: 2$"):
        find(tmp_path, instances=False)


@pytest.mark.parametrize(
    ("present", "message"),
    [
        ([], "a labelled dataset is in {root}/train_label or {root}/gtFine/train; neither folder exists"),
        (["train_label/x.png"], "there is no folder {root}/train_inst; no_instance true does without it"),
        (["train_label/x.png", "train_inst/x.png"], "there is no folder {root}/train_feat; load_features false"),
        (["train_label/x.png", "train_inst/x.png", "train_feat/x.png"], "there is no folder {root}/train_img"),
    ],
)
def test_a_missing_folder_is_named(tmp_path: Path, present: list[str], message: str) -> None:
    touch(tmp_path, *present)
    with pytest.raises(FileNotFoundError, match=re.escape(message.format(root=tmp_path))):
        find(tmp_path, features=True)
