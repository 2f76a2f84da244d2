"""Making side-by-side files from two folders, and from Cityscapes."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from torchp2p.data.colour import colourise_labels
from torchp2p.data.combine import combine_cityscapes, combine_folders
from torchp2p.data.images import read_image, write_image

RNG = np.random.default_rng(0)


def write(path: Path, image: np.ndarray) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(image, path)
    return image


def noise(height: int, width: int, channels: int = 3, dtype: type = np.uint8) -> np.ndarray:
    return RNG.integers(0, np.iinfo(dtype).max + 1, (height, width, channels), dtype=dtype)


class TestFolders:
    def test_a_is_on_the_left_and_subfolders_are_kept(self, tmp_path: Path) -> None:
        a, b = write(tmp_path / "a/sub/x.png", noise(4, 6)), write(tmp_path / "b/sub/x.tif", noise(4, 6))
        (path,) = combine_folders(tmp_path / "a", tmp_path / "b", tmp_path / "out")
        assert path == tmp_path / "out" / "sub" / "x.png"
        np.testing.assert_array_equal(read_image(path), np.concatenate([a, b], axis=1))

    def test_both_are_resized_when_a_size_is_given(self, tmp_path: Path) -> None:
        a, b = write(tmp_path / "a/x.png", noise(8, 6)), write(tmp_path / "b/x.png", noise(10, 12))
        (path,) = combine_folders(tmp_path / "a", tmp_path / "b", tmp_path / "out", size=(5, 7))
        halves = [Image.fromarray(image).resize((7, 5), Image.Resampling.BICUBIC) for image in (a, b)]
        np.testing.assert_array_equal(read_image(path), np.concatenate(halves, axis=1))

    def test_two_sizes_without_one_asked_for_are_an_error(self, tmp_path: Path) -> None:
        write(tmp_path / "a/x.png", noise(8, 6))
        write(tmp_path / "b/x.png", noise(8, 8))
        with pytest.raises(ValueError, match=r"a.x\.png and .*b.x\.png must have one size"):
            combine_folders(tmp_path / "a", tmp_path / "b", tmp_path / "out")

    def test_a_grey_image_beside_a_colour_one_becomes_rgb(self, tmp_path: Path) -> None:
        a, b = write(tmp_path / "a/x.png", noise(4, 6, 1)), write(tmp_path / "b/x.png", noise(4, 6))
        (path,) = combine_folders(tmp_path / "a", tmp_path / "b", tmp_path / "out")
        np.testing.assert_array_equal(read_image(path), np.concatenate([a.repeat(3, 2), b], axis=1))

    @pytest.mark.parametrize("size", [None, (4, 6)])
    def test_16_bits_stay_16_bits(self, tmp_path: Path, size: tuple[int, int] | None) -> None:
        shape = (4, 6) if size is None else (8, 12)
        image = np.full((*shape, 1), 12345, np.uint16)
        write(tmp_path / "a/x.png", image)
        write(tmp_path / "b/x.png", image)
        (path,) = combine_folders(tmp_path / "a", tmp_path / "b", tmp_path / "out", size)
        np.testing.assert_array_equal(read_image(path), np.full((4, 12, 1), 12345, np.uint16))

    def test_two_depths_are_an_error(self, tmp_path: Path) -> None:
        write(tmp_path / "a/x.png", noise(4, 6, 1))
        write(tmp_path / "b/x.png", noise(4, 6, 1, np.uint16))
        with pytest.raises(ValueError, match="must have one depth, found uint8 and uint16"):
            combine_folders(tmp_path / "a", tmp_path / "b", tmp_path / "out")

    def test_jpeg_is_written_when_asked_for(self, tmp_path: Path) -> None:
        write(tmp_path / "a/x.png", noise(8, 8))
        write(tmp_path / "b/x.png", noise(8, 8))
        (path,) = combine_folders(tmp_path / "a", tmp_path / "b", tmp_path / "out", extension=".jpg")
        assert path.name == "x.jpg"
        assert Image.open(path).size == (16, 8)

    def test_suffixes_pair_the_files_of_one_folder(self, tmp_path: Path) -> None:
        write(tmp_path / "in/x_A.png", noise(4, 6))
        write(tmp_path / "in/x_B.png", noise(4, 6))
        paths = combine_folders(tmp_path / "in", tmp_path / "in", tmp_path / "out", a_suffix="_A", b_suffix="_B")
        assert paths == [tmp_path / "out" / "x.png"]

    def test_progress_counts_every_pair(self, tmp_path: Path) -> None:
        for name in ("a/1", "a/2", "b/1", "b/2"):
            write(tmp_path / f"{name}.png", noise(4, 4))
        seen: list[tuple[int, int]] = []
        combine_folders(
            tmp_path / "a",
            tmp_path / "b",
            tmp_path / "out",
            progress=lambda done, total: seen.append((done, total)),
        )
        assert seen == [(1, 2), (2, 2)]


class TestOverwriting:
    @pytest.fixture
    def folders(self, tmp_path: Path) -> tuple[Path, Path, Path]:
        """Two pairs, and an output folder in which the second file exists."""
        for name in ("a/1", "a/2", "b/1", "b/2"):
            write(tmp_path / f"{name}.png", noise(4, 4))
        write(tmp_path / "out/2.png", np.zeros((1, 1, 1), np.uint8))
        return tmp_path / "a", tmp_path / "b", tmp_path / "out"

    def test_an_existing_file_stops_everything_before_the_first_write(self, folders: tuple[Path, Path, Path]) -> None:
        with pytest.raises(FileExistsError, match=r"1 of 2 files exist already, .*2\.png first; pass overwrite"):
            combine_folders(*folders)
        assert [path.name for path in folders[2].iterdir()] == ["2.png"]
        assert read_image(folders[2] / "2.png").shape == (1, 1, 1)

    def test_it_is_replaced_when_asked_for(self, folders: tuple[Path, Path, Path]) -> None:
        combine_folders(*folders, overwrite=True)
        assert read_image(folders[2] / "2.png").shape == (4, 8, 3)

    @pytest.mark.parametrize("which", [0, 1])
    def test_the_inputs_are_never_written_over(self, folders: tuple[Path, Path, Path], which: int) -> None:
        with pytest.raises(ValueError, match="out_dir must not be a folder that is read"):
            combine_folders(folders[0], folders[1], folders[which], overwrite=True)


class TestCityscapes:
    @pytest.fixture
    def folders(self, tmp_path: Path) -> tuple[Path, Path, Path]:
        """One frame in the layout of Cityscapes, 8x16, with the other files that lie beside it."""
        labels = tmp_path / "gtFine" / "train" / "bonn"
        write(labels / "bonn_000_000_gtFine_labelIds.png", RNG.integers(0, 35, (8, 16, 1)).astype(np.uint8))
        write(labels / "bonn_000_000_gtFine_instanceIds.png", noise(8, 16, 1, np.uint16))
        write(labels / "bonn_000_000_gtFine_color.png", noise(8, 16))
        photos = tmp_path / "leftImg8bit" / "train" / "bonn"
        write(photos / "bonn_000_000_leftImg8bit.png", noise(8, 16))
        return labels.parent, photos.parent, tmp_path / "out"

    def test_the_coloured_label_is_left_of_the_photograph(self, folders: tuple[Path, Path, Path]) -> None:
        (path,) = combine_cityscapes(*folders, size=(4, 6))
        assert path == folders[2] / "bonn" / "bonn_000_000.png"
        label = Image.open(folders[0] / "bonn" / "bonn_000_000_gtFine_labelIds.png")
        photo = Image.open(folders[1] / "bonn" / "bonn_000_000_leftImg8bit.png")
        left = colourise_labels(np.asarray(label.resize((6, 4), Image.Resampling.NEAREST)))
        right = np.asarray(photo.resize((6, 4), Image.Resampling.BICUBIC))
        np.testing.assert_array_equal(read_image(path), np.concatenate([left, right], axis=1))

    def test_a_label_outside_the_palette_is_an_error_that_names_the_file(
        self, folders: tuple[Path, Path, Path]
    ) -> None:
        write(folders[0] / "bonn" / "bonn_000_000_gtFine_labelIds.png", np.full((8, 16, 1), 255, np.uint8))
        with pytest.raises(ValueError, match=r"labelIds\.png: label 255 at row 0, column 0"):
            combine_cityscapes(*folders)

    def test_it_can_be_shown_as_a_chosen_label(self, folders: tuple[Path, Path, Path]) -> None:
        write(folders[0] / "bonn" / "bonn_000_000_gtFine_labelIds.png", np.full((8, 16, 1), 255, np.uint8))
        (path,) = combine_cityscapes(*folders, size=(4, 4), unknown=23)
        assert (read_image(path)[:, :4] == (70, 130, 180)).all()

    def test_a_label_and_a_photograph_of_different_shapes_are_an_error(self, folders: tuple[Path, Path, Path]) -> None:
        write(folders[1] / "bonn" / "bonn_000_000_leftImg8bit.png", noise(8, 8))
        with pytest.raises(ValueError, match="must have one size"):
            combine_cityscapes(*folders)

    @pytest.mark.cityscapes
    def test_real_frames_are_combined(self, cityscapes: Path, tmp_path: Path) -> None:
        paths = combine_cityscapes(cityscapes / "train_label", cityscapes / "train_img", tmp_path)
        assert len(paths) == len(list((cityscapes / "train_label").iterdir()))
        assert all(Image.open(path).size == (512, 256) for path in paths)
