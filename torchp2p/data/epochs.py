"""What all datasets share: names, epochs, and augmentation that is a function of (seed, epoch, index) alone."""

from __future__ import annotations

import copy
import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from torch.utils.data import Dataset

from torchp2p.data.images import Array, PathLike
from torchp2p.data.transforms import Preprocess

SampleT = TypeVar("SampleT")
Self = TypeVar("Self", bound="EpochDataset[Any]")


class DatasetOptions(Protocol):
    """The options that every dataset has; names are those of the originals."""

    @property
    def dataroot(self) -> str | Path:
        """Folder of the data; unused for the demo."""

    @property
    def phase(self) -> str:
        """Subfolder or prefix: train, test, ...; there are random crops and flips in ``train`` alone."""

    @property
    def dataset_mode(self) -> str:
        """Which dataset it is."""

    @property
    def load_size(self) -> int:
        """Pixels to resize to."""

    @property
    def crop_size(self) -> int:
        """Pixels to crop to."""

    @property
    def no_flip(self) -> bool:
        """Never mirror."""

    @property
    def max_dataset_size(self) -> int | None:
        """Use the first so many samples; None for all."""

    @property
    def serial_batches(self) -> bool:
        """Keep the order of the dataset in every epoch."""

    @property
    def seed(self) -> int:
        """Not negative; rules the order, the crops and the flips."""


class EpochDataset(Dataset[SampleT], ABC):
    """Base of the datasets; a subclass knows what a sample is and where it comes from.

    ``dataset[i]`` is ``sample(i, epoch)`` for the epoch of `set_epoch`, 0 at first. Picklable, for workers.

    Args:
        options: see `DatasetOptions`.
        names: of all samples, in order; the first ``max_dataset_size`` are used.
        preprocess: resize, crop and flip.

    Raises:
        ValueError: ``max_dataset_size`` or ``seed`` is out of range.
    """

    def __init__(self, options: DatasetOptions, names: list[str], preprocess: Preprocess) -> None:
        check_least(options, {"max_dataset_size": 1, "seed": 0})
        self.seed, self.serial_batches = options.seed, options.serial_batches
        self._names = names[: options.max_dataset_size]
        self._epoch = 0
        self._preprocess = preprocess

    @abstractmethod
    def files(self, index: int) -> tuple[Path, ...]:
        """The files that sample ``index`` is read from."""

    @abstractmethod
    def decoders(self, index: int) -> tuple[Callable[[PathLike], Array], ...]:
        """For each of `files`, the function that decodes it alone."""

    @abstractmethod
    def read(self, index: int) -> object:
        """Decode one sample and check that its parts fit together; see the subclass."""

    @property
    @abstractmethod
    def read_options(self) -> list[str | int]:
        """The options that decide, besides the files, whether `read` succeeds."""

    @abstractmethod
    def sample(self, index: int, epoch: int) -> SampleT:
        """One sample as the network gets it in ``epoch``: a function of the seed, the epoch and the index."""

    @abstractmethod
    def pictures(self, sample: SampleT) -> list[Array]:
        """A sample for the eye, each picture uint8 RGB (H, W, 3)."""

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> SampleT:
        return self.sample(index, self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose crops and flips ``dataset[i]`` shows."""
        self._epoch = epoch

    def unaugmented(self: Self) -> Self:
        """The same samples without random crops and flips, brought to size as outside training."""
        plain = copy.copy(self)
        plain._preprocess = dataclasses.replace(self._preprocess, training=False)
        return plain

    def name(self, index: int) -> str:
        """The name of a sample: its path below the folder, without extension."""
        return self._names[index]

    def _generator(self, index: int, epoch: int) -> np.random.Generator:
        """What draws the crop and the flip of a sample."""
        return np.random.default_rng(np.random.SeedSequence([self.seed, epoch, index]))


def check_least(options: object, least: dict[str, int]) -> None:
    """Raise ValueError for the first of these options that is below its least value; None is none."""
    for name, limit in least.items():
        value = getattr(options, name)
        if value is not None and value < limit:
            raise ValueError(f"{name} must be at least {limit}, got {value}")
