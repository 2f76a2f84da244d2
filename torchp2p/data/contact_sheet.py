"""One picture of many samples, to look at before hours of training."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from torchp2p.data.epochs import EpochDataset
from torchp2p.data.images import Array, PathLike, write_image

_THUMBNAIL = 128
_GAP = 8
_CAPTION = 16


def contact_sheet(dataset: EpochDataset[Any], path: PathLike, count: int = 24, columns: int = 3) -> None:
    """Write a PNG with thumbnails of ``count`` samples spread over the dataset, ``columns`` of them in a row.

    Each is A beside B, or label beside image, under its name, as the network sees them in epoch 0: after
    direction, crop and flip.

    Raises:
        ValueError: ``count`` or ``columns`` is below 1.
        ImageError, OSError: a sample cannot be read, or the sheet not written.
    """
    if count < 1 or columns < 1:
        raise ValueError(f"count and columns must be at least 1, got {count} and {columns}")
    indices = np.unique(np.linspace(0, len(dataset) - 1, count).round().astype(int)).tolist()
    cells = [(dataset.name(index), dataset.pictures(dataset.sample(index, epoch=0))) for index in indices]
    columns = min(columns, len(cells))
    cell_width = _THUMBNAIL * len(cells[0][1]) + _GAP
    cell_height = _CAPTION + _THUMBNAIL + _GAP
    rows = math.ceil(len(cells) / columns)
    sheet = Image.new("RGB", (columns * cell_width + _GAP, rows * cell_height + _GAP), "white")
    for position, (name, pictures) in enumerate(cells):
        row, column = divmod(position, columns)
        _draw_cell(sheet, _GAP + column * cell_width, _GAP + row * cell_height, name, pictures)
    write_image(np.asarray(sheet), path)


def _draw_cell(sheet: Image.Image, left: int, top: int, name: str, pictures: list[Array]) -> None:
    draw = ImageDraw.Draw(sheet)
    draw.text((left, top), _shortened(name, draw, _THUMBNAIL * len(pictures)), fill="black")
    for number, picture in enumerate(pictures):
        thumbnail = Image.fromarray(picture)
        thumbnail.thumbnail((_THUMBNAIL, _THUMBNAIL))
        sheet.paste(thumbnail, (left + number * _THUMBNAIL, top + _CAPTION))


def _shortened(name: str, draw: ImageDraw.ImageDraw, width: int) -> str:
    """The end of a name, which is what tells samples apart, as far as it fits."""
    if draw.textlength(name) <= width:
        return name
    while name and draw.textlength("..." + name) > width:
        name = name[1:]
    return "..." + name
