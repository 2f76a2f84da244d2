"""Converting the pickled feature files of the original, and never running what is in them."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from torchp2p.edit import Clusters, FeatureTable, convert_features

RNG = np.random.default_rng(0)
STORED = {0: np.zeros((0, 4)), 7: RNG.random((3, 4)), 26: RNG.random((1, 4)).astype(np.float32)}


def save(path: Path, stored: object, protocol: int = 2) -> Path:
    """A ``.npy`` as ``np.save`` wrote it in the versions of NumPy that used that protocol."""
    array = np.empty((), dtype=object)
    array[()] = stored
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        pickle.dump(array, file, protocol)
    return path


def test_the_files_are_what_np_save_writes(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", STORED)
    assert convert_features(tmp_path / "x.npy", tmp_path / "x.npz", "table").columns == 4


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize(("kind", "made"), [("table", FeatureTable), ("clusters", Clusters)])
def test_classes_with_rows_are_kept_as_they_are(tmp_path: Path, protocol: int, kind: str, made: type) -> None:
    returned = convert_features(save(tmp_path / "x.npy", STORED, protocol), tmp_path / "x.npz", kind)
    loaded = made.load(tmp_path / "x.npz")
    assert list(loaded.rows) == list(returned.rows) == [7, 26]
    for label, rows in loaded.rows.items():
        np.testing.assert_array_equal(rows, STORED[label].astype(np.float32))


def pickled_by_python_2(shape: str, dtype: str, order: str, flags: int, state: str) -> str:
    """An array as Python 2 pickles it in protocol 0, where bytes are text."""
    kind = f"cnumpy\ndtype\n(S'{dtype}'\nI0\nI1\ntR(I3\nS'{order}'\nNNNI-1\nI-1\nI{flags}\ntb"
    return f"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n({shape}t{kind}I00\n{state}tb"


def test_files_of_python_2_are_read(tmp_path: Path) -> None:
    rows = np.array([[-1.5, 2.3, 1e-5]])
    assert max(rows.tobytes()) > 127  # no ASCII, for which latin1 is needed
    data = "".join(f"\\x{byte:02x}" for byte in rows.tobytes())
    inner = pickled_by_python_2("I1\nI3\n", "f8", "<", 0, f"S'{data}'\n")
    outer = pickled_by_python_2("", "O8", "|", 63, f"(l(dI26\n{inner}sa")
    with open(tmp_path / "x.npy", "wb") as file:
        header = np.lib.format.header_data_from_array_1_0(np.empty((), dtype=object))
        np.lib.format.write_array_header_1_0(file, header)
        file.write(f"{outer}.".encode("ascii"))
    np.testing.assert_array_equal(
        np.load(tmp_path / "x.npy", allow_pickle=True, encoding="latin1").item()[26], rows
    )  # the file is sound
    converted = convert_features(tmp_path / "x.npy", tmp_path / "x.npz", "clusters")
    np.testing.assert_array_equal(converted.rows[26], rows.astype(np.float32))


class Bomb:
    """Unpickling it calls a function."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call


@pytest.mark.parametrize("where", ["instead", "inside", "as a key"])
@pytest.mark.parametrize("function", [os.mkdir, eval, getattr, np.load, np.fromfile])
def test_nothing_but_arrays_comes_out_of_the_pickle(tmp_path: Path, function: object, where: str) -> None:
    mark = tmp_path / "ran"
    argument = f"__import__('os').mkdir({str(mark)!r})" if function is eval else str(mark)
    bomb = Bomb(function, argument)
    stored = {"instead": bomb, "inside": {7: STORED[7], 8: bomb}, "as a key": {bomb: STORED[7]}}[where]
    path = save(tmp_path / "x.npy", stored)
    with pytest.raises(ValueError, match=r"x\.npy was not read: it asks for .*, which is no part of an array"):
        convert_features(path, tmp_path / "x.npz", "clusters")
    assert not mark.exists()
    assert not (tmp_path / "x.npz").exists()


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ([1, 2], "must hold a dictionary from class to array"),
        ({7: [1.0, 2.0]}, "must hold a dictionary from class to array"),
        ({7: np.zeros(3)}, "must hold a dictionary from class to array"),
        ({7: np.zeros((2, 3), np.int64)}, "must hold a dictionary from class to array"),
        ({"7": np.zeros((2, 3))}, "must hold a dictionary from class to array"),
        ({-7: np.zeros((2, 3))}, "feature clusters need classes of 0 or more, got -7"),
        ({7: np.zeros((2, 3)), 8: np.zeros((2, 4))}, "must have the same columns"),
    ],
)
def test_another_content_is_one_sentence(tmp_path: Path, stored: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convert_features(save(tmp_path / "x.npy", stored), tmp_path / "x.npz", "clusters")


def test_a_plain_array_is_no_feature_file(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"must hold a pickled dictionary, found an array \(2, 3\) of float64"):
        convert_features(tmp_path / "x.npy", tmp_path / "x.npz", "table")


@pytest.mark.parametrize("damage", ["empty", "half", "text"])
def test_a_damaged_file_is_one_sentence(tmp_path: Path, damage: str) -> None:
    path = save(tmp_path / "x.npy", STORED)
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "half": whole[: len(whole) // 2], "text": b"no npy at all"}[damage])
    with pytest.raises(ValueError, match=r"x\.npy could not be read as a feature file"):
        convert_features(path, tmp_path / "x.npz", "table")


def test_a_missing_file_is_file_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        convert_features(tmp_path / "x.npy", tmp_path / "x.npz", "table")


def test_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="kind must be one of table, clusters, got 'styles'"):
        convert_features(tmp_path / "x.npy", tmp_path / "x.npz", "styles")
