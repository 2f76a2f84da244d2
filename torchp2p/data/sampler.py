"""The order of samples in an epoch, resumable at any batch, and the loader that follows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
import torch
from torch.utils.data import DataLoader

from torchp2p.data.epochs import EpochDataset


class _BatchA(TypedDict):
    A: torch.Tensor
    path: list[str]


class Batch(_BatchA, total=False):
    """Samples stacked: ``A`` and, for paired data, ``B`` (N, C, H, W); ``path`` holds the N names."""

    B: torch.Tensor


class _LabelBatch(TypedDict):
    label: torch.Tensor
    name: list[str]


class LabelledBatch(_LabelBatch, total=False):
    """Labelled samples stacked: (N, C, H, W) of the integers of `LabelledSample`; ``name`` holds the N names."""

    inst: torch.Tensor
    image: torch.Tensor
    feat: torch.Tensor


class EpochSampler:
    """The batches of any epoch, as a pure function of the seed and the epoch.

    Args:
        length: samples in the dataset.
        batch_size: samples in a batch; the last one of an epoch may be smaller.
        seed: not negative; the order of epoch e is the permutation drawn from ``SeedSequence([seed, e])``.
        serial: keep the order of the dataset instead.
        drop_last: leave out a last batch that is not full.

    Raises:
        ValueError: an empty dataset, a batch size below 1, or ``drop_last`` leaving no batch at all.
    """

    def __init__(self, length: int, batch_size: int, seed: int, serial: bool = False, drop_last: bool = False) -> None:
        if length < 1 or batch_size < 1:
            raise ValueError(f"length and batch_size must be at least 1, got {length} and {batch_size}")
        if drop_last and batch_size > length:
            raise ValueError(f"batch_size {batch_size} with drop_last leaves no batch of {length} samples")
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.serial, self.drop_last = serial, drop_last

    def __len__(self) -> int:
        return self.length // self.batch_size if self.drop_last else -(-self.length // self.batch_size)

    def batches(self, epoch: int, start_batch: int = 0) -> list[list[int]]:
        """The index lists of ``epoch`` from ``start_batch`` on; ``start_batch == len(self)`` gives none.

        Raises:
            ValueError: ``start_batch`` is outside the epoch.
        """
        if not 0 <= start_batch <= len(self):
            raise ValueError(f"start_batch must be from 0 to {len(self)}, got {start_batch}")
        if self.serial:
            order = np.arange(self.length)
        else:
            order = np.random.default_rng(np.random.SeedSequence([self.seed, epoch])).permutation(self.length)
        starts = (batch * self.batch_size for batch in range(start_batch, len(self)))
        return [order[start : start + self.batch_size].tolist() for start in starts]


def make_loader(
    dataset: EpochDataset[Any],
    epoch: int,
    start_batch: int = 0,
    batch_size: int = 1,
    num_workers: int = 0,
    *,
    drop_last: bool = False,
    pin_memory: bool = False,
) -> DataLoader[Any]:
    """The batches of one epoch, in the order of `EpochSampler`, from ``start_batch`` on.

    Sets the dataset's epoch, which the workers inherit: the samples are the same for any ``num_workers``.
    Without workers each batch is read when it is asked for. Workers run torch on one thread, as DataLoader
    always arranges.

    Raises:
        ValueError: what `EpochSampler` refuses; while iterating, images of different sizes in one batch.
    """
    dataset.set_epoch(epoch)
    sampler = EpochSampler(len(dataset), batch_size, dataset.seed, dataset.serial_batches, drop_last)
    return DataLoader[Any](
        dataset,
        batch_sampler=sampler.batches(epoch, start_batch),
        num_workers=num_workers,
        collate_fn=collate,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # else each loader would advance torch's global one, and so dropout's
    )


def collate(samples: Sequence[Mapping[str, Any]]) -> Any:
    """Stack samples to a batch: tensors are stacked, names listed.

    Raises:
        ValueError: two images have different sizes; the message names both files.
    """
    first = samples[0]
    tensors = [part for part, value in first.items() if isinstance(value, torch.Tensor)]
    (name,) = first.keys() - tensors
    for sample in samples[1:]:
        sizes = [tuple(one[tensors[0]].shape[1:]) for one in (first, sample)]
        if sizes[0] != sizes[1]:
            raise ValueError(
                f"{first[name]} and {sample[name]} have sizes {sizes[0]} and {sizes[1]} (height, width) "
                "and cannot share a batch: use batch_size 1, or a preprocess that gives every image one size"
            )
    stacked = {part: torch.stack([sample[part] for sample in samples]) for part in tensors}
    return {**stacked, name: [sample[name] for sample in samples]}
