"""Making side-by-side A|B files, the layout of the aligned dataset, from two folders (spec 6.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from torchp2p.data.colour import colourise_labels
from torchp2p.data.images import (
    Array,
    ImageError,
    PathLike,
    fit_channels,
    full_scale,
    read_ids,
    read_image,
    write_image,
)
from torchp2p.data.pairs import Pair, pair_by_name
from torchp2p.data.transforms import Size, resize, resize_ids


def combine_folders(
    a_dir: PathLike,
    b_dir: PathLike,
    out_dir: PathLike,
    size: Size | None = None,
    *,
    a_suffix: str = "",
    b_suffix: str = "",
    extension: str = ".png",
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write one file A|B (A on the left) for each pair of images with the same name.

    Args:
        a_dir, b_dir: the images; they are paired by `pair_by_name`.
        out_dir: made if missing; subfolders are kept.
        size: (height, width) to resize A and B to, bicubic; without it, each pair must already have one size.
        a_suffix, b_suffix: see `pair_by_name`.
        extension: .png, .tif, or .jpg (quality 100, no chroma subsampling).
        overwrite: replace files that exist.
        progress: called with (done, total) after each pair.

    Returns:
        The files written. Each is written atomically, so an interrupted run leaves only whole ones.

    Raises:
        FileExistsError: a file to be written exists and ``overwrite`` is False; nothing is written then.
        FileNotFoundError, ValueError: the folders cannot be paired, or ``out_dir`` is one of them.
        ImageError: an image is damaged, or the two of a pair differ in size or depth.
    """
    pairs = pair_by_name(a_dir, b_dir, a_suffix=a_suffix, b_suffix=b_suffix)

    def join(pair: Pair) -> Array:
        a, b = read_image(pair.a), read_image(pair.b)
        if size is not None:
            a, b = _resize_keeping_depth(a, size), _resize_keeping_depth(b, size)
        return _side_by_side(a, b, pair)

    return _write_all(pairs, out_dir, join, (a_dir, b_dir), extension, overwrite, progress)


def combine_cityscapes(
    label_dir: PathLike,
    image_dir: PathLike,
    out_dir: PathLike,
    size: Size = (256, 256),
    *,
    unknown: int | None = None,
    extension: str = ".png",
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write ``colour label | photo`` files from Cityscapes folders, so that direction AtoB is label to photo.

    (The original's script puts the photo on the left and trains with BtoA.) ``*_gtFine_labelIds.png`` is
    paired with ``*_leftImg8bit.png`` by city, sequence and frame; labels are resized nearest, then coloured,
    photos bicubic.

    Args:
        label_dir, image_dir: such as ``gtFine/train`` and ``leftImg8bit/train``, city folders in it or not.
        size: (height, width) of each half.
        unknown: the label id to show ids outside 0..34 as; without it they are an error.
        out_dir, extension, overwrite, progress: as in `combine_folders`.

    Raises:
        What `combine_folders` raises; ImageError for a label outside the palette.
    """
    pairs = pair_by_name(label_dir, image_dir, a_suffix="_gtFine_labelIds", b_suffix="_leftImg8bit")

    def join(pair: Pair) -> Array:
        labels, photo = read_ids(pair.a), fit_channels(read_image(pair.b), 3, pair.b)
        _same_size(labels, photo, pair)
        try:
            coloured = colourise_labels(resize_ids(labels, size), unknown=unknown)
        except ValueError as error:
            raise ImageError(f"{pair.a}: {error}") from error
        return _side_by_side(coloured, resize(photo, size), pair)

    return _write_all(pairs, out_dir, join, (label_dir, image_dir), extension, overwrite, progress)


def _write_all(
    pairs: Sequence[Pair],
    out_dir: PathLike,
    join: Callable[[Pair], Array],
    inputs: tuple[PathLike, PathLike],
    extension: str,
    overwrite: bool,
    progress: Callable[[int, int], None] | None,
) -> list[Path]:
    """Join and write the pairs one at a time; what would be overwritten is looked for before the first."""
    out = Path(out_dir)
    if any(out.resolve() == Path(folder).resolve() for folder in inputs):
        raise ValueError(f"out_dir must not be a folder that is read, got {out}")
    targets = [out / f"{pair.name}{extension}" for pair in pairs]
    existing = [target for target in targets if target.exists()]
    if existing and not overwrite:
        raise FileExistsError(
            f"{len(existing)} of {len(targets)} files exist already, {existing[0]} first; "
            "pass overwrite to replace them"
        )
    for done, (pair, target) in enumerate(zip(pairs, targets, strict=True), start=1):
        target.parent.mkdir(parents=True, exist_ok=True)
        write_image(join(pair), target)
        if progress is not None:
            progress(done, len(pairs))
    return targets


def _resize_keeping_depth(image: Array, size: Size) -> Array:
    resized = resize(image, size)
    if resized.dtype == image.dtype:
        return resized
    pixels: Array = np.rint(resized * full_scale(image.dtype)).astype(image.dtype)
    return pixels


def _side_by_side(a: Array, b: Array, pair: Pair) -> Array:
    _same_size(a, b, pair)
    if a.dtype != b.dtype:
        raise ImageError(f"{pair.a} and {pair.b} must have one depth, found {a.dtype} and {b.dtype}")
    channels = max(a.shape[2], b.shape[2])
    return np.concatenate([fit_channels(a, channels, pair.a), fit_channels(b, channels, pair.b)], axis=1)


def _same_size(a: Array, b: Array, pair: Pair) -> None:
    if a.shape[:2] != b.shape[:2]:
        raise ImageError(
            f"{pair.a} and {pair.b} must have one size, found {a.shape[:2]} and {b.shape[:2]} (height, width)"
        )
