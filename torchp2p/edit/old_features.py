"""The feature files of the original pix2pixHD: pickles, read without letting them run anything (spec 7.2)."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from torchp2p.edit.per_class import PathLike, PerClass
from torchp2p.edit.styles import Clusters, FeatureTable

KINDS: dict[str, type[PerClass]] = {"table": FeatureTable, "clusters": Clusters}
"""``features.npy`` is a table, ``features_clustered_010.npy`` are clusters."""


def convert_features(source: PathLike, target: PathLike, kind: str) -> PerClass:
    """Convert a ``.npy`` of the original, a pickled dictionary from class to array, to a safe ``.npz``.

    Files of Python 2 are read as well. Only NumPy arrays, dictionaries and numbers are let out of the pickle:
    anything else, code above all, is refused before it runs. Classes without rows are dropped.

    Args:
        kind: a key of `KINDS`; the two files look the same, and a wrong kind mistakes an area for a feature.

    Returns:
        What was written.

    Raises:
        ValueError: an unknown kind, a file that is no such dictionary, or a ``target`` that does not end in .npz.
        OSError: a file cannot be read or written.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    with open(source, "rb") as file:
        stored = _unpickled(file, Path(source))
    if not (isinstance(stored, dict) and all(_is_entry(*entry) for entry in stored.items())):
        raise ValueError(f"{source} must hold a dictionary from class to array (rows, features)")
    converted = KINDS[kind]({int(label): rows for label, rows in stored.items() if len(rows)})
    converted.save(target)
    return converted


def _is_entry(label: object, rows: object) -> bool:
    numbers = isinstance(rows, np.ndarray) and rows.ndim == 2 and np.issubdtype(rows.dtype, np.floating)
    return isinstance(label, (int, np.integer)) and numbers


class _Refused(pickle.UnpicklingError):
    """The pickle asks for something that is no array."""


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): bytes,  # of a text and "latin1"
    ("__builtin__", "bytes"): bytes,
    **{
        (f"numpy.{core}.multiarray", name): function
        for core in ("core", "_core")
        for name, function in (
            ("_reconstruct", np.empty(0).__reduce__()[0]),
            ("scalar", np.float32(0).__reduce__()[0]),
        )
    },
}
"""What a pickled array consists of. All of it is written in C: a pickle can set attributes of what it is given,
and these have none to set."""


class _ArraysOnly(pickle.Unpickler):
    """Finds what rebuilds arrays and nothing else, under the names it has had over the versions of NumPy."""

    def find_class(self, module: str, name: str) -> Any:
        found = _ALLOWED.get((module, name))
        if found is None:
            raise _Refused(f"{module}.{name}")
        return found


def _unpickled(file: BinaryIO, path: Path) -> object:
    """What the 0-dimensional object array of a ``.npy`` file holds."""
    try:
        version = np.lib.format.read_magic(file)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, _, dtype = read_header[version](file)
        if shape == () and dtype == np.dtype(object):
            return _ArraysOnly(file, encoding="latin1").load()[()]
    except _Refused as error:
        raise ValueError(f"{path} was not read: it asks for {error}, which is no part of an array") from error
    except Exception as error:  # a damaged pickle raises whatever comes to hand
        raise ValueError(f"{path} could not be read as a feature file: {error}") from error
    raise ValueError(f"{path} must hold a pickled dictionary, found an array {shape} of {dtype}")
