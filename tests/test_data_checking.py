"""Looking at a dataset before training: every file decoded, and a sheet of thumbnails."""

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from torchp2p.data.checking import DatasetError, check_dataset, check_files
from torchp2p.data.contact_sheet import contact_sheet
from torchp2p.data.datasets import PairedDataset, build_dataset

NOISE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)


@dataclass(frozen=True)
class Options:
    dataroot: Path = Path()
    phase: str = "train"
    dataset_mode: str = "folders"
    direction: str = "AtoB"
    input_nc: int = 3
    output_nc: int = 3
    preprocess: str = "none"
    load_size: int = 32
    crop_size: int = 32
    no_flip: bool = True
    max_dataset_size: int | None = None
    serial_batches: bool = False
    seed: int = 0


def write(path: Path, image: np.ndarray = NOISE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.fixture
def options(tmp_path: Path) -> Options:
    """Three sound pairs in two folders."""
    for index in range(3):
        write(tmp_path / "data" / "trainA" / f"{index}.png")
        write(tmp_path / "data" / "trainB" / f"{index}.jpg")
    return Options(tmp_path / "data")


class TestCheckFiles:
    def test_a_sound_dataset_has_no_problem(self, options: Options) -> None:
        assert check_files(build_dataset(options)) == []

    @pytest.mark.parametrize("names", [["trainA/1.png"], ["trainB/2.jpg"], ["trainA/0.png", "trainB/0.jpg"]])
    def test_every_truncated_file_is_found(self, options: Options, names: list[str]) -> None:
        paths = [options.dataroot / name for name in names]
        for path in paths:
            truncate(path)
        problems = check_files(build_dataset(options))
        assert [problem.path for problem in problems] == [str(path) for path in paths]
        assert all("could not be read" in problem.reason for problem in problems)

    def test_two_sizes_in_a_pair_are_a_problem_of_the_pair(self, options: Options) -> None:
        write(options.dataroot / "trainB" / "1.jpg", NOISE[:20])
        (problem,) = check_files(build_dataset(options))
        assert problem.path == "1"
        assert "must have one size, found (32, 32) and (20, 32)" in problem.reason

    def test_wrong_channels_are_a_problem(self, options: Options) -> None:
        problems = check_files(build_dataset(replace(options, input_nc=4)))
        assert len(problems) == 3
        assert "expected 4 channels, found 3" in problems[0].reason

    def test_a_vanished_file_is_a_problem(self, options: Options) -> None:
        dataset = build_dataset(options)
        (options.dataroot / "trainA" / "1.png").unlink()
        (problem,) = check_files(dataset)
        assert problem.path.endswith("1.png")

    def test_a_list_of_paths_can_be_checked(self, tmp_path: Path) -> None:
        sound, cut = write(tmp_path / "sound.png"), write(tmp_path / "cut.png")
        truncate(cut)
        assert [problem.path for problem in check_files([sound, cut])] == [str(cut)]

    def test_progress_counts_every_sample(self, options: Options) -> None:
        seen: list[tuple[int, int]] = []
        check_files(build_dataset(options), progress=lambda done, total: seen.append((done, total)))
        assert seen == [(1, 3), (2, 3), (3, 3)]

    def test_the_demo_has_no_file_to_check(self) -> None:
        assert check_files(build_dataset(Options(dataset_mode="demo"))) == []


class TestCheckDataset:
    def test_all_problems_are_in_one_error(self, options: Options) -> None:
        for name in ("trainA/0.png", "trainB/2.jpg"):
            truncate(options.dataroot / name)
        with pytest.raises(DatasetError, match=r"problems found: 2 in 3 samples\n.*0\.png.*\n.*2\.jpg") as caught:
            check_dataset(build_dataset(options))
        assert len(caught.value.problems) == 2

    def test_after_twenty_the_rest_is_counted(self, tmp_path: Path) -> None:
        for index in range(25):
            truncate(write(tmp_path / f"{index:02d}.png"))
        with pytest.raises(DatasetError) as caught:
            check_dataset(build_dataset(Options(tmp_path, dataset_mode="single")))
        lines = str(caught.value).splitlines()
        assert len(lines) == 22
        assert lines[-1] == "  and 5 more"


class TestStamp:
    @pytest.fixture
    def stamp(self, options: Options, tmp_path: Path) -> Path:
        """The stamp of a check that succeeded."""
        check_dataset(build_dataset(options), tmp_path / "checked.json")
        return tmp_path / "checked.json"

    @staticmethod
    def decoded(dataset: PairedDataset, stamp: Path, monkeypatch: pytest.MonkeyPatch) -> int:
        """How many samples a check decodes."""
        read: list[int] = []
        monkeypatch.setattr(dataset, "read", lambda index: read.append(index))
        check_dataset(dataset, stamp)
        return len(read)

    def test_it_lists_path_size_and_time_of_each_file(self, options: Options, stamp: Path) -> None:
        path = options.dataroot / "trainA" / "0.png"
        expected = [str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns]
        files = json.loads(stamp.read_text())["files"]
        assert len(files) == 6
        assert files[0] == expected

    def test_an_unchanged_dataset_is_not_decoded_again(
        self, options: Options, stamp: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert self.decoded(build_dataset(options), stamp, monkeypatch) == 0

    def test_a_touched_file_is_enough_to_check_again(
        self, options: Options, stamp: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        os.utime(options.dataroot / "trainA" / "0.png", ns=(1, 1))
        assert self.decoded(build_dataset(options), stamp, monkeypatch) == 3

    def test_other_channels_are_checked_again(self, options: Options, stamp: Path) -> None:
        with pytest.raises(DatasetError):
            check_dataset(build_dataset(replace(options, input_nc=5)), stamp)

    def test_a_damaged_stamp_counts_as_none(
        self, options: Options, stamp: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        truncate(stamp)
        assert self.decoded(build_dataset(options), stamp, monkeypatch) == 3

    def test_a_failed_check_leaves_no_stamp(self, options: Options, tmp_path: Path) -> None:
        truncate(options.dataroot / "trainA" / "0.png")
        with pytest.raises(DatasetError):
            check_dataset(build_dataset(options), tmp_path / "new.json")
        assert not (tmp_path / "new.json").exists()


class TestContactSheet:
    def sheet(self, options: Options, tmp_path: Path, **arguments: int) -> np.ndarray:
        contact_sheet(build_dataset(options), tmp_path / "sheet.png", **arguments)
        return np.asarray(Image.open(tmp_path / "sheet.png"))

    def test_a_is_beside_b_under_the_name(self, tmp_path: Path) -> None:
        write(tmp_path / "trainA" / "x.png", np.full((128, 128, 3), (255, 0, 0), np.uint8))
        write(tmp_path / "trainB" / "x.png", np.full((128, 128, 3), (0, 0, 255), np.uint8))
        sheet = self.sheet(Options(tmp_path), tmp_path)
        red, blue = (sheet == (255, 0, 0)).all(axis=2), (sheet == (0, 0, 255)).all(axis=2)
        assert red.sum() == blue.sum() == 128 * 128
        assert np.flatnonzero(red.any(axis=0)).max() < np.flatnonzero(blue.any(axis=0)).min()
        name = sheet[: np.flatnonzero(red.any(axis=1)).min()]
        assert (name < 128).any()

    @pytest.mark.parametrize(("columns", "shape"), [(1, (3, 1)), (2, (2, 2)), (9, (1, 3))])
    def test_columns_make_the_grid(
        self, options: Options, tmp_path: Path, columns: int, shape: tuple[int, int]
    ) -> None:
        one = self.sheet(replace(options, max_dataset_size=1), tmp_path)
        height, width = one.shape[0] - 8, one.shape[1] - 8
        sheet = self.sheet(options, tmp_path, columns=columns)
        assert sheet.shape == (shape[0] * height + 8, shape[1] * width + 8, 3)

    def test_the_samples_are_spread_from_the_first_to_the_last(
        self, options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        dataset, shown = build_dataset(options), []
        sample = dataset.sample
        monkeypatch.setattr(dataset, "sample", lambda index, epoch: shown.append(index) or sample(index, epoch))
        contact_sheet(dataset, tmp_path / "sheet.png", count=2)
        assert shown == [0, 2]

    def test_a_single_dataset_shows_a_alone(self, options: Options, tmp_path: Path) -> None:
        pairs = self.sheet(replace(options, max_dataset_size=1), tmp_path)
        single = replace(options, dataset_mode="single", dataroot=options.dataroot / "trainA", max_dataset_size=1)
        assert self.sheet(single, tmp_path).shape[1] == pairs.shape[1] - 128

    def test_long_names_keep_to_their_cell(self, tmp_path: Path) -> None:
        write(tmp_path / f"{'long_' * 30}.png", np.zeros((8, 8, 3), np.uint8))
        sheet = self.sheet(Options(tmp_path, dataset_mode="single"), tmp_path)
        assert (sheet[:, -8:] == 255).all()

    @pytest.mark.parametrize("arguments", [{"count": 0}, {"columns": 0}])
    def test_nothing_to_show_is_refused(self, options: Options, tmp_path: Path, arguments: dict[str, int]) -> None:
        with pytest.raises(ValueError, match="count and columns must be at least 1"):
            self.sheet(options, tmp_path, **arguments)
