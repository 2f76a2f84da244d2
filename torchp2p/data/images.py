"""Reading image files to arrays and writing arrays to image files, at the depth and channel count they have.

An image in memory is an array (H, W, C) of uint8, of uint16, or of float32 in [0, 1]; the network's tensors
are float32 (C, H, W) in [-1, 1] (spec 6.1, 9.2).
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps

from torchp2p.files import atomic_path

Array: TypeAlias = npt.NDArray[Any]
PathLike: TypeAlias = str | os.PathLike[str]

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".tif", ".tiff", ".webp", ".npy")
"""What is looked for in a folder, in any case."""

_TIFF = (".tif", ".tiff")
_PPM_MAXIMUM = re.compile(rb"P[36](?:(?:\s|#[^\n]*\n)+(\d+)){3}\s")


class ImageError(ValueError):
    """A file that cannot be used as an image; the message names it."""


def read_image(path: PathLike) -> Array:
    """Read one file to (H, W, C): uint8, uint16, or float32 in [0, 1], with the channels the file has.

    * Palettes become RGB (RGBA where the palette has transparency); bilevel images become 0 and 255.
    * The EXIF orientation is applied, so pixels are as a viewer shows them and as a labeller saw them.
    * TIFF: one image, with at most one axis besides height and width: that one is the channels (a stack of
      pages too).
    * npy: (H, W) or (H, W, C). Nothing pickled is ever loaded.

    Raises:
        ImageError: the file is damaged, animated, of an unsupported kind, or would lose depth (Pillow reduces
            16-bit RGB PNG and PPM files to 8 bits); or its floating-point values are not within [0, 1].
        OSError: the file cannot be opened (FileNotFoundError, PermissionError, ...).
    """
    array = _decode(Path(path))
    if array.dtype in (np.uint8, np.uint16):
        return array
    if not np.issubdtype(array.dtype, np.floating):
        raise ImageError(f"{path}: expected pixels of uint8, uint16 or floating point, found {array.dtype}")
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= 1):  # a NaN fails this too
        raise ImageError(f"{path}: floating-point images must hold values from 0 to 1, found {low} to {high}")
    return array.astype(np.float32)


def read_ids(path: PathLike) -> npt.NDArray[np.int32]:
    """Read a label or instance map to int32 (H, W), as stored: no scaling, a palette's indices (spec 6.3).

    Raises:
        ImageError: more than one channel, not integers of 32 bits, or a damaged or unsupported file.
        OSError: the file cannot be opened.
    """
    array = _decode(Path(path), palette_indices=True)
    if array.shape[2] != 1 or not np.issubdtype(array.dtype, np.integer):
        raise ImageError(f"{path}: expected one channel of integer ids, found {array.shape[2]} of {array.dtype}")
    ids = array[..., 0].astype(np.int32)
    if (ids != array[..., 0]).any():
        raise ImageError(f"{path}: ids must fit into 32 bits, found {array.min()} to {array.max()}")
    return ids


def fit_channels(image: Array, channels: int, path: PathLike) -> Array:
    """The image with the number of channels the network wants, where that loses nothing silently (spec 6.1).

    RGB to 1: ITU-601 grey. Grey to 3: repeated. For 1 and 3, an alpha that is opaque everywhere is dropped.

    Raises:
        ImageError: any other difference, naming the file, the channels expected and those found.
    """
    found = image.shape[2]
    if found == channels:
        return image
    if (found, channels) == (3, 1):
        return _grey(image)
    if (found, channels) == (1, 3):
        return np.repeat(image, 3, axis=2)
    maybe_alpha = found in (2, 4) and channels in (1, 3)
    if maybe_alpha and (image[..., -1] == full_scale(image.dtype)).all():
        return fit_channels(image[..., :-1], channels, path)
    hint = "; if the last is transparency, flatten the image first" if maybe_alpha else ""
    raise ImageError(f"{path}: expected {channels} channels, found {found}{hint}")


def full_scale(dtype: np.dtype[Any]) -> int:
    """The value that means 1.0: 255, 65535, or 1 for floating point."""
    return np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1


def as_unit(image: Array) -> npt.NDArray[np.float32]:
    """Pixels as float32 in [0, 1]: uint8 / 255, uint16 / 65535, floating point unchanged."""
    scaled: npt.NDArray[np.float32] = image.astype(np.float32) / np.float32(full_scale(image.dtype))
    return scaled


def to_tensor(image: Array) -> torch.Tensor:
    """(H, W, C) image to a contiguous float32 tensor (C, H, W) in [-1, 1]: (x - 0.5) / 0.5 of `as_unit`."""
    centred = (as_unit(image) - np.float32(0.5)) / np.float32(0.5)
    return torch.from_numpy(np.ascontiguousarray(centred.transpose(2, 0, 1)))


def to_pixels(image: torch.Tensor | Array, bits: int = 8) -> Array:
    """(C, H, W) or (H, W) in [-1, 1] to (H, W, C) of uint8 or uint16, clipped and truncated (spec 9.2).

    Raises:
        ValueError: another number of dimensions or bits, or NaN.
    """
    if bits not in (8, 16):
        raise ValueError(f"bits must be 8 or 16, got {bits}")
    array = image.detach().float().cpu().numpy() if isinstance(image, torch.Tensor) else np.asarray(image, np.float32)
    if array.ndim not in (2, 3):
        raise ValueError(f"image must be (C, H, W) or (H, W), got shape {tuple(array.shape)}")
    if np.isnan(array).any():
        raise ValueError("image holds NaN")
    maximum = 2**bits - 1
    scaled = np.clip((array + 1) / 2 * maximum, 0, maximum)
    pixels: Array = scaled.astype(np.uint8 if bits == 8 else np.uint16)
    return pixels[..., None] if pixels.ndim == 2 else pixels.transpose(1, 2, 0)


def to_rgb(image: torch.Tensor | Array) -> npt.NDArray[np.uint8]:
    """(C, H, W) in [-1, 1] to uint8 RGB (H, W, 3) for the eye.

    One channel is grey; two are shown as red and green; of more than three, the first three are shown.

    Raises:
        ValueError: no image, or NaN; see `to_pixels`.
    """
    pixels = to_pixels(image)[..., :3]
    if pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2)
    return np.pad(pixels, ((0, 0), (0, 0), (0, 3 - pixels.shape[2])))


def image_suffix(channels: int, bits: int = 8) -> str:
    """The suffix of a lossless file that holds such an image: .png where PNG can, else .tif.

    Args:
        channels: of the image.
        bits: of a channel, 8 or 16.
    """
    return ".png" if (channels, bits) in ((1, 8), (3, 8), (1, 16)) else ".tif"


def save_image(image: torch.Tensor | Array, path: PathLike, bits: int = 8) -> None:
    """Write a network's (C, H, W) image in [-1, 1], atomically, over any file of that name (spec 9.2).

    One channel gives a grey file, three an RGB one; other counts, and three of 16 bits, need .tif
    (`image_suffix`).

    Raises:
        ValueError: a wrong shape, depth or NaN, or a format that cannot hold the image.
        OSError: naming the file, when it cannot be written; the previous file is then untouched.
    """
    write_image(to_pixels(image, bits), path)


def write_image(pixels: Array, path: PathLike) -> None:
    """Write (H, W, C) pixels as PNG, JPEG (quality 100, 4:4:4) or TIFF, atomically.

    TIFF holds uint8, uint16 and float32 in any number of channels; see `image_suffix` for PNG.

    Raises:
        ValueError: the format by that suffix is not one of these, or cannot hold such pixels.
        OSError: naming the file, when it cannot be written.
    """
    suffix, channels = Path(path).suffix.lower(), pixels.shape[2]
    if pixels.dtype not in (np.uint8, np.uint16, np.float32):
        raise ValueError(f"{path}: pixels must be uint8, uint16 or float32, got {pixels.dtype}")
    if suffix in _TIFF:
        _write_tiff(pixels, path)
        return
    if suffix not in (".png", ".jpg", ".jpeg"):
        raise ValueError(f"{path}: expected a name ending in .png, .jpg, .jpeg, .tif or .tiff")
    bits = pixels.dtype.itemsize * 8
    if image_suffix(channels, bits) == ".tif" or (suffix != ".png" and bits == 16):
        raise ValueError(f"{path}: {suffix} cannot hold {channels} channels of {bits} bits; use .tif")
    image = Image.fromarray(pixels[..., 0] if channels == 1 else np.ascontiguousarray(pixels))
    with atomic_path(path) as temporary:
        image.save(temporary, quality=100, subsampling=0)  # PNG has no use for either


def _write_tiff(pixels: Array, path: PathLike) -> None:
    import tifffile

    rgb = pixels.shape[2] == 3
    image = pixels[..., 0] if pixels.shape[2] == 1 else pixels
    with atomic_path(path) as temporary:
        tifffile.imwrite(
            temporary,
            image,
            photometric="rgb" if rgb else "minisblack",
            planarconfig="contig" if image.ndim == 3 else None,
        )


def _grey(image: Array) -> Array:
    """ITU-601 luma of RGB, (H, W, 1); integers rounded exactly as Pillow does for 8 bits."""
    if np.issubdtype(image.dtype, np.floating):
        luma = image @ np.array([0.299, 0.587, 0.114], image.dtype)
    else:
        red, green, blue = np.moveaxis(image.astype(np.uint32), 2, 0)
        luma = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16
    grey: Array = luma.astype(image.dtype)[..., None]
    return grey


def _decode(path: Path, *, palette_indices: bool = False) -> Array:
    """The file's pixels as (H, W, C), of the dtype the file has."""
    try:
        suffix = path.suffix.lower()
        if suffix == ".npy":
            array = _decode_npy(path)
        elif suffix in _TIFF:
            array = _decode_tiff(path, palette_indices)
        else:
            array = _decode_pillow(path, palette_indices)
    except Exception as error:  # decoders raise whatever comes to hand when a file is damaged
        of_the_system = isinstance(error, OSError) and error.errno is not None
        if of_the_system or isinstance(error, (ImageError, MemoryError)):
            raise
        raise ImageError(f"{path} could not be read: {error}") from error
    if array.size == 0:
        raise ImageError(f"{path} holds no pixels: its shape is {array.shape}")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _decode_npy(path: Path) -> Array:
    array: Array = np.load(path, allow_pickle=False)
    if array.ndim not in (2, 3):
        raise ImageError(f"{path}: expected an array (H, W) or (H, W, C), found shape {array.shape}")
    return array if array.ndim == 3 else array[..., None]


