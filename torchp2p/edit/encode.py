"""What an encoder says about the instances of a dataset: a table to cluster, or feature maps in files (spec 7)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F

from torchp2p.data import LabelledDataset, LabelledFilesDataset, save_image, to_step_batch
from torchp2p.edit.per_class import Rows
from torchp2p.edit.styles import FeatureTable, class_of_id

Encoder: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""From an image (N, 3, H, W) in [-1, 1] and ids (N, 1, H, W) to features (N, C, H, W), constant on every instance."""

Progress: TypeAlias = Callable[[int, int], None]
"""Called with (done, total) after each sample."""


def encode_features(
    encoder: Encoder,
    dataset: LabelledDataset,
    *,
    label_feat: bool = False,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> FeatureTable:
    """The feature vector of every instance of a dataset, in order and never mirrored (spec 7.2).

    The area weight of an instance of n pixels in an image of H x W is n / (H * W // 32).

    Args:
        encoder: see `Encoder`; a network should be in evaluation mode and on ``device``.
        label_feat: labels take the role of the instance ids.

    Raises:
        ValueError: the dataset has no images or no ids, an image is smaller than 32 pixels, or the encoder returns
            another size than it was given; or what reading raises.
    """
    rows: dict[int, list[Rows]] = {}
    for _, features, ids in _encoded(encoder, dataset, label_feat, device, progress):
        vectors, present = _instances(features, ids)
        for label, row in zip(class_of_id(present).tolist(), vectors, strict=True):
            rows.setdefault(label, []).append(row)
    return FeatureTable({label: np.stack(of_class) for label, of_class in rows.items()})


def precompute_features(
    encoder: Encoder,
    dataset: LabelledFilesDataset,
    *,
    label_feat: bool = False,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> list[Path]:
    """Write the features of every sample at twice its size, for training at that size (spec 7.3).

    They go to ``<phase>_feat`` under the name of the label, as 8-bit RGB, [-1, 1] to 0..255; files that exist are
    replaced, each atomically.

    Returns:
        The files written.

    Raises:
        ValueError: as `encode_features`; or the dataset crops, or the encoder has not 3 features.
        OSError: a file cannot be written.
    """
    mode = dataset.options.resize_or_crop
    if "crop" in mode:
        raise ValueError(f"features of whole images are wanted: resize_or_crop must not crop, got {mode!r}")
    written = []
    for index, features, _ in _encoded(encoder, dataset, label_feat, device, progress):
        if features.shape[1] != 3:
            raise ValueError(f"features are kept as RGB files: the encoder must have 3, got {features.shape[1]}")
        path = dataset.feature_file(index)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_image(F.interpolate(features, scale_factor=2, mode="nearest")[0], path)
        written.append(path)
    return written


def _encoded(
    encoder: Encoder, dataset: LabelledDataset, label_feat: bool, device: torch.device | str, progress: Progress | None
) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
    """Index, features (1, C, H, W) and ids (1, 1, H, W) of each sample, one at a time."""
    plain = dataset.unaugmented()
    part = "label" if label_feat else "inst"
    for index in range(len(plain)):
        sample = plain.sample(index, epoch=0)
        for wanted in ("image", part):
            if wanted not in sample:
                raise ValueError(f"{sample['name']}: encoding needs {wanted}, which the dataset does not have")
        batch = to_step_batch({key: value[None] for key, value in sample.items() if torch.is_tensor(value)}, device)
        image, ids = batch["image"], batch[part]
        with torch.inference_mode():
            features = encoder(image, ids).float()
        if features.dim() != 4 or (features.shape[0], *features.shape[2:]) != (1, *image.shape[2:]):
            raise ValueError(
                f"{sample['name']}: the encoder must keep the size {tuple(image.shape[2:])}, "
                f"got features of shape {tuple(features.shape)}"
            )
        yield index, features, ids
        if progress is not None:
            progress(index + 1, len(plain))


def _instances(features: torch.Tensor, ids: torch.Tensor) -> tuple[Rows, np.ndarray]:
    """A row (features, area weight) for each instance, at any pixel of it, and the ids in ascending order."""
    unit = ids.numel() // 32
    if unit == 0:
        raise ValueError(f"an image must have 32 pixels or more, got {tuple(ids.shape[2:])}")
    present, pixels, counts = np.unique(ids.cpu().numpy(), return_index=True, return_counts=True)
    vectors = features.flatten(2)[0][:, torch.from_numpy(pixels).to(features.device)].cpu().numpy().T
    return np.concatenate([vectors, (counts / unit)[:, None].astype(np.float32)], axis=1), present
