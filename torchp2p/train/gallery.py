"""Pictures of a training and of its results as static HTML pages, written off the hot path (spec 5.5, 9.2, 9.3).

No server and no script: a page is a text file over picture files, and a browser opens it from the disk.
Adding pictures writes those pictures and the text; no picture is ever read again.
"""

from __future__ import annotations

import html
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from math import ceil
from pathlib import Path
from typing import TypeAlias
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from torchp2p.data.images import write_image
from torchp2p.files import atomic_write
from torchp2p.train.writer import Writer

Picture: TypeAlias = npt.NDArray[np.uint8]
"""RGB of shape (H, W, 3)."""


_REFRESH_SECONDS = 30
_SEPARATOR = 2
_PAPER, _INK = "white", "black"
_STILL_CAPTIONS = {"real_A": "X", "real_B": "Y", "fake_B": "G(X)"}
# ASCII, because the font that comes with Pillow has no arrow.
_TRIPTYCH_CAPTIONS = {"real_A": "actual X", "real_B": "actual Y", "fake_B": "generated X->Y"}
_IMAGE_FILE = re.compile(r"epoch([0-9]{3,})_(.+)\.png")
_STILL_FILE = re.compile(r"epoch([0-9]{3,})()\.png")

_STYLE = """
:root { color-scheme: light dark; }
body { margin: 2rem; font: 15px/1.5 system-ui, sans-serif; color: #1c1e21; background: #ffffff; }
h1 { margin: 0; font-size: 1.5rem; }
h3 { margin: 2rem 0 .5rem; font-size: 1rem; overflow-wrap: anywhere; }
a { color: inherit; }
td { padding: 0 .5rem 0 0; vertical-align: top; }
figure { margin: 0; }
figcaption { font-size: .85rem; opacity: .75; }
td img { height: 256px; aspect-ratio: auto 1; }
img { display: block; max-width: 100%; object-fit: contain; }
@media (prefers-color-scheme: dark) { body { color: #e4e6eb; background: #18191a; } }
"""


class TrainingGallery:
    """The page ``<run>/web/index.html`` of a training: what the networks show, newest epoch first.

    What is on the page is what is on the disk: the file names hold the epoch and the label. While training
    lasts the page asks the browser to load it again every 30 seconds.

    Args:
        folder: ``<run>/web``; made if need be, with ``images`` and ``stills`` in it.
        title: of the page; the name of the run.
        writer: runs the work; every method raises what earlier work raised, OSError as a rule.
        last_epoch: the epoch a resumed training continues in: earlier pictures up to this one stay, later
            ones are deleted. None for a new training: all that an earlier one left are deleted.

    Raises:
        OSError: the folder cannot be made, or an old picture not deleted.
    """

    def __init__(self, folder: Path, title: str, writer: Writer, last_epoch: int | None = None) -> None:
        self._folder, self._title, self._writer = folder, title, writer
        self._images, self._stills = folder / "images", folder / "stills"
        self._labels: tuple[str, ...] = ()
        self._status = ""
        for pictures, pattern in ((self._images, _IMAGE_FILE), (self._stills, _STILL_FILE)):
            pictures.mkdir(parents=True, exist_ok=True)
            for epoch, files in _by_epoch(pictures, pattern).items():
                if last_epoch is None or epoch > last_epoch:
                    for path in files.values():
                        path.unlink()

    def add(self, epoch: int, step: int, images: Mapping[str, Picture]) -> None:
        """Show pictures of one epoch, in the order given; newer ones of an epoch replace older ones.

        Args:
            epoch: not negative; the files are ``images/epochNNN_<label>.png``.
            step: of the training; shown at the top of the page.
            images: label to picture, of any sizes. They must not be changed afterwards.

        Raises:
            ValueError, TypeError: no pictures, or an epoch, a label or a picture that is not as said above.
        """
        _check_pictures(images)
        for label, image in images.items():
            self._writer.submit(_write_picture, image, self._images / _epoch_file(epoch, f"_{label}"))
        self._labels = tuple(images)
        self._status = f"epoch {epoch}, step {step}"
        self._submit_index(training=True)

    def add_stills(self, epoch: int, rows: Sequence[Mapping[str, Picture]]) -> None:
        """Show the fixed samples after an epoch: one picture, ``stills/epochNNN.png``, with a row for each.

        Args:
            epoch: not negative.
            rows: for each sample its pictures, of any sizes, by the same labels in the same order: that of
                the columns. real_A, real_B and fake_B are captioned X, Y and G(X).

        Raises:
            ValueError, TypeError: no rows, rows of different labels, or as in ``add``.
        """
        if not rows:
            raise ValueError("rows must hold at least one sample, got none")
        for row in rows:
            _check_pictures(row)
            if list(row) != list(rows[0]):
                raise ValueError(f"rows must have the same labels, got {list(rows[0])} and {list(row)}")
        path = self._stills / _epoch_file(epoch)
        self._writer.submit(_write_sheet, [dict(row) for row in rows], _STILL_CAPTIONS, path)
        self._submit_index(training=True)

    def finish(self) -> None:
        """Training is over: a page that no longer reloads. Everything is on the disk when this returns."""
        self._submit_index(training=False)
        self._writer.wait()

    def stills(self) -> list[Path]:
        """The stills on the disk in the order of their epochs: the frames of the progress video."""
        return [files[""] for _, files in sorted(_by_epoch(self._stills, _STILL_FILE).items())]

    def _submit_index(self, training: bool) -> None:
        self._writer.submit(self._write_index, self._status, self._labels, training)

    def _write_index(self, status: str, labels: tuple[str, ...], training: bool) -> None:
        images, stills = _by_epoch(self._images, _IMAGE_FILE), _by_epoch(self._stills, _STILL_FILE)
        sections = []
        for epoch in sorted(images.keys() | stills.keys(), reverse=True):
            sections.append(f"<h3>epoch {epoch}</h3>")
            files = images.get(epoch, {})
            known = [label for label in labels if label in files]
            shown = known + sorted(files.keys() - known)
            if shown:
                sections.append(_row((f"images/{files[label].name}", label) for label in shown))
            if epoch in stills:
                sections.append(_figure(f"stills/{stills[epoch][''].name}", "fixed samples"))
        summary = ", ".join(filter(None, [status, "training" if training else ""]))
        _write_page(self._folder / "index.html", self._title, summary, sections, refresh=training)


