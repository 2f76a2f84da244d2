"""Arrays by class in a file: ``.npz`` with one array for each class, and nothing pickled."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

from torchp2p.files import atomic_write

PathLike = str | os.PathLike[str]
Rows = npt.NDArray[np.float32]
Self = TypeVar("Self", bound="PerClass")

_KIND = "kind"


@dataclass(frozen=True)
class PerClass:
    """One float32 array (rows, columns) for each class, all with the same number of columns.

    Args:
        rows: by class, 0 or more; other floating-point dtypes are converted.

    Raises:
        ValueError: a class is negative, an array has no two dimensions, or their columns differ.
    """

    rows: Mapping[int, Rows]

    KIND: ClassVar[str]
    """What the file calls itself."""

    def __post_init__(self) -> None:
        rows = {label: np.asarray(rows, np.float32) for label, rows in sorted(self.rows.items())}
        for label, array in rows.items():
            if label < 0:
                raise ValueError(f"{self.KIND} need classes of 0 or more, got {label}")
            if array.ndim != 2 or array.shape[1] < 1:
                raise ValueError(f"{self.KIND} of class {label} must be (rows, columns), got shape {array.shape}")
        columns = {array.shape[1] for array in rows.values()}
        if len(columns) > 1:
            raise ValueError(f"{self.KIND} of all classes must have the same columns, got {sorted(columns)}")
        object.__setattr__(self, "rows", rows)

    @property
    def columns(self) -> int:
        """Columns of every array; 0 if there is no class."""
        return next((array.shape[1] for array in self.rows.values()), 0)

    def save(self, path: PathLike) -> None:
        """Write a ``.npz``, atomically.

        Raises:
            ValueError: the name ends otherwise.
            OSError: it cannot be written.
        """
        if Path(path).suffix != ".npz":
            raise ValueError(f"{path}: {self.KIND} are kept in files whose name ends in .npz")
        arrays: dict[str, Any] = {str(label): array for label, array in self.rows.items()}
        atomic_write(path, lambda file: np.savez(file, **{_KIND: np.array(self.KIND), **arrays}))

    @classmethod
    def load(cls: type[Self], path: PathLike) -> Self:
        """Read what `save` wrote; nothing in the file is executed.

        Raises:
            ValueError: the file is no such file, is damaged, or holds something else.
            OSError: it cannot be opened.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
        except OSError:
            raise
        except Exception as error:  # a damaged archive raises whatever comes to hand
            raise ValueError(f"{path} holds no {cls.KIND}: it is not a whole .npz file of plain arrays") from error
        kind = arrays.pop(_KIND, None)
        if kind is None or str(kind) != cls.KIND:
            raise ValueError(f"{path} holds no {cls.KIND}, but {'something else' if kind is None else kind}")
        try:
            return cls({int(name): rows for name, rows in arrays.items()})
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
