"""``torchp2p features``: clustering a table and converting the files of the original."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from torchp2p.cli.main import main
from torchp2p.edit import Clusters, FeatureTable, cluster_features

TABLE = FeatureTable({label: np.random.default_rng(label).random((20, 4)) for label in (7, 26)})


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    TABLE.save("table.npz")
    np.save("old.npy", dict(TABLE.rows))


def test_cluster_writes_the_clusters_of_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["features", "cluster", "table.npz", "clusters.npz", "--n_clusters=3"]) == 0
    assert capsys.readouterr().out == "6 clusters of 2 classes written to clusters.npz\n"
    written, expected = Clusters.load("clusters.npz"), cluster_features(TABLE, 3)
    assert all(np.array_equal(written.rows[label], expected.rows[label]) for label in (7, 26))


def test_a_table_has_10_clusters_of_a_class_unless_told_otherwise() -> None:
    assert main(["features", "cluster", "table.npz", "clusters.npz"]) == 0
    most = [min(10, int((rows[:, 3] > 0.5).sum())) for rows in TABLE.rows.values()]
    assert [len(rows) for rows in Clusters.load("clusters.npz").rows.values()] == most


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
