"""Writing files so that a reader sees the old content or the new, never a half of either."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; when the block ends well, it becomes ``path``.

    The temporary file has the suffix of ``path`` (writers pick a format by it) and a name that starts with a
    dot (searches for images leave it alone). It is flushed to the disk before it takes the place of ``path``,
    and removed when anything goes wrong, so the previous file survives. A symbolic link is written through.

    Raises:
        OSError: naming ``path``, when the file could not be written, flushed or moved into place.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.stem}.{secrets.token_hex(4)}{target.suffix}")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        raise _naming(error, Path(path), temporary) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def require_folder_of(path: str | os.PathLike[str]) -> None:
    """Raise what writing ``path`` would raise for want of a folder, before there is anything to write.

    Raises:
        OSError: naming ``path``, where it cannot be because its folder is not there, or is none.
    """
    folder = Path(os.path.realpath(path)).parent
    if not folder.is_dir():
        number = errno.ENOTDIR if folder.exists() else errno.ENOENT
        raise OSError(number, os.strerror(number), os.fspath(path))


def atomic_write(path: str | os.PathLike[str], write: Callable[[BinaryIO], object]) -> None:
    """Write ``path`` through ``write``, which gets a binary file to write to; errors as in `atomic_path`."""
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        write(file)


def _naming(error: OSError, path: Path, temporary: Path) -> OSError:
    """The same error, of the same class, about the file the caller knows instead of the temporary one."""
    if error.filename is not None and os.fspath(error.filename) != os.fspath(temporary):
        return error
    if error.errno is None:  # Pillow raises such
        return OSError(f"{path} could not be written: {error}")
    return OSError(error.errno, error.strerror or "could not be written", os.fspath(path))
