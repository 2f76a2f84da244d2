"""Tables of instance features, their clusters, and the feature maps that are drawn from them."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from torchp2p.edit import Clusters, FeatureTable, class_of_id, cluster_features, sample_features
from torchp2p.edit.per_class import PerClass

RNG = np.random.default_rng(0)


def clusters_of(**centres: int) -> Clusters:
    """Random centres of 3 features; ``c26=4`` gives four to class 26."""
    return Clusters({int(name[1:]): RNG.random((count, 3), np.float32) for name, count in centres.items()})


def same(one: PerClass, other: PerClass) -> bool:
    return list(one.rows) == list(other.rows) and all(np.array_equal(one.rows[k], other.rows[k]) for k in one.rows)


class TestClassOfId:
    @pytest.mark.parametrize(
        ("instance", "label"), [(0, 0), (7, 7), (999, 999), (1000, 1), (24001, 24), (26999, 26), (33001, 33)]
    )
    def test_ids_from_1000_are_class_times_1000_plus_a_number(self, instance: int, label: int) -> None:
        assert class_of_id(instance) == label

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64])
    def test_arrays_are_taken_elementwise_in_any_integer_dtype(self, dtype: type) -> None:
        ids = np.array([[0, 7], [34, 255]], dtype)
        np.testing.assert_array_equal(class_of_id(ids), [[0, 7], [34, 255]])
        if dtype != np.uint8:
            np.testing.assert_array_equal(class_of_id(np.array([999, 1000, 26005], dtype)), [999, 1, 26])


class TestFiles:
    @pytest.mark.parametrize("kind", [FeatureTable, Clusters])
    def test_what_is_loaded_is_what_was_saved(self, kind: type[PerClass], tmp_path: Path) -> None:
        saved = kind({33: RNG.random((2, 4), np.float32), 0: RNG.random((1, 4), np.float32)})
        saved.save(tmp_path / "x.npz")
        loaded = kind.load(tmp_path / "x.npz")
        assert list(loaded.rows) == [0, 33]
        assert same(loaded, saved)
        assert all(rows.dtype == np.float32 for rows in loaded.rows.values())

    def test_no_class_at_all_is_a_file_too(self, tmp_path: Path) -> None:
        Clusters({}).save(tmp_path / "x.npz")
        assert Clusters.load(tmp_path / "x.npz").rows == {}

    def test_a_table_has_one_feature_less_than_columns(self) -> None:
        rows = {1: np.zeros((2, 4))}
        assert (FeatureTable(rows).n_features, Clusters(rows).n_features) == (3, 4)
        assert (FeatureTable({}).n_features, Clusters({}).n_features) == (0, 0)

    def test_a_table_is_not_taken_for_clusters(self, tmp_path: Path) -> None:
        FeatureTable({1: np.zeros((2, 4))}).save(tmp_path / "x.npz")
        with pytest.raises(ValueError, match=r"x\.npz holds no feature clusters, but instance features"):
            Clusters.load(tmp_path / "x.npz")

    def test_an_npz_of_another_origin_is_refused(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "x.npz", a=np.zeros(3))
        with pytest.raises(ValueError, match=r"x\.npz holds no feature clusters, but something else"):
            Clusters.load(tmp_path / "x.npz")

    @pytest.mark.parametrize("damage", ["empty", "half", "text", "pickle", "array"])
    def test_a_file_that_is_no_whole_npz_is_one_sentence(self, tmp_path: Path, damage: str) -> None:
        path = tmp_path / "x.npz"
        clusters_of(c1=50).save(path)
        whole = path.read_bytes()
        content = {"empty": b"", "half": whole[: len(whole) // 2], "text": b"no npz", "pickle": pickle.dumps({})}
        if damage == "array":
            with open(path, "wb") as file:
                np.save(file, np.zeros(3))
        else:
            path.write_bytes(content[damage])
        with pytest.raises(ValueError, match=r"x\.npz holds no feature clusters: it is not a whole \.npz file"):
            Clusters.load(path)

    def test_pickled_arrays_inside_are_not_loaded(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "x.npz", kind=np.array(Clusters.KIND), **{"1": np.array({"a": 1}, dtype=object)})
        with pytest.raises(ValueError, match=r"not a whole \.npz file of plain arrays"):
            Clusters.load(tmp_path / "x.npz")

    def test_a_missing_file_is_file_not_found(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            Clusters.load(tmp_path / "x.npz")

    def test_another_ending_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"x\.npy: feature clusters are kept in files whose name ends in \.npz"):
            Clusters({}).save(tmp_path / "x.npy")

    def test_a_failed_write_leaves_the_file_before(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        before = clusters_of(c1=2)
        before.save(tmp_path / "x.npz")

        def fail(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(np, "savez", fail)
        with pytest.raises(OSError, match="No space left"):
            clusters_of(c1=5).save(tmp_path / "x.npz")
        assert same(Clusters.load(tmp_path / "x.npz"), before)

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ({-1: np.zeros((1, 3))}, "feature clusters need classes of 0 or more, got -1"),
            ({2: np.zeros(3)}, r"feature clusters of class 2 must be \(rows, columns\), got shape \(3,\)"),
            ({1: np.zeros((1, 3)), 2: np.zeros((1, 4))}, r"the same columns, got \[3, 4\]"),
        ],
    )
    def test_arrays_that_do_not_fit_are_refused(self, rows: dict[int, np.ndarray], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            Clusters(rows)


class TestClustering:
    def table(self, *groups: tuple[int, float, int, float]) -> FeatureTable:
        """Groups of (class, value of all features, rows, area weight), with a little noise."""
        rows: dict[int, list[np.ndarray]] = {}
        for label, value, count, area in groups:
            block = np.full((count, 4), value) + RNG.normal(0, 0.01, (count, 4))
            block[:, 3] = area
            rows.setdefault(label, []).append(block)
        return FeatureTable({label: np.concatenate(blocks) for label, blocks in rows.items()})

    def test_the_centres_are_those_of_the_groups(self) -> None:
        centres = cluster_features(self.table((26, -0.5, 20, 1), (26, 0.7, 30, 1)), 2).rows[26]
        assert centres.shape == (2, 3)
        np.testing.assert_allclose(np.sort(centres[:, 0]), [-0.5, 0.7], atol=0.02)

    def test_small_instances_are_left_out_and_so_is_a_class_of_them_alone(self) -> None:
        table = self.table((1, 0.9, 5, 0.5), (2, 0.9, 5, 0.5), (2, 0.1, 1, 0.51))
        clusters = cluster_features(table)
        assert list(clusters.rows) == [2]
        np.testing.assert_allclose(clusters.rows[2], table.rows[2][5:, :3])

    @pytest.mark.parametrize(("rows", "asked", "centres"), [(3, 10, 3), (12, 10, 10), (12, 1, 1)])
    def test_there_are_no_more_clusters_than_rows(self, rows: int, asked: int, centres: int) -> None:
        assert len(cluster_features(self.table((1, 0, rows, 1)), asked).rows[1]) == centres

    def test_it_is_scikit_learns_k_means_with_random_state_0(self) -> None:
        from sklearn.cluster import KMeans

        table = FeatureTable({1: np.hstack([RNG.random((60, 3)), np.ones((60, 1))])})
        expected = KMeans(n_clusters=10, random_state=0).fit(table.rows[1][:, :3]).cluster_centers_
        np.testing.assert_array_equal(cluster_features(table).rows[1], expected)

    def test_an_empty_table_has_no_clusters(self) -> None:
        assert cluster_features(FeatureTable({})).rows == {}

    def test_no_clusters_wanted_is_refused(self) -> None:
        with pytest.raises(ValueError, match="n_clusters must be at least 1, got 0"):
            cluster_features(FeatureTable({}), 0)

    def test_a_nan_is_refused_with_its_class(self) -> None:
        rows = np.ones((3, 4))
        rows[1, 2] = np.nan
        with pytest.raises(ValueError, match="features of class 26 must be finite"):
            cluster_features(FeatureTable({26: rows}))

    def test_without_scikit_learn_the_extra_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(__import__("sys").modules, "sklearn.cluster", None)
        with pytest.raises(ImportError, match=r"needs scikit-learn: pip install torchp2p\[features\]"):
            cluster_features(FeatureTable({}))


IDS = torch.tensor([[[[7, 7, 26001], [26002, 33001, 33001]]], [[[26001, 8, 8], [8, 8, 8]]]], dtype=torch.int32)


class TestSampling:
    CLUSTERS = clusters_of(c7=3, c26=5, c33=2)

    def sample(self, ids: torch.Tensor = IDS, seed: int = 0, **arguments: object) -> torch.Tensor:
        return sample_features(ids, self.CLUSTERS, seed=seed, n_features=3, **arguments)

    def test_every_pixel_has_a_centre_of_its_class_and_zeros_without_one(self) -> None:
        features = self.sample()
        assert (features.shape, features.dtype) == ((2, 3, 2, 3), torch.float32)
        assert features.is_contiguous()
        for sample, row, column in np.ndindex(2, 2, 3):
            vector = features[sample, :, row, column].numpy()
            centres = self.CLUSTERS.rows.get(class_of_id(int(IDS[sample, 0, row, column])), np.zeros((1, 3)))
            assert (centres == vector).all(axis=1).any()
        assert not features[1, :, 1].any()

    def test_all_pixels_of_an_id_share_one_style_across_the_batch(self) -> None:
        for seed in range(10):
            features = self.sample(seed=seed).permute(0, 2, 3, 1)
            for instance in IDS.unique():
                assert len(features[IDS[:, 0] == instance].unique(dim=0)) == 1

    def test_the_same_seed_gives_the_same_styles_and_others_others(self) -> None:
        assert torch.equal(self.sample(seed=3), self.sample(seed=3))
        assert len({tuple(self.sample(seed=seed).flatten().tolist()) for seed in range(10)}) > 5

    def test_a_style_does_not_depend_on_what_else_is_in_the_picture(self) -> None:
        alone = self.sample(IDS[:1, :, 1:, :1])  # 26002
        assert torch.equal(alone[0, :, 0, 0], self.sample()[0, :, 1, 0])

    def test_instances_of_a_class_are_drawn_independently_and_uniformly(self) -> None:
        ids = torch.arange(26000, 26999, dtype=torch.int32).view(1, 1, 27, 37)
        drawn = self.sample(ids)[0].flatten(1).T.numpy()
        counts = [(drawn == centre).all(axis=1).sum() for centre in self.CLUSTERS.rows[26]]
        assert sum(counts) == 999
        assert min(counts) > 150

    def test_the_global_random_numbers_are_left_alone(self) -> None:
        before = np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
        self.sample()
        assert np.random.get_state()[1].tolist() == before[0]  # noqa: NPY002
        assert torch.equal(torch.get_rng_state(), before[1])

    def test_an_override_chooses_a_cluster_or_gives_the_vector(self) -> None:
        features = self.sample(overrides={26001: 4, 7: (0.25, -0.5, 1), 8: np.ones(3), 33001: np.int64(1)})
        np.testing.assert_array_equal(features[0, :, 0, 2], self.CLUSTERS.rows[26][4])
        np.testing.assert_array_equal(features[1, :, 0, 0], self.CLUSTERS.rows[26][4])
        np.testing.assert_array_equal(features[0, :, 1, 1], self.CLUSTERS.rows[33][1])
        assert features[0, :, 0, 0].tolist() == [0.25, -0.5, 1]
        assert (features[1, :, 1] == 1).all()

    def test_an_override_leaves_the_other_instances_as_they_were(self) -> None:
        others = IDS.expand(-1, 3, -1, -1) != 26001
        assert torch.equal(self.sample(overrides={26001: 4})[others], self.sample()[others])

    def test_an_override_of_an_id_that_is_not_there_changes_nothing(self) -> None:
        assert torch.equal(self.sample(overrides={26009: 1}), self.sample())

    def test_labels_may_take_the_role_of_ids(self) -> None:
        labels = torch.tensor([[[[7, 26]]]], dtype=torch.uint8)
        features = self.sample(labels)
        assert (self.CLUSTERS.rows[26] == features[0, :, 0, 1].numpy()).all(axis=1).any()

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.uint16, torch.int64])
    def test_any_integer_dtype_will_do(self, dtype: torch.dtype) -> None:
        small = IDS.clamp(max=8)
        assert torch.equal(self.sample(small.to(dtype)), self.sample(small))

    def test_negative_ids_have_no_class_and_get_zeros(self) -> None:
        assert not self.sample(torch.full((1, 1, 2, 2), -5)).any()

    def test_no_clusters_at_all_give_zeros(self) -> None:
        features = sample_features(IDS, Clusters({}), seed=0, n_features=4)
        assert features.shape == (2, 4, 2, 3)
        assert not features.any()

    @pytest.mark.parametrize(
        ("ids", "arguments", "error", "message"),
        [
            (IDS.float(), {}, TypeError, r"ids must be integers, got torch\.float32"),
            (IDS[:, 0], {}, ValueError, r"ids must be \(N, 1, H, W\), got shape \(2, 2, 3\)"),
            (IDS, {"seed": -1}, ValueError, "seed must be 0 or more, got -1"),
            (IDS, {"overrides": {8: 0}}, ValueError, r"overrides\[8\]: class 8 has no clusters; .* for 7, 26, 33"),
            (
                IDS,
                {"overrides": {26001: 5}},
                ValueError,
                r"overrides\[26001\]: cluster of class 26 must .* to 4, got 5",
            ),
            (IDS, {"overrides": {26001: -1}}, ValueError, r"overrides\[26001\]: .* from 0 to 4, got -1"),
            (IDS, {"overrides": {7: [1.0, 2.0]}}, ValueError, r"overrides\[7\] must be 3 values, got shape \(2,\)"),
        ],
    )
    def test_bad_input_is_one_sentence(
        self, ids: torch.Tensor, arguments: dict[str, object], error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error, match=message):
            self.sample(ids, **arguments)

    def test_clusters_of_other_features_are_refused(self) -> None:
        with pytest.raises(ValueError, match="clusters must have 5 features, got 3"):
            sample_features(IDS, self.CLUSTERS, seed=0, n_features=5)
