"""Encoding the instances of a dataset: the table to cluster, and feature maps in files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from labelled_data import LabelledOptions, colours, labels, stored, write, write_frame
from torch import nn

from torchp2p.data import build_labelled_dataset
from torchp2p.edit import class_of_id, cluster_features, encode_features, precompute_features, sample_features
from torchp2p.ops import instance_avg_pool


class TinyEncoder(nn.Module):
    """A convolution, tanh and the mean of each instance: what InstanceEncoder is, without its depth."""

    def __init__(self, features: int = 3) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv = nn.Conv2d(3, features, 3, padding=1, padding_mode="reflect")
        self.seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def forward(self, image: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        assert not torch.is_grad_enabled()
        self.seen.append((image, ids))
        return instance_avg_pool(torch.tanh(self.conv(image)), ids)


@pytest.fixture
def options(tmp_path: Path) -> LabelledOptions:
    """Three frames, 20 x 40, with flips that must not be seen."""
    for index in range(3):
        write_frame(tmp_path, str(index))
    return LabelledOptions(tmp_path, no_flip=False)


def by_loop(encoder: TinyEncoder, options: LabelledOptions, part: str) -> dict[int, list[np.ndarray]]:
    """Spec 7.2, instance by instance: the middle pixel in raster order, and the area weight."""
    plain = build_labelled_dataset(replace(options, no_flip=True))
    table: dict[int, list[np.ndarray]] = {}
    for item in plain:
        image = item["image"][None].float() / 255 * 2 - 1
        with torch.no_grad():
            features = encoder(image, item[part][None])[0]
        ids = item[part][0].numpy()
        for instance in np.unique(ids):
            rows, columns = np.nonzero(ids == instance)
            middle = len(rows) // 2
            vector = features[:, rows[middle], columns[middle]].numpy()
            area = len(rows) / (ids.shape[0] * ids.shape[1] // 32)
            table.setdefault(class_of_id(int(instance)), []).append(np.append(vector, area))
    return table


class TestEncoding:
    @pytest.mark.parametrize(("label_feat", "part"), [(False, "inst"), (True, "label")])
    @pytest.mark.parametrize("features", [3, 5])
    def test_a_row_for_each_instance_is_its_vector_and_area(
        self, options: LabelledOptions, label_feat: bool, part: str, features: int
    ) -> None:
        encoder = TinyEncoder(features)
        table = encode_features(encoder, build_labelled_dataset(options), label_feat=label_feat)
        expected = by_loop(encoder, options, part)
        assert list(table.rows) == sorted(expected)
        assert table.n_features == features
        for label, rows in expected.items():
            np.testing.assert_allclose(table.rows[label], np.stack(rows), rtol=1e-5, atol=1e-6)

    def test_the_encoder_sees_one_image_at_a_time_in_order_never_mirrored(self, options: LabelledOptions) -> None:
        encoder = TinyEncoder()
        encode_features(encoder, build_labelled_dataset(options))
        assert len(encoder.seen) == 3
        for index, (image, ids) in enumerate(encoder.seen):
            photo = stored(options.dataroot / f"train_img/{index}.png").transpose(2, 0, 1)
            np.testing.assert_allclose(image[0].numpy(), photo / 127.5 - 1, atol=1e-6)
            np.testing.assert_array_equal(ids[0, 0].numpy(), stored(options.dataroot / f"train_inst/{index}.png"))

    def test_an_instance_of_one_64th_of_the_image_is_too_small_to_cluster(self, tmp_path: Path) -> None:
        ids = np.zeros((32, 32), np.uint16)
        ids[:4, :4], ids[8:12, 8:12], ids[12, 8] = 24000, 26000, 26000  # 16 and 17 of 1024 pixels
        write(tmp_path / "train_inst/x.png", ids)
        write(tmp_path / "train_label/x.png", class_of_id(ids).astype(np.uint8))
        write(tmp_path / "train_img/x.png", colours(32, 32))
        table = encode_features(TinyEncoder(), build_labelled_dataset(LabelledOptions(tmp_path, load_size=32)))
        assert {label: rows[0, 3] for label, rows in table.rows.items()} == {0: 991 / 32, 24: 0.5, 26: 17 / 32}
        assert list(cluster_features(table).rows) == [0, 26]

    def test_progress_is_told(self, options: LabelledOptions) -> None:
        told: list[tuple[int, int]] = []
        encode_features(TinyEncoder(), build_labelled_dataset(options), progress=lambda *step: told.append(step))
        assert told == [(1, 3), (2, 3), (3, 3)]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"no_instance": True}, "0: encoding needs inst, which"),
            ({"phase": "test"}, "x: encoding needs image, which"),
        ],
    )
    def test_data_that_lack_a_part_are_refused(
        self, options: LabelledOptions, change: dict[str, object], message: str
    ) -> None:
        write(options.dataroot / "test_label/x.png", labels(20, 40))
        write(options.dataroot / "test_inst/x.png", labels(20, 40))
        with pytest.raises(ValueError, match=message):
            encode_features(TinyEncoder(), build_labelled_dataset(replace(options, **change)))

    def test_an_encoder_that_changes_the_size_is_refused(self, options: LabelledOptions) -> None:
        def encoder(image: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
            return image[:, :, ::2]

        with pytest.raises(ValueError, match=r"must keep the size \(20, 40\), got features of shape \(1, 3, 10, 40\)"):
            encode_features(encoder, build_labelled_dataset(options))

    def test_an_image_too_small_for_an_area_weight_is_refused(self, tmp_path: Path) -> None:
        write_frame(tmp_path, size=(3, 10))
        dataset = build_labelled_dataset(LabelledOptions(tmp_path, load_size=10))
        with pytest.raises(ValueError, match=r"an image must have 32 pixels or more, got \(3, 10\)"):
            encode_features(TinyEncoder(), dataset)

    @pytest.mark.cityscapes
    def test_real_frames_go_the_whole_way_to_a_feature_map(self, cityscapes: Path) -> None:
        dataset = build_labelled_dataset(LabelledOptions(cityscapes, load_size=256, max_dataset_size=3))
        table = encode_features(TinyEncoder(), dataset)
        assert sum(map(len, table.rows.values())) == sum(len(item["inst"].unique()) for item in dataset)
        assert {7, 11, 26, 33} <= set(table.rows)
        clusters = cluster_features(table)
        ids = dataset[0]["inst"][None]
        features = sample_features(ids, clusters, seed=0, n_features=3)
        with_style = torch.from_numpy(np.isin(class_of_id(ids.numpy()), list(clusters.rows)))
        assert torch.equal(features.abs().sum(dim=1, keepdim=True) > 0, with_style)


class TestPrecomputing:
    @pytest.fixture
    def half(self, options: LabelledOptions) -> LabelledOptions:
        """The frames at half their size, as the encoder was trained, without features so far."""
        for path in (options.dataroot / "train_feat").iterdir():
            path.unlink()
        return replace(options, load_size=20)

    def test_files_hold_the_features_at_twice_the_size_in_8_bits(self, half: LabelledOptions) -> None:
        encoder = TinyEncoder()
        written = precompute_features(encoder, build_labelled_dataset(half))
        assert written == [half.dataroot / f"train_feat/{index}.png" for index in range(3)]
        with torch.no_grad():
            features = encoder(*encoder.seen[1])[0]
        expected = ((features.permute(1, 2, 0).numpy() + 1) / 2 * 255).astype(np.uint8)
        found = stored(written[1])
        assert found.shape == (20, 40, 3)
        np.testing.assert_array_equal(found, expected.repeat(2, axis=0).repeat(2, axis=1))

    def test_training_at_twice_the_size_reads_them(self, half: LabelledOptions) -> None:
        written = precompute_features(TinyEncoder(), build_labelled_dataset(half))
        item = build_labelled_dataset(replace(half, load_size=40, load_features=True, no_flip=True))[2]
        np.testing.assert_array_equal(item["feat"].permute(1, 2, 0), stored(written[2]))

    def test_they_go_by_the_name_of_the_label_file(self, tmp_path: Path) -> None:
        write(tmp_path / "train_label/city/a_gtFine_labelIds.png", labels(20, 40))
        write(tmp_path / "train_img/city/a_leftImg8bit.jpg", colours(20, 40))
        options = LabelledOptions(tmp_path, no_instance=True, load_size=20)
        written = precompute_features(TinyEncoder(), build_labelled_dataset(options), label_feat=True)
        assert written == [tmp_path / "train_feat/city/a_gtFine_labelIds.png"]

    @pytest.mark.parametrize("mode", ["crop", "resize_and_crop", "scale_width_and_crop"])
    def test_crops_are_refused(self, half: LabelledOptions, mode: str) -> None:
        with pytest.raises(ValueError, match=f"resize_or_crop must not crop, got '{mode}'"):
            precompute_features(TinyEncoder(), build_labelled_dataset(replace(half, resize_or_crop=mode)))

    def test_other_than_3_features_do_not_fit_a_file(self, half: LabelledOptions) -> None:
        with pytest.raises(ValueError, match="the encoder must have 3, got 5"):
            precompute_features(TinyEncoder(5), build_labelled_dataset(half))