class ResultGallery:
    """The page ``results/<name>/<phase>_<epoch>/index.html`` of translated images.

    Args:
        folder: of the results; made if need be.
        title: of the page.
        writer: runs the work; every method raises what earlier work raised, OSError as a rule.

    Raises:
        OSError: the folder cannot be made.
    """

    def __init__(self, folder: Path, title: str, writer: Writer) -> None:
        self._folder, self._title, self._writer = folder, title, writer
        self._samples: list[str] = []
        self._files: set[str] = set()
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, name: str, images: Mapping[str, Picture]) -> None:
        """Write the pictures of one sample, ``images/<name>_<label>.png``, to be shown in the order given.

        With real_A, real_B and fake_B among them also ``triptychs/<name>.png``: those three in a row under
        "actual X", "actual Y" and "generated X->Y" (spec S32).

        Args:
            name: of the sample; folders in it are kept.
            images: label to picture, of any sizes. They must not be changed afterwards.

        Raises:
            ValueError, TypeError: a name that leaves the folder or whose files are already there from another
                sample, no pictures, or one that is not uint8 (H, W, 3).
        """
        if "\0" in name or any(part in ("", ".", "..") for part in name.split("/")):
            raise ValueError(f"name must be a path below the gallery, got {name!r}")
        _check_pictures(images)
        files = {label: f"images/{name}_{label}.png" for label in images}
        if not self._files.isdisjoint(files.values()):
            raise ValueError(f"name {name!r} is used by two samples: one would overwrite the other")
        self._files.update(files.values())
        for label, image in images.items():
            self._writer.submit(_write_picture, image, self._folder / files[label])
        heading = html.escape(name)
        if images.keys() >= _TRIPTYCH_CAPTIONS.keys():
            triptych = f"triptychs/{name}.png"
            three = {label: images[label] for label in _TRIPTYCH_CAPTIONS}
            self._writer.submit(_write_sheet, [three], _TRIPTYCH_CAPTIONS, self._folder / triptych)
            heading = f'<a href="{_link(triptych)}">{heading}</a>'
        row = _row((file, label) for label, file in files.items())
        self._samples.append(f"<h3>{heading}</h3>\n{row}")

    def finish(self) -> None:
        """Write ``index.html``. Everything is on the disk when this returns."""
        summary = f"{len(self._samples)} sample{'' if len(self._samples) == 1 else 's'}"
        page = self._folder / "index.html"
        self._writer.submit(_write_page, page, self._title, summary, self._samples, refresh=False)
        self._writer.wait()