def _decode_pillow(path: Path, palette_indices: bool) -> Array:
    _refuse_reduced_depth(path)
    with Image.open(path) as file:
        if getattr(file, "is_animated", False) and file.format != "MPO":  # a camera's MPO holds a preview as well
            raise ImageError(f"{path} holds several frames; expected one image")
        image: Image.Image = file
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode in ("P", "PA") and not palette_indices:
            image = image.convert("RGBA" if image.has_transparency_data else "RGB")
        elif image.mode == "1":
            image = image.convert("L")
        if image.mode not in ("L", "P", "LA", "RGB", "RGBA", "I", "I;16", "I;16B"):
            raise ImageError(f"{path}: expected a grey, RGB or palette image, found mode {image.mode}")
        array: Array = np.asarray(image)
    if image.mode.startswith("I"):  # 16 bits: older Pillow and PGM give "I", big-endian TIFF gives "I;16B"
        array = array.astype(np.uint16 if array.min() >= 0 and array.max() <= 65535 else np.int32)
    return array if array.ndim == 3 else array[..., None]


def _refuse_reduced_depth(path: Path) -> None:
    """Raise for the files whose 16 bits Pillow cuts to 8 without a word: PNG and PPM with colour or alpha."""
    with open(path, "rb") as file:
        head = file.read(512)
    png = head.startswith(b"\x89PNG\r\n\x1a\n") and len(head) > 25 and head[24] == 16 and head[25] != 0
    ppm = _PPM_MAXIMUM.match(head)
    if png or (ppm and int(ppm[1]) > 255):
        raise ImageError(f"{path} has 16 bits in several channels, which would be cut to 8: convert it to TIFF")


