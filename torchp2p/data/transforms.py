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
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from torchp2p.data.images import Array, as_unit

Size: TypeAlias = tuple[int, int]
"""(height, width) in pixels."""

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


def resize_ids(ids: npt.NDArray[np.int32], size: Size) -> npt.NDArray[np.int32]:
    """Nearest-neighbour (Pillow's) resize of an int32 label or instance map (H, W); ids are never mixed."""
    height, width = size
    return np.asarray(Image.fromarray(ids).resize((width, height), Image.Resampling.NEAREST))


def _bicubic(plane: Array, size: Size) -> Image.Image:
    height, width = size
    return Image.fromarray(np.ascontiguousarray(plane)).resize((width, height), Image.Resampling.BICUBIC)