def _check_pictures(images: Mapping[str, Picture]) -> None:
    """Here, in the caller's thread, so that a mistake is reported where it was made."""
    if not images:
        raise ValueError("images must hold at least one picture, got none")
    for label, image in images.items():
        if not label or "/" in label or "\0" in label:
            raise ValueError(f"a label must be usable in a file name, got {label!r}")
        if image.dtype != np.uint8:
            raise TypeError(f"picture {label} must be of uint8, got {image.dtype}")
        if image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise ValueError(f"picture {label} must have shape (height, width, 3), got {image.shape}")


def _epoch_file(epoch: int, label: str = "") -> str:
    if epoch < 0:
        raise ValueError(f"epoch must not be negative, got {epoch}")
    return f"epoch{epoch:03d}{label}.png"


def _by_epoch(folder: Path, pattern: re.Pattern[str]) -> dict[int, dict[str, Path]]:
    """The files of a folder by the epoch and the label in their names; the label of a still is empty."""
    found: defaultdict[int, dict[str, Path]] = defaultdict(dict)
    for path in folder.iterdir():
        if match := pattern.fullmatch(path.name):
            found[int(match[1])][match[2]] = path
    return found


def _write_picture(pixels: Picture, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(pixels, path)


def _write_sheet(rows: Sequence[Mapping[str, Picture]], captions: Mapping[str, str], path: Path) -> None:
    """Rows of pictures under one line of captions; a picture smaller than its cell stands in the middle."""
    titles = [captions.get(label, label) for label in rows[0]]
    sizes = np.array([[picture.shape[:2] for picture in row.values()] for row in rows])
    heights, widths = sizes[..., 0].max(1).tolist(), sizes[..., 1].max(0).tolist()
    font_size = max(14, max(widths) // 32)
    font = ImageFont.load_default(font_size)
    widths = [max(width, ceil(font.getlength(title))) for width, title in zip(widths, titles, strict=True)]
    tops = list(accumulate((height + _SEPARATOR for height in heights), initial=font_size * 3 // 2))
    lefts = list(accumulate((width + _SEPARATOR for width in widths), initial=0))
    sheet = Image.new("RGB", (lefts[-1] - _SEPARATOR, tops[-1] - _SEPARATOR), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for title, left, width in zip(titles, lefts, widths, strict=False):
        draw.text((left + width / 2, font_size * 3 / 4), title, fill=_INK, font=font, anchor="mm")
    for row, top, height in zip(rows, tops, heights, strict=False):
        for picture, left, width in zip(row.values(), lefts, widths, strict=False):
            corner = (left + (width - picture.shape[1]) // 2, top + (height - picture.shape[0]) // 2)
            sheet.paste(Image.fromarray(picture), corner)
    _write_picture(np.asarray(sheet), path)


def _write_page(path: Path, title: str, summary: str, sections: Sequence[str], refresh: bool) -> None:
    reload = f'<meta http-equiv="refresh" content="{_REFRESH_SECONDS}">\n' if refresh else ""
    content = "\n".join(sections)
    page = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
{reload}<title>{html.escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{html.escape(title)}</h1>
<p>{html.escape(summary)}</p>
{content}
</body>
</html>
"""
    atomic_write(path, lambda file: file.write(page.encode("utf-8", "replace")))


def _row(cells: Iterable[tuple[str, str]]) -> str:
    """A table of one row: a picture, given as file and caption, in each cell."""
    return "<table><tr>" + "".join(f"<td>{_figure(*cell)}</td>" for cell in cells) + "</tr></table>"


def _figure(file: str, caption: str) -> str:
    link, text = _link(file), html.escape(caption)
    image = f'<img src="{link}" alt="{text}" loading="lazy">'
    return f'<figure><a href="{link}">{image}</a><figcaption>{text}</figcaption></figure>'


def _link(file: str) -> str:
    return html.escape(quote(os.fsencode(file)))  # bytes, for names on the disk that are not UTF-8
