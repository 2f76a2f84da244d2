"""The labelled datasets: integers end to end, one geometry for all parts, one sentence for every bad input."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from labelled_data import IDS, LabelledOptions, colours, equal, instances, labels, stored, write, write_frame
from PIL import Image

from torchp2p.data import CITYSCAPES_PALETTE, ImageError, build_labelled_dataset, label_palette, make_loader
from torchp2p.data import to_step_batch as step_batch
from torchp2p.data.checking import DatasetError, check_dataset, check_files
from torchp2p.data.contact_sheet import contact_sheet
from torchp2p.data.images import to_tensor


@pytest.fixture
def frames(tmp_path: Path) -> LabelledOptions:
    """Five frames 40 wide with everything."""
    for index in range(5):
        write_frame(tmp_path, str(index))
    return LabelledOptions(tmp_path, load_features=True)


class TestItems:
    def test_a_sample_holds_the_stored_integers(self, frames: LabelledOptions) -> None:
        item = build_labelled_dataset(frames)[0]
        assert {part: (item[part].dtype, item[part].shape) for part in ("label", "inst", "image", "feat")} == {
            "label": (torch.uint8, (1, 20, 40)),
            "inst": (torch.int32, (1, 20, 40)),
            "image": (torch.uint8, (3, 20, 40)),
            "feat": (torch.uint8, (3, 20, 40)),
        }
        assert item["name"] == "0"
        root = frames.dataroot
        np.testing.assert_array_equal(item["label"][0], stored(root / "train_label/0.png"))
        np.testing.assert_array_equal(item["inst"][0], stored(root / "train_inst/0.png"))
        np.testing.assert_array_equal(item["image"].permute(1, 2, 0), stored(root / "train_img/0.png"))
        np.testing.assert_array_equal(item["feat"].permute(1, 2, 0), stored(root / "train_feat/0.png"))

    @pytest.mark.parametrize("size", [40, 20])
    def test_ids_beyond_15_bits_stay_what_they_are(self, frames: LabelledOptions, size: int) -> None:
        found = build_labelled_dataset(replace(frames, load_size=size))[0]["inst"].unique().tolist()
        assert set(found) <= set(IDS.tolist())
        assert {33001, 65535} <= set(found)

    def test_instance_maps_of_8_bits_are_ids(self, frames: LabelledOptions) -> None:
        ids = write(frames.dataroot / "train_inst/0.png", labels(20, 40))
        np.testing.assert_array_equal(build_labelled_dataset(frames)[0]["inst"][0], ids)

    @pytest.mark.parametrize("values", [[0, 70_000, 2**31 - 1], [-1, 5], [-(2**31), 65536]])
    def test_instance_ids_may_need_32_bits_or_be_negative(self, frames: LabelledOptions, values: list[int]) -> None:
        (frames.dataroot / "train_inst/0.png").unlink()
        ids = write(frames.dataroot / "train_inst/0.npy", np.resize(values, (20, 40)))
        np.testing.assert_array_equal(build_labelled_dataset(frames)[0]["inst"][0], ids)

    def test_the_label_of_a_palette_file_is_the_index(self, frames: LabelledOptions) -> None:
        ids = labels(20, 40)
        image = Image.fromarray(ids)
        image.putpalette(CITYSCAPES_PALETTE.tobytes())
        image.save(frames.dataroot / "train_label/0.png")
        np.testing.assert_array_equal(build_labelled_dataset(frames)[0]["label"][0], ids)

    def test_parts_that_are_not_asked_for_are_absent(self, frames: LabelledOptions) -> None:
        item = build_labelled_dataset(replace(frames, no_instance=True, load_features=False))[0]
        assert set(item) == {"label", "image", "name"}

    def test_a_test_phase_may_have_labels_alone(self, tmp_path: Path) -> None:
        write(tmp_path / "test_label/x.png", labels(20, 40))
        item = build_labelled_dataset(LabelledOptions(tmp_path, phase="test", no_instance=True))[0]
        assert set(item) == {"label", "name"}

    @pytest.mark.parametrize("channels", [1, 3])
    def test_input_without_labels_is_rgb(self, tmp_path: Path, channels: int) -> None:
        a = write(tmp_path / "train_A/x.png", colours(20, 40) if channels == 3 else labels(20, 40))
        write(tmp_path / "train_B/x.jpg", colours(20, 40))
        item = build_labelled_dataset(LabelledOptions(tmp_path, label_nc=0, no_instance=True))[0]
        np.testing.assert_array_equal(item["label"].permute(1, 2, 0), np.broadcast_to(np.atleast_3d(a), (20, 40, 3)))

    def test_max_dataset_size_keeps_the_first(self, frames: LabelledOptions) -> None:
        dataset = build_labelled_dataset(replace(frames, max_dataset_size=2))
        assert [dataset.name(index) for index in range(len(dataset))] == ["0", "1"]


class TestGeometry:
    @pytest.mark.parametrize(
        ("mode", "stored_size", "final"),
        [
            ("scale_width", (33, 80), (16, 40)),  # int(40 * 33 / 80); the crop size has no say
            ("scale_width", (10, 40), (10, 40)),
            ("scale_width_and_crop", (60, 80), (16, 16)),
            ("resize_and_crop", (60, 80), (16, 16)),
            ("crop", (60, 10), (16, 10)),
            ("none", (24, 40), (32, 32)),  # both are halves: round to even
            ("none", (41, 7), (48, 16)),  # never to 0
            ("none", (32, 48), (32, 48)),
        ],
    )
    def test_the_network_gets_this_size(
        self, tmp_path: Path, mode: str, stored_size: tuple[int, int], final: tuple[int, int]
    ) -> None:
        write_frame(tmp_path, size=stored_size)
        item = build_labelled_dataset(LabelledOptions(tmp_path, resize_or_crop=mode, load_features=True))[0]
        assert all(item[part].shape[1:] == final for part in ("label", "inst", "image", "feat"))

    def test_ids_and_features_are_resized_nearest_and_images_bicubic(self, frames: LabelledOptions) -> None:
        item = build_labelled_dataset(replace(frames, load_size=30))[0]
        for part, folder, method in (
            ("label", "train_label", Image.Resampling.NEAREST),
            ("feat", "train_feat", Image.Resampling.NEAREST),
            ("image", "train_img", Image.Resampling.BICUBIC),
        ):
            image = Image.open(frames.dataroot / folder / "0.png").resize((30, 15), method)
            np.testing.assert_array_equal(item[part].permute(1, 2, 0).squeeze(2), np.asarray(image))
        ids = Image.fromarray(stored(frames.dataroot / "train_inst/0.png").astype(np.int32))
        np.testing.assert_array_equal(item["inst"][0], np.asarray(ids.resize((30, 15), Image.Resampling.NEAREST)))

    def test_rgb_input_is_resized_bicubic(self, tmp_path: Path) -> None:
        a = write(tmp_path / "train_A/x.png", colours(20, 40))
        write(tmp_path / "train_B/x.png", colours(20, 40))
        item = build_labelled_dataset(LabelledOptions(tmp_path, label_nc=0, no_instance=True, load_size=30))[0]
        expected = Image.fromarray(a).resize((30, 15), Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(item["label"].permute(1, 2, 0), np.asarray(expected))

    @pytest.mark.parametrize("mode", ["crop", "scale_width_and_crop"])
    def test_all_parts_get_the_same_window_and_mirror(self, tmp_path: Path, mode: str) -> None:
        place = np.arange(20 * 40).reshape(20, 40)  # every pixel says where it was
        write(tmp_path / "train_label/x.png", (place % 35).astype(np.uint8))
        write(tmp_path / "train_inst/x.png", place.astype(np.uint16))
        rgb = np.stack([place % 256, place // 256, place % 35], axis=2).astype(np.uint8)
        for folder in ("train_img", "train_feat"):
            write(tmp_path / folder / "x.png", rgb)
        options = LabelledOptions(tmp_path, resize_or_crop=mode, no_flip=False, load_features=True)
        dataset = build_labelled_dataset(options)
        seen = set()
        for epoch in range(20):
            item = dataset.sample(0, epoch)
            assert item["label"].shape == (1, 16, 16)
            for part in ("image", "feat"):
                assert torch.equal(item[part][0].int() + 256 * item[part][1].int(), item["inst"][0])
            assert torch.equal(item["inst"] % 35, item["label"])
            step = int(item["inst"][0, 0, 1] - item["inst"][0, 0, 0])
            seen.add((int(item["inst"][0, 0].min()), step))
        assert {step for _, step in seen} == {-1, 1}
        assert len({corner for corner, _ in seen}) > 10

    def test_a_sample_depends_on_seed_epoch_and_index_alone(self, frames: LabelledOptions) -> None:
        options = replace(frames, resize_or_crop="crop", no_flip=False)
        one, again = build_labelled_dataset(options), build_labelled_dataset(options)
        for index in reversed(range(5)):
            again.sample(index, epoch=9)
        assert equal(again.sample(3, epoch=5), one.sample(3, epoch=5))
        other_seed = build_labelled_dataset(replace(options, seed=1))
        assert not all(equal(one.sample(index, 5), one.sample(index, 6)) for index in range(5))
        assert not all(equal(one.sample(index, 5), other_seed.sample(index, 5)) for index in range(5))

    def test_unaugmented_and_test_samples_are_central_and_never_mirrored(self, frames: LabelledOptions) -> None:
        options = replace(frames, resize_or_crop="crop", no_flip=False)
        plain = build_labelled_dataset(options).unaugmented()
        label = stored(frames.dataroot / "train_label/0.png")
        for epoch in range(10):
            np.testing.assert_array_equal(plain.sample(0, epoch)["label"][0], label[2:18, 12:28])


class TestBadInput:
    @pytest.mark.parametrize(
        ("part", "plane", "message"),
        [
            ("label", colours(20, 40), r"train_label/0\.npy: expected one channel of integer ids, found 3 of uint8"),
            ("label", np.zeros((20, 40), np.float32), "expected one channel of integer ids, found 1 of float32"),
            ("inst", colours(20, 40), r"train_inst/0\.npy: expected one channel of integer ids, found 3 of uint8"),
            (
                "inst",
                instances(20, 39),
                r"train_inst/0\.npy: inst must have the size of the label .*train_label/0\.png",
            ),
            (
                "img",
                colours(21, 40),
                r"image must have the size of the label .*, 20x40 \(height x width\), found 21x40",
            ),
            ("img", colours(20, 40).astype(np.uint16), r"train_img/0\.npy: expected 8 bits per channel, found uint16"),
            ("img", np.zeros((20, 40, 5), np.uint8), r"train_img/0\.npy: expected 3 channels, found 5"),
            ("feat", colours(10, 40), r"train_feat/0\.npy: feat must have the size of the label"),
        ],
    )
    def test_a_file_that_does_not_fit_is_named(
        self, frames: LabelledOptions, part: str, plane: np.ndarray, message: str
    ) -> None:
        folder = frames.dataroot / f"train_{part}"
        (folder / "0.png").unlink()
        write(folder / "0.npy", plane)
        with pytest.raises(ImageError, match=message):
            build_labelled_dataset(frames)[0]

    @pytest.mark.parametrize(("dtype", "unknown"), [(np.uint8, 35), (np.uint8, 255), (np.uint16, 300), (np.int16, -1)])
    def test_an_unknown_label_names_the_file_the_id_and_the_pixel(
        self, frames: LabelledOptions, dtype: type, unknown: int
    ) -> None:
        label = labels(20, 40).astype(dtype)
        label[3, 5] = label[7, 1] = unknown
        (frames.dataroot / "train_label/0.png").unlink()
        write(frames.dataroot / "train_label/0.npy", label)
        with pytest.raises(ImageError, match=rf"0\.npy: label {unknown} at row 3, column 5 is not one of 0 to 34"):
            build_labelled_dataset(frames)[0]

    @pytest.mark.parametrize(("option", "expected"), [("last", 34), ("ignore", 255)])
    @pytest.mark.parametrize("unknown", [35, 255])
    def test_unknown_labels_become_the_last_class_or_none_when_the_option_says_so(
        self, frames: LabelledOptions, option: str, expected: int, unknown: int
    ) -> None:
        label = labels(20, 40)
        label[3, 5] = unknown
        write(frames.dataroot / "train_label/0.png", label)
        found = build_labelled_dataset(replace(frames, unknown_label=option))[0]["label"][0].numpy()
        assert found[3, 5] == expected
        label[3, 5] = expected
        np.testing.assert_array_equal(found, label)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"dataset_mode": "aligned"}, "dataset_mode of a labelled dataset must be one of labelled, demo, got 'al"),
            ({"resize_or_crop": "resize"}, "resize_or_crop must be one of resize_and_crop, .*, got 'resize'"),
            ({"unknown_label": "skip"}, "unknown_label must be one of error, last, ignore, got 'skip'"),
            ({"label_nc": -1}, "label_nc must be at least 0, got -1"),
            ({"label_nc": 257}, "label_nc must be at most 256 with unknown_label error, got 257"),
            ({"label_nc": 256, "unknown_label": "ignore"}, "at most 255 with unknown_label ignore, got 256"),
            ({"size_multiple": 0}, "size_multiple must be at least 1, got 0"),
            ({"cache_bytes": -1}, "cache_bytes must be at least 0, got -1"),
            ({"load_size": 0}, "load_size must be at least 1, got 0"),
            ({"crop_size": 0}, "crop_size must be at least 1, got 0"),
            ({"max_dataset_size": 0}, "max_dataset_size must be at least 1, got 0"),
            ({"seed": -1}, "seed must be at least 0, got -1"),
        ],
    )
    def test_an_impossible_option_is_refused(
        self, frames: LabelledOptions, change: dict[str, object], message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            build_labelled_dataset(replace(frames, **change))

    def test_features_may_have_the_size_that_the_label_is_brought_to(self, frames: LabelledOptions) -> None:
        feat = write(frames.dataroot / "train_feat/0.png", colours(10, 20))
        item = build_labelled_dataset(replace(frames, load_size=20))[0]
        np.testing.assert_array_equal(item["feat"].permute(1, 2, 0), feat)


class TestStepBatch:
    def test_colours_become_floats_and_ids_stay_small_integers(self, frames: LabelledOptions) -> None:
        dataset = build_labelled_dataset(frames)
        (batch,) = make_loader(dataset, epoch=0, batch_size=5)
        step = step_batch(batch, "cpu")
        assert set(step) == {"label", "inst", "image", "feat"}
        assert torch.equal(step["label"], batch["label"])
        assert step["label"].dtype == torch.uint8
        assert torch.equal(step["inst"], batch["inst"])
        assert step["inst"].dtype == torch.int32
        for part, folder in (("image", "train_img"), ("feat", "train_feat")):
            expected = [to_tensor(stored(frames.dataroot / folder / f"{name}.png")) for name in batch["name"]]
            assert torch.equal(step[part], torch.stack(expected))

    def test_an_rgb_label_becomes_floats_too(self) -> None:
        label = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
        step = step_batch({"label": label, "name": ["x"]}, "cpu")
        torch.testing.assert_close(step["label"].flatten(), torch.tensor([-1.0, -0.6, 1.0]))

    def test_the_batch_itself_is_left_alone(self, frames: LabelledOptions) -> None:
        (batch,) = make_loader(build_labelled_dataset(frames), epoch=0, batch_size=5)
        before = batch["image"].clone()
        step_batch(batch, "cpu")
        assert torch.equal(batch["image"], before)

    def test_different_sizes_in_a_batch_are_an_error_that_names_both(self, tmp_path: Path) -> None:
        write_frame(tmp_path, "x", (20, 40))
        write_frame(tmp_path, "y", (24, 40))
        dataset = build_labelled_dataset(LabelledOptions(tmp_path, serial_batches=True))
        with pytest.raises(ValueError, match=r"x and y have sizes \(20, 40\) and \(24, 40\) .* batch_size 1"):
            list(make_loader(dataset, epoch=0, batch_size=2))


class TestChecking:
    def test_a_sound_dataset_has_no_problem(self, frames: LabelledOptions) -> None:
        assert check_files(build_labelled_dataset(frames)) == []

    def test_every_damaged_file_of_a_sample_is_found(self, frames: LabelledOptions) -> None:
        paths = [frames.dataroot / name for name in ("train_label/1.png", "train_inst/1.png", "train_img/4.png")]
        for path in paths:
            path.write_bytes(path.read_bytes()[:60])
        problems = check_files(build_labelled_dataset(frames))
        assert {problem.path for problem in problems} == set(map(str, paths))

    def test_an_unknown_label_is_a_problem_of_its_sample(self, frames: LabelledOptions) -> None:
        write(frames.dataroot / "train_label/2.png", np.full((20, 40), 255, np.uint8))
        with pytest.raises(DatasetError, match=r"2\.png: label 255 at row 0, column 0") as caught:
            check_dataset(build_labelled_dataset(frames))
        assert [problem.path for problem in caught.value.problems] == ["2"]

    def test_other_label_options_are_checked_again(self, frames: LabelledOptions, tmp_path: Path) -> None:
        check_dataset(build_labelled_dataset(frames), tmp_path / "stamp.json")
        with pytest.raises(DatasetError):
            check_dataset(build_labelled_dataset(replace(frames, label_nc=3)), tmp_path / "stamp.json")

    def test_the_contact_sheet_shows_label_and_image(self, frames: LabelledOptions, tmp_path: Path) -> None:
        contact_sheet(build_labelled_dataset(frames), tmp_path / "sheet.png", count=1)
        assert stored(tmp_path / "sheet.png").shape[1] == 2 * 128 + 16


class TestPictures:
    @pytest.mark.parametrize("count", [35, 40])
    def test_labels_are_shown_in_the_colours_of_their_count(self, frames: LabelledOptions, count: int) -> None:
        dataset = build_labelled_dataset(replace(frames, label_nc=count))
        label, image = dataset.pictures(dataset[0])
        np.testing.assert_array_equal(label, label_palette(count)[stored(frames.dataroot / "train_label/0.png")])
        np.testing.assert_array_equal(image, stored(frames.dataroot / "train_img/0.png"))

    def test_an_ignored_label_is_black(self, frames: LabelledOptions) -> None:
        write(frames.dataroot / "train_label/0.png", np.full((20, 40), 200, np.uint8))
        dataset = build_labelled_dataset(replace(frames, unknown_label="ignore"))
        assert not dataset.pictures(dataset[0])[0].any()


def test_coco_maps_of_8_bits_need_no_conversion(tmp_path: Path) -> None:
    write(tmp_path / "train_label/000000000009.png", np.resize(np.array([0, 182, 255], np.uint8), (20, 40)))
    ids = write(tmp_path / "train_inst/000000000009.png", np.resize(np.array([1, 2, 255], np.uint8), (20, 40)))
    write(tmp_path / "train_img/000000000009.jpg", colours(20, 40))
    options = LabelledOptions(tmp_path, label_nc=183, unknown_label="last")
    item = build_labelled_dataset(options)[0]
    assert item["label"].unique().tolist() == [0, 182]
    np.testing.assert_array_equal(item["inst"][0], ids)
