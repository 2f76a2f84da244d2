"""Colours: Lab for colorization (spec 6.5) and the palettes that show label maps (spec 6.7)."""

from __future__ import annotations

import warnings
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from torchp2p.data.images import Array

CITYSCAPES_LABELS = 35
"""How many label ids Cityscapes has, 0 to 34; the default ``label_nc``."""

CITYSCAPES_PALETTE: npt.NDArray[np.uint8] = np.array(
    [(0, 0, 0)] * 5
    + [
        (111, 74, 0),
        (81, 0, 81),
        (128, 64, 128),
        (244, 35, 232),
        (250, 170, 160),
        (230, 150, 140),
        (70, 70, 70),
    ]
    + [(102, 102, 156), (190, 153, 153), (180, 165, 180), (150, 100, 100), (150, 120, 90)]
    + [(153, 153, 153)] * 2
    + [
        (250, 170, 30),
        (220, 220, 0),
        (107, 142, 35),
        (152, 251, 152),
        (70, 130, 180),
        (220, 20, 60),
        (255, 0, 0),
    ]
    + [
        (0, 0, 142),
        (0, 0, 70),
        (0, 60, 100),
        (0, 0, 90),
        (0, 0, 110),
        (0, 80, 100),
        (0, 0, 230),
        (119, 11, 32),
    ]
    + [(0, 0, 142)],
    dtype=np.uint8,
)
"""RGB of the Cityscapes label ids, (35, 3); read-only."""
CITYSCAPES_PALETTE.setflags(write=False)


def label_palette(count: int) -> npt.NDArray[np.uint8]:
    """RGB colours (count, 3) for that many label ids: Cityscapes' for 35, else bits of the id (spec 6.7).

    Raises:
        ValueError: ``count`` is below 1.
    """
    if count < 1:
        raise ValueError(f"a palette needs at least 1 label, got {count}")
    if count == CITYSCAPES_LABELS:
        return CITYSCAPES_PALETTE
    ids = np.arange(count)
    palette = np.zeros((count, 3), dtype=np.uint8)
    for step in range(7):
        for channel in range(3):
            bit = (ids >> (3 * step + channel)) & 1
            palette[:, channel] |= (bit << (7 - step)).astype(np.uint8)
    return palette


def colourise_labels(
    labels: npt.NDArray[Any], count: int = CITYSCAPES_LABELS, *, unknown: int | None = None
) -> npt.NDArray[np.uint8]:
    """Label ids (H, W) of any integer dtype to uint8 RGB (H, W, 3).

    Ids outside 0..count-1 (some data sets mark "ignore" as 255 or -1) are an error, unless ``unknown`` names
    the id to draw them as.

    Raises:
        ValueError: such an id, with its first position; or ``unknown`` is itself out of range.
    """
    if unknown is not None and not 0 <= unknown < count:
        raise ValueError(f"unknown must be a label id from 0 to {count - 1}, got {unknown}")
    outside = (labels < 0) | (labels >= count)
    if outside.any():
        if unknown is None:
            row, column = np.argwhere(outside)[0]
            raise ValueError(
                f"label {labels[row, column]} at row {row}, column {column} is not one of 0 to {count - 1}; "
                "give unknown, the id to show such labels as"
            )
        labels = np.where(outside, unknown, labels)
    coloured: npt.NDArray[np.uint8] = label_palette(count)[labels]
    return coloured


def rgb_to_lab(image: Array) -> npt.NDArray[np.float32]:
    """sRGB (H, W, 3), uint8, uint16 or float in [0, 1], to CIE Lab (D65): L 0..100, a and b within ±110.

    Raises:
        ImportError: scikit-image is not installed.
    """
    lab: npt.NDArray[np.float32] = _skimage_color().rgb2lab(image).astype(np.float32)
    return lab


def lab_to_rgb(lab: Array) -> npt.NDArray[np.uint8]:
    """CIE Lab (H, W, 3) to uint8 sRGB, rounded, the inverse of `rgb_to_lab`; what RGB cannot show is clipped.

    Raises:
        ImportError: scikit-image is not installed.
    """
    color = _skimage_color()
    with warnings.catch_warnings():
        # A network's output often lies outside RGB: skimage clips it, as we want, and warns every time.
        warnings.filterwarnings("ignore", message=".*negative Z values", category=UserWarning)
        rgb = color.lab2rgb(lab.astype(np.float64))
    pixels: npt.NDArray[np.uint8] = np.rint(rgb * 255).astype(np.uint8)
    return pixels


def rgb_to_lab_tensors(image: Array) -> tuple[torch.Tensor, torch.Tensor]:
    """sRGB (H, W, 3) to what colorization trains on: L / 50 - 1 (1, H, W), ab / 110 (2, H, W); spec 6.5."""
    lab = torch.from_numpy(np.ascontiguousarray(rgb_to_lab(image).transpose(2, 0, 1)))
    return lab[:1] / 50 - 1, lab[1:] / 110


def lab_tensor_to_rgb(lightness: torch.Tensor, ab: torch.Tensor) -> npt.NDArray[np.uint8]:
    """Undo `rgb_to_lab_tensors`: (1, H, W) and (2, H, W), clipped to [-1, 1], to uint8 RGB (H, W, 3).

    Raises:
        ImportError: scikit-image is missing; the sentence names the extra that installs it.
    """
    scaled = torch.cat([(lightness.clamp(-1, 1) + 1) * 50, ab.clamp(-1, 1) * 110])
    return lab_to_rgb(scaled.detach().float().cpu().permute(1, 2, 0).numpy())


def _skimage_color() -> ModuleType:
    try:
        from skimage import color
    except ImportError as error:
        raise ImportError("Lab colours need scikit-image: pip install torchp2p[color]") from error
    module: ModuleType = color
    return module
