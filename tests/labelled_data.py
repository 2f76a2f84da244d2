"""Small labelled data for tests: options, and folders as pix2pixHD lays them out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from torchp2p.data import LabelledSample

RNG = np.random.default_rng(0)
IDS = np.array([0, 7, 26, 24001, 26001, 26002, 33001, 65535])
"""Instance ids, those included that 15 bits cannot hold."""


@dataclass(frozen=True)
class LabelledOptions:
    """A frozen dataclass is a LabelledOptions."""

    dataroot: Path = Path()
    phase: str = "train"
    dataset_mode: str = "labelled"
    load_size: int = 40
    crop_size: int = 16
    no_flip: bool = True
    max_dataset_size: int | None = None
    serial_batches: bool = False
    seed: int = 0
    label_nc: int = 35
    no_instance: bool = False
    load_features: bool = False
    resize_or_crop: str = "scale_width"
    size_multiple: int = 16
    unknown_label: str = "error"
    cache_bytes: int = 0


def write(path: Path, plane: np.ndarray) -> np.ndarray:
    """Write as PNG (16 bits for uint16), or as whatever the name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, plane)
    else:
        Image.fromarray(plane).save(path)
    return plane


def colours(height: int, width: int) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


def labels(height: int, width: int) -> np.ndarray:
    return RNG.integers(0, 35, (height, width), dtype=np.uint8)


def instances(height: int, width: int) -> np.ndarray:
    return RNG.choice(IDS, (height, width)).astype(np.uint16)


def write_frame(root: Path, name: str = "x", size: tuple[int, int] = (20, 40), phase: str = "train") -> None:
    """One frame with label, instances, image and features."""
    write(root / f"{phase}_label" / f"{name}.png", labels(*size))
    write(root / f"{phase}_inst" / f"{name}.png", instances(*size))
    write(root / f"{phase}_img" / f"{name}.png", colours(*size))
    write(root / f"{phase}_feat" / f"{name}.png", colours(*size))


def stored(path: Path) -> np.ndarray:
    """The pixels of a file as Pillow gives them."""
    return np.asarray(Image.open(path))


def equal(one: LabelledSample, other: LabelledSample) -> bool:
    tensors = [part for part in one if part != "name"]
    return one["name"] == other["name"] and all(torch.equal(one[part], other[part]) for part in tensors)
