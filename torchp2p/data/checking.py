"""Decoding every file of a dataset before training, so that a damaged one is found first and not at night."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from torchp2p.data.epochs import EpochDataset
from torchp2p.data.images import Array, PathLike, read_image
from torchp2p.files import atomic_write

_SHOWN = 20


class Problem(NamedTuple):
    """A file, or the name of a sample whose files do not fit together, and a sentence: what is wrong."""

    path: str
    reason: str


class DatasetError(ValueError):
    """A dataset has files that cannot be used; ``problems`` holds all of them."""

    def __init__(self, problems: Sequence[Problem], total: int) -> None:
        lines = [
            f"problems found: {len(problems)} in {total} samples",
            *(f"  {each.reason}" for each in problems[:_SHOWN]),
        ]
        if len(problems) > _SHOWN:
            lines.append(f"  and {len(problems) - _SHOWN} more")
        super().__init__("\n".join(lines))
        self.problems = tuple(problems)


def check_files(
    files: EpochDataset[Any] | Sequence[PathLike],
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> list[Problem]:
    """Decode all files in full and report the unusable ones, in order.

    Of a dataset, what its `read` demands is checked as well: channels, sizes that agree, label ids; a list of
    paths is decoded alone.

    Args:
        files: a dataset or paths.
        workers: threads; decoders work outside Python's lock.
        progress: called with (done, total) after each sample.
    """
    if isinstance(files, EpochDataset):
        tasks = [partial(_check_sample, files, index) for index in range(len(files))]
    else:
        tasks = [partial(_check_file, path, read_image) for path in files]
    problems: list[Problem] = []
    with ThreadPoolExecutor(workers) as pool:
        for done, found in enumerate(pool.map(lambda task: task(), tasks), start=1):
            problems += found
            if progress is not None:
                progress(done, len(tasks))
    return problems


def check_dataset(
    dataset: EpochDataset[Any],
    stamp: Path | None = None,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Check a dataset with `check_files`, and raise if anything is wrong with it.

    Args:
        dataset: what to check.
        stamp: a JSON file that remembers the files (path, size, modification time) of the last successful
            check: if they are the same now, nothing is decoded. Written after a success; a damaged one counts
            as none.
        workers, progress: as in `check_files`.

    Raises:
        DatasetError: listing the files, up to 20, then a count.
        OSError: a file has vanished, or the stamp cannot be written.
    """
    now = _fingerprint(dataset) if stamp is not None else None
    if stamp is not None and now == _stamped(stamp):
        return
    problems = check_files(dataset, workers, progress)
    if problems:
        raise DatasetError(problems, len(dataset))
    if stamp is not None:
        atomic_write(stamp, lambda file: file.write(json.dumps(now).encode()))


def _check_sample(dataset: EpochDataset[Any], index: int) -> list[Problem]:
    files = dataset.files(index)
    if not files:
        return []
    try:
        dataset.read(index)
    except (ValueError, OSError) as error:
        # One bad file hides its partners: look at each alone, and blame the sample only if each is sound.
        return _check_each(dataset, index) or [Problem(dataset.name(index), str(error))]
    return []


def _check_each(dataset: EpochDataset[Any], index: int) -> list[Problem]:
    files = zip(dataset.files(index), dataset.decoders(index), strict=True)
    return [problem for path, decode in files for problem in _check_file(path, decode)]


def _check_file(path: PathLike, decode: Callable[[PathLike], Array]) -> list[Problem]:
    try:
        decode(path)
    except (ValueError, OSError) as error:
        return [Problem(str(path), str(error))]
    return []


def _fingerprint(dataset: EpochDataset[Any]) -> dict[str, Any]:
    """What the outcome of a check depends on, in JSON's own types."""
    files = [path for index in range(len(dataset)) for path in dataset.files(index)]
    states = [(str(path.resolve()), path.stat()) for path in files]
    return {
        "dataset": [type(dataset).__name__, *dataset.read_options],
        "files": [[name, state.st_size, state.st_mtime_ns] for name, state in states],
    }


def _stamped(stamp: Path) -> Any:
    try:
        return json.loads(stamp.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
