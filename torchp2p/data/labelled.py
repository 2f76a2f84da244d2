"""The datasets of pix2pixHD (spec 6.2, 6.3): label and instance maps, images and features, integers end to end."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypedDict, cast

import numpy as np
import torch

from torchp2p.data import demo
from torchp2p.data.cache import PlaneCache
from torchp2p.data.colour import colourise_labels, label_palette
from torchp2p.data.epochs import DatasetOptions, EpochDataset, check_least
from torchp2p.data.images import Array, ImageError, PathLike, fit_channels, read_ids, read_image
from torchp2p.data.labelled_files import LabelledFiles, find_labelled_files
from torchp2p.data.transforms import PREPROCESS_MODES, LabelledPreprocess, Size, resize, resize_ids

IGNORED_LABEL = 255
"""The label that ``unknown_label ignore`` gives to unknown ids: no class, a column of zeros in the one-hot input."""

UNKNOWN_LABELS = ("error", "last", "ignore")
"""What may become of a label id that is not one of 0 to ``label_nc`` - 1."""

Planes = dict[str, Array]
"""The parts of one sample as (H, W, C) arrays: ``label``, ``inst``, ``image``, ``feat``."""


class _LabelSample(TypedDict):
    label: torch.Tensor
    name: str


class LabelledSample(_LabelSample, total=False):
    """One sample; what the options or the data do not have is absent. `to_step_batch` makes floats of a batch.

    ``label`` uint8 (1, H, W) of ids, or (3, H, W) RGB for ``label_nc`` 0; ``inst`` int32 (1, H, W);
    ``image`` uint8 (3, H, W) RGB; ``feat`` uint8 (3, H, W); ``name`` as in `EpochDataset.name`.
    """

    inst: torch.Tensor
    image: torch.Tensor
    feat: torch.Tensor


class LabelledOptions(DatasetOptions, Protocol):
    """What a labelled dataset is built from; any object with these attributes. Names are those of pix2pixHD.

    ``dataset_mode`` is a key of `LABELLED_DATASETS`.
    """

    @property
    def label_nc(self) -> int:
        """Label classes, up to 256; 0 for RGB (or grey, or edge) images as input."""

    @property
    def no_instance(self) -> bool:
        """There are no instance maps."""

    @property
    def load_features(self) -> bool:
        """Read precomputed features."""

    @property
    def resize_or_crop(self) -> str:
        """One of `transforms.PREPROCESS_MODES`."""

    @property
    def size_multiple(self) -> int:
        """With ``resize_or_crop none``, height and width become the nearest multiple of this (16 or 32)."""

    @property
    def unknown_label(self) -> str:
        """One of `UNKNOWN_LABELS`: raise, take the last class, or `IGNORED_LABEL` (spec 12, B8)."""

    @property
    def cache_bytes(self) -> int:
        """Bytes of decoded and resized samples to keep in memory; 0 for none."""


class LabelledDataset(EpochDataset[LabelledSample]):
    """Base of the labelled datasets; a subclass knows where the planes come from.

    All parts of a sample get the same resize, crop and flip: nearest for ids and features, bicubic for images.
    Nothing is padded: images whose size is no multiple of what a network halves are padded, and the result
    cropped back, where they meet the network (`torchp2p.models.run_padded`).

    Args:
        options: see `LabelledOptions`.
        names: of all samples, in order; the first ``max_dataset_size`` are used.

    Raises:
        ValueError: an option is out of range.
    """

    def __init__(self, options: LabelledOptions, names: list[str]) -> None:
        _check(options)
        preprocess = LabelledPreprocess(
            options.resize_or_crop, options.load_size, options.crop_size, options.phase == "train",
            not options.no_flip, options.size_multiple,
        )  # fmt: skip
        super().__init__(options, names, preprocess)
        self.options = options
        self.cache = PlaneCache(options.cache_bytes)

    @abstractmethod
    def _load(self, index: int) -> Mapping[str, tuple[Array, PathLike]]:
        """The parts of one sample as stored, (H, W, C), each with the file to blame."""

    @property
    def ignored_label(self) -> int | None:
        """The label in samples that is no class, where there may be one."""
        return IGNORED_LABEL if self.options.unknown_label == "ignore" else None

    @property
    def read_options(self) -> list[str | int]:
        """What label ids are allowed."""
        return [self.options.label_nc, self.options.unknown_label]

    def read(self, index: int) -> Planes:
        """Decode one sample to planes of the size they are stored in; label ids are checked.

        Raises:
            ImageError: a file is damaged or of the wrong kind, the parts differ in size, or a label id is none of
                ``label_nc`` (the message names the id and the pixel).
            OSError: a file cannot be opened.
        """
        loaded = self._load(index)
        label, blame = loaded["label"]
        size = label.shape[:2]
        for part, (plane, path) in loaded.items():
            allowed = [size, self._preprocess.resized(size)] if part == "feat" else [size]
            if plane.shape[:2] not in allowed:
                raise ImageError(
                    f"{path}: {part} must have the size of the label {blame}, "
                    f"{_shown(size)} (height x width), found {_shown(plane.shape[:2])}"
                )
        planes = {part: plane for part, (plane, _) in loaded.items()}
        if self.options.label_nc:
            planes["label"] = _known(label, self.options.label_nc, self.options.unknown_label, blame)
        return planes

    def sizes(self, index: int) -> tuple[Size, Size]:
        """(height, width) of a whole sample, as it is stored and as it is resized.

        Raises:
            What `read` raises.
        """
        height, width = self.read(index)["label"].shape[:2]
        return (height, width), self._preprocess.resized((height, width))

    def preload(self, threads: int = 2) -> int:
        """Fill the cache before the workers of a loader start; returns how many samples it holds.

        Raises:
            What `read` raises.
        """

        def hold(index: int) -> None:
            if not self.cache.full:
                self._resized(index)

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(hold, range(len(self))))
        return len(self.cache)

    def sample(self, index: int, epoch: int) -> LabelledSample:
        """One sample as a network gets it in ``epoch``: a function of the seed, the epoch and the index.

        Raises:
            IndexError: there is no such sample; or what `read` raises.
        """
        index = range(len(self))[index]
        planes = self._resized(index)
        geometry = self._preprocess.plan(planes["label"].shape[:2], self._generator(index, epoch))
        tensors = {part: _to_tensor(geometry.window(plane), part) for part, plane in planes.items()}
        return cast(LabelledSample, {**tensors, "name": self.name(index)})

    def pictures(self, sample: LabelledSample) -> list[Array]:
        """The label, in colours, and the image where there is one; a label that is no class is black."""
        label = sample["label"].permute(1, 2, 0).numpy()
        if self.options.label_nc:
            classes = label_palette(self.options.label_nc)
            palette = np.pad(classes, ((0, 256 - len(classes)), (0, 0)))
            label = palette[label[..., 0]]
        return [label] + ([sample["image"].permute(1, 2, 0).numpy()] if "image" in sample else [])

    def _resized(self, index: int) -> Planes:
        """The planes brought to size, from the cache if they are there; ids of instances in 16 bits if they fit."""
        planes = self.cache.get(index)
        if planes is None:
            stored = self.read(index)
            size = self._preprocess.resized(stored["label"].shape[:2])
            planes = {part: self._resize(plane, part, size) for part, plane in stored.items()}
            self.cache.add(index, planes)
        return planes

    def _resize(self, plane: Array, part: str, size: Size) -> Array:
        if part == "image" or (part == "label" and not self.options.label_nc):
            return resize(plane, size)
        if part == "feat":
            return resize_ids(plane, size)
        ids = resize_ids(plane[..., 0], size)[..., None]
        if part == "inst" and ids.min() >= 0 and ids.max() <= np.iinfo(np.uint16).max:
            return ids.astype(np.uint16)
        return ids


class LabelledFilesDataset(LabelledDataset):
    """Files matched by name, in the folders of pix2pixHD or of Cityscapes; see `find_labelled_files`.

    Args:
        options: see `LabelledOptions`.
        found: the files, where they are not in such folders.

    Raises:
        FileNotFoundError, ValueError: as `find_labelled_files`; or an option is out of range.
    """

    def __init__(self, options: LabelledOptions, found: list[LabelledFiles] | None = None) -> None:
        self._found = found or find_labelled_files(
            Path(options.dataroot),
            options.phase,
            rgb=options.label_nc == 0,
            instances=not options.no_instance,
            features=options.load_features,
        )
        super().__init__(options, [found.name for found in self._found])

    def files(self, index: int) -> tuple[Path, ...]:
        """The files that are there of label, inst, feat and image."""
        return tuple(self._found[index].paths.values())

    def decoders(self, index: int) -> tuple[Callable[[PathLike], Array], ...]:
        """For each of `files`, what makes a plane of it."""
        return tuple(self._decoder(part) for part in self._found[index].paths)

    def feature_file(self, index: int) -> Path:
        """Where the precomputed features of a sample belong: ``<phase>_feat``, under the name of the label."""
        return self._found[index].feature

    def _load(self, index: int) -> Mapping[str, tuple[Array, PathLike]]:
        return {part: (self._decoder(part)(path), path) for part, path in self._found[index].paths.items()}

    def _decoder(self, part: str) -> Callable[[PathLike], Array]:
        ids = part == "inst" or (part == "label" and self.options.label_nc > 0)
        return _read_id_plane if ids else _read_rgb


class LabelledDemoDataset(LabelledDataset):
    """Street scenes drawn by the package, the same as in the demo of pix2pix. Needs no file.

    A scene is ``load_size`` wide and half as high; with ``resize_and_crop``, a square.

    Raises:
        ValueError: the phase is not train, val or test, features are asked for, or an option is out of range.
    """

    def __init__(self, options: LabelledOptions) -> None:
        if options.load_features:
            raise ValueError("the demo has no precomputed features: load_features must be false")
        names, self._seeds = demo.scenes_of(options.phase, options.max_dataset_size)
        super().__init__(options, names)

    def files(self, index: int) -> tuple[Path, ...]:
        """None."""
        return ()

    def decoders(self, index: int) -> tuple[Callable[[PathLike], Array], ...]:
        """None."""
        return ()

    def _load(self, index: int) -> Mapping[str, tuple[Array, PathLike]]:
        width = self.options.load_size
        height = width if self.options.resize_or_crop == "resize_and_crop" else width // 2
        scene = demo.draw_scene((height, width), self._seeds[index])
        label = scene.label[..., None] if self.options.label_nc else colourise_labels(scene.label)
        planes: Planes = {"label": label, "inst": scene.inst[..., None], "image": scene.image}
        if self.options.no_instance:
            del planes["inst"]
        return {part: (plane, self.name(index)) for part, plane in planes.items()}


LABELLED_DATASETS: dict[str, Callable[[LabelledOptions], LabelledDataset]] = {
    "labelled": LabelledFilesDataset,
    "demo": LabelledDemoDataset,
}
"""From ``dataset_mode`` to the class."""


def build_labelled_dataset(options: LabelledOptions) -> LabelledDataset:
    """The labelled dataset that the options describe.

    Raises:
        FileNotFoundError: a folder is missing.
        ValueError: an option is out of range, or the files cannot be matched; see the class of the mode.
    """
    if options.dataset_mode not in LABELLED_DATASETS:
        modes = ", ".join(LABELLED_DATASETS)
        raise ValueError(f"dataset_mode of a labelled dataset must be one of {modes}, got {options.dataset_mode!r}")
    return LABELLED_DATASETS[options.dataset_mode](options)


def to_step_batch(batch: Mapping[str, object], device: torch.device | str) -> dict[str, torch.Tensor]:
    """Move a `LabelledBatch` to the device as the small integers it is made of, and expand it there.

    Returns:
        The batch of a training step: ``label`` uint8 (N, 1, H, W), or float32 (N, 3, H, W) in [-1, 1] if it is
        RGB; ``inst`` int32 (N, 1, H, W); ``image`` and ``feat`` float32 (N, 3, H, W) in [-1, 1]. Absent parts
        stay absent, and so does the name.
    """
    moved = {
        part: value.to(device, non_blocking=True) for part, value in batch.items() if isinstance(value, torch.Tensor)
    }
    colours = [part for part, value in moved.items() if part != "inst" and value.shape[1] == 3]
    return {**moved, **{part: moved[part].float().div_(255).sub_(0.5).div_(0.5) for part in colours}}


def _check(options: LabelledOptions) -> None:
    for name, choices in (("resize_or_crop", PREPROCESS_MODES), ("unknown_label", UNKNOWN_LABELS)):
        if getattr(options, name) not in choices:
            raise ValueError(f"{name} must be one of {', '.join(choices)}, got {getattr(options, name)!r}")
    check_least(options, {"label_nc": 0, "size_multiple": 1, "cache_bytes": 0})
    most = IGNORED_LABEL if options.unknown_label == "ignore" else 256
    if options.label_nc > most:
        raise ValueError(
            f"label_nc must be at most {most} with unknown_label {options.unknown_label}, got {options.label_nc}"
        )


def _known(label: Array, count: int, unknown: str, path: PathLike) -> Array:
    """The label plane as uint8, with unknown ids replaced, or refused at the first."""
    if label.min() < 0 or label.max() >= count:
        outside = (label < 0) | (label >= count)
        if unknown == "error":
            row, column, _ = np.argwhere(outside)[0]
            raise ImageError(
                f"{path}: label {label[row, column, 0]} at row {row}, column {column} is not one of 0 to {count - 1}; "
                "unknown_label last or ignore accepts it"
            )
        label = np.where(outside, count - 1 if unknown == "last" else IGNORED_LABEL, label)
    return label.astype(np.uint8)


def _read_id_plane(path: PathLike) -> Array:
    return read_ids(path)[..., None]


def _read_rgb(path: PathLike) -> Array:
    image = fit_channels(read_image(path), 3, path)
    if image.dtype != np.uint8:
        raise ImageError(f"{path}: expected 8 bits per channel, found {image.dtype}")
    return image


def _to_tensor(plane: Array, part: str) -> torch.Tensor:
    """(H, W, C) to (C, H, W), always a copy: the plane may belong to the cache."""
    dtype = np.int32 if part == "inst" else np.uint8
    return torch.from_numpy(plane.transpose(2, 0, 1).astype(dtype, order="C", copy=True))


def _shown(size: tuple[int, ...]) -> str:
    return "x".join(map(str, size))
