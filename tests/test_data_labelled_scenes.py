"""Labelled data that is drawn, and real Cityscapes frames."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from labelled_data import LabelledOptions, equal
from PIL import Image

import torchp2p.data.demo
from torchp2p.data import CITYSCAPES_PALETTE, ImageError, build_labelled_dataset
from torchp2p.ops import instance_edges


class TestDemo:
    OPTIONS = LabelledOptions(dataset_mode="demo", load_size=96, max_dataset_size=2, cache_bytes=10**6)

    @pytest.mark.parametrize(("mode", "size"), [("scale_width", (48, 96)), ("resize_and_crop", (96, 96))])
    def test_a_sample_is_a_drawn_scene(self, mode: str, size: tuple[int, int]) -> None:
        options = replace(self.OPTIONS, resize_or_crop=mode, crop_size=96)
        item = build_labelled_dataset(options)[1]
        scene = torchp2p.data.demo.draw_scene(size, 1)
        np.testing.assert_array_equal(item["label"][0], scene.label)
        np.testing.assert_array_equal(item["inst"][0], scene.inst)
        np.testing.assert_array_equal(item["image"].permute(1, 2, 0), scene.image)
        assert item["name"] == "train_0001"

    def test_it_equals_what_the_demo_writes_to_folders(self, tmp_path: Path) -> None:
        torchp2p.data.demo.write_dataset(tmp_path, 2, (48, 96), seed=0)
        files = build_labelled_dataset(replace(self.OPTIONS, dataroot=tmp_path, dataset_mode="labelled"))
        drawn = build_labelled_dataset(self.OPTIONS)
        for index in range(2):
            assert all(torch.equal(files[index][part], drawn[index][part]) for part in ("label", "inst", "image"))

    def test_without_labels_the_input_is_the_label_in_colour(self) -> None:
        item = build_labelled_dataset(replace(self.OPTIONS, label_nc=0, no_instance=True))[0]
        scene = torchp2p.data.demo.draw_scene((48, 96), 0)
        np.testing.assert_array_equal(item["label"].permute(1, 2, 0), CITYSCAPES_PALETTE[scene.label])
        assert "inst" not in item

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"phase": "dev"}, "phase of the demo must be one of train, val, test, got 'dev'"),
            ({"load_features": True}, "the demo has no precomputed features"),
        ],
    )
    def test_what_it_does_not_have_is_refused(self, change: dict[str, object], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            build_labelled_dataset(replace(self.OPTIONS, **change))

    def test_fewer_classes_than_it_draws_are_an_error_that_names_the_scene(self) -> None:
        with pytest.raises(ImageError, match=r"train_0000: label .* is not one of 0 to 9"):
            build_labelled_dataset(replace(self.OPTIONS, label_nc=10))[0]


@pytest.mark.cityscapes
class TestCityscapesFrames:
    @staticmethod
    def native(flat: Path, root: Path) -> Path:
        """The frames in the folders of the download, as links."""
        for part, folder in (("label", "gtFine"), ("inst", "gtFine"), ("img", "leftImg8bit")):
            for path in (flat / f"train_{part}").iterdir():
                link = root / folder / "train" / path.name.split("_")[0] / path.name
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(path)
        return root

    def test_instance_ids_are_those_of_the_file(self, cityscapes: Path) -> None:
        options = LabelledOptions(cityscapes, load_size=2048, max_dataset_size=3)
        dataset = build_labelled_dataset(options)
        for index, item in enumerate(dataset):
            ids = np.asarray(Image.open(dataset.files(index)[1])).astype(np.int64)
            np.testing.assert_array_equal(item["inst"][0], ids)
            assert torch.equal(item["inst"].where(item["inst"] < 1000, item["inst"] // 1000), item["label"].int())
        assert 33001 in dataset[0]["inst"]

    def test_edges_are_those_of_the_ids_at_the_size_of_the_network(self, cityscapes: Path) -> None:
        item = build_labelled_dataset(LabelledOptions(cityscapes, load_size=512, max_dataset_size=1))[0]
        ids = item["inst"][0].numpy()
        expected = np.zeros(ids.shape, bool)
        down, right = ids[1:] != ids[:-1], ids[:, 1:] != ids[:, :-1]
        for view, change in (
            (expected[1:], down),
            (expected[:-1], down),
            (expected[:, 1:], right),
            (expected[:, :-1], right),
        ):
            view |= change
        assert expected.sum() > 5000
        np.testing.assert_array_equal(instance_edges(item["inst"][None])[0, 0].bool(), expected)

    def test_both_layouts_give_the_same_samples(self, cityscapes: Path, tmp_path: Path) -> None:
        options = LabelledOptions(cityscapes, load_size=64)
        flat = build_labelled_dataset(options)
        native = build_labelled_dataset(replace(options, dataroot=self.native(cityscapes, tmp_path)))
        assert len(flat) == len(native) == 8
        for one, other in zip(flat, native, strict=True):
            assert other["name"] == f"aachen/{one['name']}"
            assert equal({**one, "name": ""}, {**other, "name": ""})

    def test_the_test_frames_have_no_images(self, cityscapes: Path) -> None:
        dataset = build_labelled_dataset(LabelledOptions(cityscapes, phase="test", load_size=64))
        assert len(dataset) == 15
        assert set(dataset[0]) == {"label", "inst", "name"}
