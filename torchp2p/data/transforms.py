"""Resize, crop and flip: the preprocess options of pix2pix (spec 6.2), planned once for both images.

What differs from the original, on purpose:

* ``none`` leaves the size alone (the original rounds it to a multiple of 4).
* A crop is ``min(image, crop)`` on each side (the original pads a side that is too short with zeros).
* Outside training nothing is random: no flip, crops are central, and the modes that resize *and* crop resize
  for ``load_size = crop_size``, which is what the original's test command does by default: the whole picture
  is seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from torchp2p.data.images import Array, as_unit

Size: TypeAlias = tuple[int, int]
"""(height, width) in pixels."""

_Ids = TypeVar("_Ids", np.int32, np.uint8)

PREPROCESS_MODES = ("resize_and_crop", "crop", "scale_width", "scale_width_and_crop", "none")


@dataclass(frozen=True)
class Geometry:
    """What happens to the pixels of one sample: resize to ``size``, keep a window, mirror it."""

    size: Size
    top: int
    left: int
    height: int
    width: int
    flip: bool

    def apply(self, image: Array) -> Array:
        """(H, W, C) to (height, width, C); the dtype as in `resize`."""
        return self.window(resize(image, self.size))

    def window(self, resized: Array) -> Array:
        """Crop and flip alone, of an array (H, W, ...) that already has ``size``; a view."""
        rows, columns = slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)
        cropped = resized[rows, columns]
        return cropped[:, ::-1] if self.flip else cropped


@dataclass(frozen=True)
class Preprocess:
    """The preprocess options of one dataset.

    Args:
        mode: one of `PREPROCESS_MODES`.
        load_size, crop_size: pixels.
        training: random crops and flips, or the fixed procedure for testing.
        flip: mirror half of the training samples.

    Raises:
        ValueError: an unknown mode, or a size below 1.
    """

    mode: str
    load_size: int
    crop_size: int
    training: bool
    flip: bool

    def __post_init__(self) -> None:
        if self.mode not in PREPROCESS_MODES:
            raise ValueError(f"preprocess must be one of {', '.join(PREPROCESS_MODES)}, got {self.mode!r}")
        for name in ("load_size", "crop_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    @property
    def scale(self) -> int:
        """The load size in force: ``crop_size`` for the modes that resize and crop when not training."""
        resizes_and_crops = self.mode in ("resize_and_crop", "scale_width_and_crop")
        return self.crop_size if resizes_and_crops and not self.training else self.load_size

    def resized(self, size: Size) -> Size:
        """The size after the resize that this mode makes of an image of ``size`` (spec 6.2)."""
        height, width = size
        if self.mode == "resize_and_crop":
            return self.scale, self.scale
        if self.mode.startswith("scale_width") and not (width == self.scale and height >= self.crop_size):
            return int(max(self.scale * height / width, self.crop_size)), self.scale
        return size

    def plan(self, size: Size, generator: np.random.Generator) -> Geometry:
        """Decide everything for an image of ``size``; ``generator`` draws what training has at random."""
        resized = self.resized(size)
        height, width = (min(side, self.crop_size) for side in resized) if "crop" in self.mode else resized
        spare_y, spare_x = resized[0] - height, resized[1] - width
        if not self.training:
            return Geometry(resized, spare_y // 2, spare_x // 2, height, width, flip=False)
        left, top = int(generator.integers(spare_x + 1)), int(generator.integers(spare_y + 1))
        flip = bool(generator.random() < 0.5)  # drawn even when not wanted: no_flip must not move the crops
        return Geometry(resized, top, left, height, width, flip and self.flip)


@dataclass(frozen=True)
class LabelledPreprocess(Preprocess):
    """The ``resize_or_crop`` modes of pix2pixHD, where they differ from those of pix2pix (spec 6.2).

    ``scale_width`` keeps the aspect ratio whatever the crop size, and ``none`` rounds each side to the nearest
    multiple of ``multiple`` (but never to 0). Outside training the picture is scaled as in training and crops
    are central.
    """

    multiple: int

    @property
    def scale(self) -> int:
        """The load size, in training or not."""
        return self.load_size

    def resized(self, size: Size) -> Size:
        """The size after the resize; what has that size already keeps it."""
        height, width = size
        if self.mode == "resize_and_crop":
            return self.scale, self.scale
        if self.mode.startswith("scale_width") and width != self.scale:
            return max(1, int(self.scale * height / width)), self.scale
        if self.mode == "none":
            height, width = (max(1, round(side / self.multiple)) * self.multiple for side in size)
        return height, width


def resize(image: Array, size: Size) -> Array:
    """Bicubic (Pillow's filter) resize of (H, W, C) to (height, width, C).

    uint8 with 1 or 3 channels stays uint8 and equals the original pix2pix pixel for pixel. Anything else is
    filtered channel by channel in float32 and comes back as float32 clipped to [0, 1]. An image of that size
    is not touched.
    """
    if image.shape[:2] == size:
        return image
    if image.dtype == np.uint8 and image.shape[2] in (1, 3):
        resized = np.asarray(_bicubic(image[..., 0] if image.shape[2] == 1 else image, size))
        return resized.reshape(*size, image.shape[2])
    channels = [np.asarray(_bicubic(channel, size)) for channel in np.moveaxis(as_unit(image), 2, 0)]
    unit: Array = np.clip(np.stack(channels, axis=2), 0, 1)
    return unit


def resize_ids(ids: npt.NDArray[_Ids], size: Size) -> npt.NDArray[_Ids]:
    """Nearest-neighbour (Pillow's) resize that never mixes values.

    For label and instance maps (H, W), int32 or uint8, and for precomputed features (H, W, 3) uint8.
    """
    if ids.shape[:2] == size:
        return ids
    height, width = size
    return np.asarray(Image.fromarray(ids).resize((width, height), Image.Resampling.NEAREST))


def _bicubic(plane: Array, size: Size) -> Image.Image:
    height, width = size
    return Image.fromarray(np.ascontiguousarray(plane)).resize((width, height), Image.Resampling.BICUBIC)
