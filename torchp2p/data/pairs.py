"""Finding image files and pairing them by name. A file without a partner is an error (spec 12, B9)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from torchp2p.data.images import IMAGE_EXTENSIONS, PathLike

_SHOWN = 10


class Pair(NamedTuple):
    """Two files of one sample and the name they share: their path in the folder, without extension."""

    name: str
    a: Path
    b: Path


def find_images(folder: PathLike) -> list[Path]:
    """All image files under ``folder``, sorted by path; subfolders and symbolic links are followed.

    Names that start with a dot (hidden files and folders, half-written files) are not data.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it holds no image; the message lists the extensions looked for.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {root}")
    files = [path for path in _walk(root) if path.suffix.lower() in IMAGE_EXTENSIONS]
    if not files:
        raise ValueError(f"{root} holds no image; looked for {' '.join(IMAGE_EXTENSIONS)} in it and below")
    return sorted(files, key=lambda path: path.relative_to(root).as_posix())


def image_name(path: Path, folder: PathLike) -> str:
    """The name a file goes by: its path below ``folder``, with forward slashes, without extension."""
    return path.relative_to(folder).with_suffix("").as_posix()


def pair_by_name(a_dir: PathLike, b_dir: PathLike, *, a_suffix: str = "", b_suffix: str = "") -> list[Pair]:
    """Pair the images of two folders by their path below the folder, without extension, sorted.

    With suffixes, only names that end with them count, and the suffix is not part of the name: ``_A`` and
    ``_B``, or ``_gtFine_labelIds`` and ``_leftImg8bit``; the two folders may then be the same one.

    Raises:
        FileNotFoundError: a folder is missing.
        ValueError: a folder holds no such image, two files of a folder have one name, or files have no
            partner (the first ten of each side are listed, with counts).
    """
    a, b = files_with_suffix(Path(a_dir), a_suffix), files_with_suffix(Path(b_dir), b_suffix)
    only_a, only_b = sorted(a.keys() - b.keys()), sorted(b.keys() - a.keys())
    if only_a or only_b:
        sides = [(a_dir, only_a), (b_dir, only_b)]
        raise ValueError("; ".join(unpaired(folder, names) for folder, names in sides if names))
    return [Pair(name, a[name], b[name]) for name in sorted(a)]


def files_by_name(folder: Path, name_of: Callable[[str], str | None]) -> dict[str, Path]:
    """The images under a folder by what ``name_of`` makes of their `image_name`; None leaves one out.

    Raises:
        FileNotFoundError, ValueError: as `find_images`; or two files have one name.
    """
    files: dict[str, Path] = {}
    for path in find_images(folder):
        name = name_of(image_name(path, folder))
        if name is None:
            continue
        if name in files:
            raise ValueError(f"{files[name]} and {path} have the same name; one file per name is expected")
        files[name] = path
    return files


def files_with_suffix(folder: Path, suffix: str) -> dict[str, Path]:
    """The images under a folder whose name ends with ``suffix``, by their name without it.

    Raises:
        FileNotFoundError, ValueError: as `files_by_name`; or there is none.
    """
    files = files_by_name(folder, lambda name: name.removesuffix(suffix) if name.endswith(suffix) else None)
    if not files:
        raise ValueError(f"{folder} holds no image whose name ends with {suffix}")
    return files


def unpaired(folder: PathLike, names: Sequence[str]) -> str:
    """The sentence about images of a folder that have no partner: how many, and the first ten."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{folder}: no partner for {len(names)} of its images: {', '.join(names[:_SHOWN])}{more}"


def _walk(root: Path) -> list[Path]:
    """Every visible file below ``root``; each real folder once, so that a link upwards cannot loop."""
    files: list[Path] = []
    seen: set[str] = set()
    for folder, subfolders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        files += [Path(folder, name) for name in names if not name.startswith(".")]
    return files
