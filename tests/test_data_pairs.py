"""Finding image files and pairing them by name."""

import os
from pathlib import Path

import pytest

from torchp2p.data.pairs import find_images, image_name, pair_by_name


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


class TestFinding:
    @pytest.mark.parametrize(
        "extension", ["jpg", "jpeg", "png", "ppm", "bmp", "tif", "tiff", "npy", "webp", "JPG", "Tif"]
    )
    def test_images_are_known_by_their_extension_in_any_case(self, tmp_path: Path, extension: str) -> None:
        touch(tmp_path, f"x.{extension}")
        assert find_images(tmp_path) == [tmp_path / f"x.{extension}"]

    def test_subfolders_are_searched_and_the_order_is_that_of_the_path(self, tmp_path: Path) -> None:
        touch(tmp_path, "b/1.png", "a/2.png", "c.png", "a/10.png", "a.png", "a/notes.txt")
        names = [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path)]
        assert names == ["a.png", "a/10.png", "a/2.png", "b/1.png", "c.png"]

    def test_hidden_files_and_folders_are_not_data(self, tmp_path: Path) -> None:
        touch(tmp_path, "x.png", ".x.1234.png", "._x.png", ".ipynb_checkpoints/x.png")
        assert find_images(tmp_path) == [tmp_path / "x.png"]

    @pytest.mark.skipif(os.name == "nt", reason="symbolic links need rights on Windows")
    def test_linked_folders_are_followed_and_a_loop_ends(self, tmp_path: Path) -> None:
        touch(tmp_path / "elsewhere", "x.png")
        data = touch(tmp_path / "data", "y.png")
        (data / "linked").symlink_to(tmp_path / "elsewhere")
        (data / "loop").symlink_to(data)
        assert find_images(data) == [data / "linked" / "x.png", data / "y.png"]

    def test_a_missing_folder_is_file_not_found(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere"):
            find_images(tmp_path / "nowhere")

    def test_an_empty_folder_says_what_was_looked_for(self, tmp_path: Path) -> None:
        touch(tmp_path, "x.gif")
        with pytest.raises(ValueError, match=r"holds no image; looked for \.jpg \.jpeg \.png"):
            find_images(tmp_path)

    def test_a_name_has_forward_slashes_and_loses_the_last_extension_alone(self, tmp_path: Path) -> None:
        assert image_name(tmp_path / "city" / "a.b.png", tmp_path) == "city/a.b"


class TestPairing:
    def test_names_are_matched_whatever_the_extension(self, tmp_path: Path) -> None:
        a = touch(tmp_path / "a", "2.png", "sub/1.png")
        b = touch(tmp_path / "b", "sub/1.jpg", "2.TIF")
        assert pair_by_name(a, b) == [
            ("2", a / "2.png", b / "2.TIF"),
            ("sub/1", a / "sub/1.png", b / "sub/1.jpg"),
        ]

    def test_files_without_a_partner_are_listed_for_both_sides(self, tmp_path: Path) -> None:
        a = touch(tmp_path / "a", "1.png", "2.png", "3.png")
        b = touch(tmp_path / "b", "1.png", "4.png")
        with pytest.raises(
            ValueError,
            match=r"a: no partner for 2 of its images: 2, 3; .*b: no partner for 1 of its images: 4$",
        ):
            pair_by_name(a, b)

    def test_the_list_stops_after_ten(self, tmp_path: Path) -> None:
        a = touch(tmp_path / "a", *(f"{index:02d}.png" for index in range(15)))
        b = touch(tmp_path / "b", "00.png")
        with pytest.raises(ValueError, match=r"no partner for 14 of its images: 01, .* 09, 10 and 4 more$"):
            pair_by_name(a, b)

    def test_equal_counts_of_different_names_are_never_paired_by_order(self, tmp_path: Path) -> None:
        a, b = touch(tmp_path / "a", "1.png", "2.png"), touch(tmp_path / "b", "1.png", "3.png")
        with pytest.raises(ValueError, match=r"images: 2; .* images: 3$"):
            pair_by_name(a, b)

    def test_one_name_twice_in_a_folder_is_an_error(self, tmp_path: Path) -> None:
        a, b = touch(tmp_path / "a", "1.jpg", "1.png"), touch(tmp_path / "b", "1.png")
        with pytest.raises(ValueError, match=r"1\.jpg and .*1\.png have the same name"):
            pair_by_name(a, b)

    def test_suffixes_choose_the_files_and_leave_the_name(self, tmp_path: Path) -> None:
        both = touch(tmp_path, "x_A.png", "x_B.jpg", "x_depth.png")
        assert pair_by_name(both, both, a_suffix="_A", b_suffix="_B") == [("x", both / "x_A.png", both / "x_B.jpg")]

    def test_a_suffix_that_no_file_has_is_an_error(self, tmp_path: Path) -> None:
        touch(tmp_path, "x_A.png")
        with pytest.raises(ValueError, match="holds no image whose name ends with _B"):
            pair_by_name(tmp_path, tmp_path, a_suffix="_A", b_suffix="_B")
