"""``torchp2p features``: encoding and clustering the styles of a run, and converting the files of the original."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_labelled_training import train_tiny
from tiny_training import files_of

from torchp2p.cli.main import main
from torchp2p.data import build_labelled_dataset, read_ids, read_image
from torchp2p.data.demo import write_dataset
from torchp2p.edit import Clusters, FeatureTable, class_of_id, cluster_features, encode_features, precompute_features
from torchp2p.models import encoder_from_weights, load_config, load_weights, run_encoder
from torchp2p.train import HDTrainConfig

TABLE = FeatureTable({label: np.random.default_rng(label).random((20, 4)) for label in (7, 26)})


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    TABLE.save("table.npz")
    np.save("old.npy", dict(TABLE.rows))


@pytest.fixture
def run() -> Path:
    """Of a training with an encoder, in the current folder."""
    write_dataset("data", 2, (32, 64), seed=0)
    return train_tiny("styled", instance_feat=True).folder


def equal(one: FeatureTable | Clusters, other: FeatureTable | Clusters) -> bool:
    return one.rows.keys() == other.rows.keys() and all(
        np.array_equal(one.rows[label], other.rows[label]) for label in one.rows
    )


def test_cluster_writes_the_clusters_of_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["features", "cluster", "table.npz", "clusters.npz", "--n_clusters=3"]) == 0
    assert capsys.readouterr().out == "6 clusters of 2 classes written to clusters.npz\n"
    written, expected = Clusters.load("clusters.npz"), cluster_features(TABLE, 3)
    assert all(np.array_equal(written.rows[label], expected.rows[label]) for label in (7, 26))


def test_a_table_has_10_clusters_of_a_class_unless_told_otherwise() -> None:
    assert main(["features", "cluster", "table.npz", "clusters.npz"]) == 0
    most = [min(10, int((rows[:, 3] > 0.5).sum())) for rows in TABLE.rows.values()]
    assert [len(rows) for rows in Clusters.load("clusters.npz").rows.values()] == most


def test_clusters_go_beside_the_table_unless_told_otherwise() -> None:
    assert main(["features", "cluster", "table.npz", "--n_clusters=3"]) == 0
    assert equal(Clusters.load("features_clustered_003.npz"), cluster_features(TABLE, 3))


def test_encode_writes_the_instances_of_the_training_data_into_the_run(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["features", "encode", str(run)]) == 0
    written = FeatureTable.load(run / "features.npz")
    count = sum(map(len, written.rows.values()))
    told = f"{count} instances of {len(written.rows)} classes written to checkpoints/styled/features.npz\n"
    assert capsys.readouterr().out == told
    config = HDTrainConfig.from_mapping(load_config(run / "latest_net_G.pth"))
    encoder = encoder_from_weights(run / "latest_net_E.pth")
    expected = encode_features(lambda image, ids: run_encoder(encoder, image, ids), build_labelled_dataset(config))
    assert equal(written, expected)
    present = {
        class_of_id(int(each)) for path in Path("data/train_inst").iterdir() for each in np.unique(read_ids(path))
    }
    assert set(written.rows) == present


def test_encode_takes_other_data_another_file_and_the_weights_of_a_file(run: Path) -> None:
    write_dataset("other", 1, (32, 64), seed=5, phase="val")
    weights = str(run / "latest_net_G.pth")
    assert main(["features", "encode", weights, "other", "--phase=val", "--out=val.npz"]) == 0
    ids = np.unique(read_ids(Path("other/val_inst/scene_000000.png")))
    assert sum(map(len, FeatureTable.load("val.npz").rows.values())) == len(ids)
    assert not (run / "features.npz").exists()


def test_a_run_is_clustered_into_as_many_styles_as_its_training_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_dataset("data", 2, (32, 64), seed=0)
    run = train_tiny("styled", instance_feat=True, n_clusters=2).folder
    TABLE.save(run / "features.npz")
    assert main(["features", "cluster", str(run)]) == 0
    out = "checkpoints/styled/features_clustered_002.npz"
    assert capsys.readouterr().out == f"4 clusters of 2 classes written to {out}\n"
    assert equal(Clusters.load(out), cluster_features(TABLE, 2))


def test_encode_takes_a_file_of_the_original_beside_that_of_its_encoder(run: Path) -> None:
    """Whose images are 1024 wide, as is its default."""
    Path("label2city").mkdir()
    for network in "GE":
        torch.save(dict(load_weights(run / f"latest_net_{network}.pth")), f"label2city/latest_net_{network}.pth")
    assert main(["features", "encode", "label2city/latest_net_G.pth", "data"]) == 0
    present = {
        class_of_id(int(each)) for path in Path("data/train_inst").iterdir() for each in np.unique(read_ids(path))
    }
    assert set(FeatureTable.load("label2city/features.npz").rows) == present


def test_an_encoder_with_batch_norm_runs_on_the_statistics_of_its_training() -> None:
    write_dataset("data", 2, (32, 64), seed=0)
    run = train_tiny("batch", instance_feat=True, norm="batch").folder
    assert main(["features", "encode", str(run)]) == 0
    data = build_labelled_dataset(HDTrainConfig.from_mapping(load_config(run / "latest_net_G.pth")))
    encoder = encoder_from_weights(run / "latest_net_E.pth")
    tables = [
        encode_features(lambda image, ids, net=net: run_encoder(net, image, ids), data)
        for net in (encoder, copy.deepcopy(encoder).train())
    ]
    assert [equal(FeatureTable.load(run / "features.npz"), table) for table in tables] == [True, False]


def test_precompute_writes_the_feature_maps_that_a_training_reads(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["features", "precompute", str(run)]) == 0
    assert capsys.readouterr().out == "2 feature maps written to data/train_feat\n"
    written = sorted(Path("data/train_feat").iterdir())
    pixels = [read_image(path) for path in written]
    assert [image.shape for image in pixels] == [(64, 128, 3)] * 2
    config = HDTrainConfig.from_mapping(load_config(run / "latest_net_G.pth"))
    encoder = encoder_from_weights(run / "latest_net_E.pth")
    precompute_features(lambda image, ids: run_encoder(encoder, image, ids), build_labelled_dataset(config))
    assert all(np.array_equal(read_image(path), before) for path, before in zip(written, pixels, strict=True))


@pytest.mark.parametrize(
    ("kind", "made", "told"),
    [("table", FeatureTable, "instance features of 2"), ("clusters", Clusters, "feature clusters of 2")],
)
def test_convert_writes_what_it_is_told_the_file_holds(
    capsys: pytest.CaptureFixture[str], kind: str, made: type, told: str
) -> None:
    assert main(["features", "convert", "old.npy", "new.npz", f"--kind={kind}"]) == 0
    assert capsys.readouterr().out == f"{told} classes written to new.npz\n"
    assert all(np.array_equal(made.load("new.npz").rows[label], TABLE.rows[label]) for label in (7, 26))


@pytest.mark.parametrize("call", [[], ["--help"]])
def test_the_sub_commands_are_listed(capsys: pytest.CaptureFixture[str], call: list[str]) -> None:
    assert main(["features", *call]) == 0
    assert "encode | cluster | precompute | convert" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("call", "status", "message"),
    [
        (["clusters"], 2, "'clusters' is not a sub-command; did you mean 'cluster'?"),
        (["convert", "old.npy", "new.npz"], 2, "kind"),
        (["convert", "old.npy", "new.npz", "--kind=style"], 1, "kind must be one of table, clusters, got 'style'"),
        (["convert", "none.npy", "new.npz", "--kind=table"], 1, "No such file or directory: none.npy"),
        (["convert", "table.npz", "new.npz", "--kind=table"], 1, "table.npz could not be read as a feature file"),
        (["cluster", "old.npy", "new.npz"], 1, "old.npy holds no instance features"),
        (["cluster", "table.npz", "new.npy"], 1, "new.npy: feature clusters are kept in files whose name ends in .npz"),
        (["cluster", "table.npz", "new.npz", "--n_clusters=0"], 1, "n_clusters must be at least 1, got 0"),
    ],
)
def test_what_is_wrong_is_one_line(
    capsys: pytest.CaptureFixture[str], call: list[str], status: int, message: str
) -> None:
    assert main(["features", *call]) == status
    complaint = capsys.readouterr().err
    assert complaint.startswith("torchp2p features: error: ")
    assert complaint.count("\n") == 1
    assert message in complaint


@pytest.mark.parametrize(
    ("call", "status", "message"),
    [
        (["encode", "checkpoints/plain"], 1, "there is no encoder checkpoints/plain/latest_net_E.pth"),
        (["precompute", "checkpoints/plain"], 1, "there is no encoder checkpoints/plain/latest_net_E.pth"),
        (["encode", "missing.pth"], 1, "weights file missing.pth does not exist"),
        (["encode", "checkpoints/styled", "missing"], 1, "missing/train_label"),
        (["encode", "checkpoints/styled", "--phase=val"], 1, "data/val_label"),
        (["encode", "checkpoints/styled", "--out=features.npy"], 1, "features.npy: instance features are kept in"),
        (["cluster", "checkpoints/styled"], 1, "make it with torchp2p features encode checkpoints/styled"),
        (["precompute", "checkpoints/wide"], 1, "features are kept as RGB files: the encoder must have 3, got 2"),
        (["precompute", "checkpoints/drawn"], 2, "features are kept beside the files of a dataset"),
    ],
)
def test_what_is_wrong_with_a_run_is_one_line(
    runs: Path, capsys: pytest.CaptureFixture[str], call: list[str], status: int, message: str
) -> None:
    before = files_of(runs)
    assert main(["features", *call]) == status
    complaint = capsys.readouterr().err
    assert complaint.startswith("torchp2p features: error: ")
    assert complaint.count("\n") == 1
    assert message in complaint
    assert files_of(runs) == before


@pytest.fixture(scope="module")
def all_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without an encoder, with one, with one of two features, and with one but no files."""
    root = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        write_dataset("data", 1, (32, 64), seed=0)
        train_tiny("plain")
        train_tiny("styled", instance_feat=True)
        train_tiny("wide", instance_feat=True, feat_num=2)
        train_tiny("drawn", instance_feat=True, dataset_mode="demo", max_dataset_size=1)
    return root


@pytest.fixture
def runs(all_runs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All of them under the current folder; a test must leave it as it was."""
    monkeypatch.chdir(all_runs)
    return all_runs