def _decode_tiff(path: Path, palette_indices: bool) -> Array:
    """Through Pillow where that keeps every bit (it knows more compressions), else through tifffile."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        if len(file.series) != 1:
            raise ImageError(f"{path} holds {len(file.series)} images; expected one")
        series, page = file.series[0], file.pages.first
        if series.size == page.size and (
            (page.samplesperpixel == 1 and page.dtype in (np.bool_, np.uint8, np.uint16))
            or (page.samplesperpixel == 3 and page.dtype == np.uint8 and page.photometric.name in ("RGB", "YCBCR"))
        ):
            return _decode_pillow(path, palette_indices)
        orientation = page.tags.valueof("Orientation", 1)
        if page.photometric.name not in ("MINISBLACK", "RGB") or orientation != 1:
            raise ImageError(
                f"{path}: expected an upright TIFF of kind MINISBLACK or RGB, "
                f"found {page.photometric.name} with orientation {orientation}"
            )
        array: Array = series.asarray(squeeze=False)
        axes = series.get_axes(squeeze=False)
    return _channels_last(array, axes, path)


def _channels_last(array: Array, axes: str, path: Path) -> Array:
    """Order tifffile's axes as (H, W, C): C is the one axis besides Y and X that is longer than 1."""
    if axes.count("Y") != 1 or axes.count("X") != 1:
        raise ImageError(f"{path}: expected one height and one width, found axes {axes} of shape {array.shape}")
    y, x = axes.index("Y"), axes.index("X")
    others = [axis for axis in range(array.ndim) if axis not in (y, x)]
    if sum(array.shape[axis] > 1 for axis in others) > 1:
        raise ImageError(f"{path}: expected one axis of channels, found axes {axes} of shape {array.shape}")
    image: Array = array.transpose(y, x, *others).reshape(array.shape[y], array.shape[x], -1)
    return image
