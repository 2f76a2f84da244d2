"""The datasets of pix2pix (spec 6.1, 6.5); augmentation is a function of (seed, epoch, index) alone."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypedDict

import torch

from torchp2p.data import demo
from torchp2p.data.colour import colourise_labels, lab_tensor_to_rgb, rgb_to_lab_tensors
from torchp2p.data.epochs import DatasetOptions, EpochDataset, check_least
from torchp2p.data.images import Array, ImageError, PathLike, fit_channels, read_image, to_rgb, to_tensor
from torchp2p.data.pairs import find_images, image_name, pair_by_name
from torchp2p.data.transforms import Preprocess


class _SampleA(TypedDict):
    A: torch.Tensor
    path: str


class Sample(_SampleA, total=False):
    """One sample: ``A`` and, for paired data, ``B``, float32 (C, H, W) in [-1, 1]; ``path`` is its name."""

    B: torch.Tensor


class DataOptions(DatasetOptions, Protocol):
    """What a dataset of pix2pix is built from; any object with these attributes. Names are those of the original.

    ``dataset_mode`` is a key of `DATASETS`.
    """

    @property
    def direction(self) -> str:
        """AtoB, or BtoA to exchange A and B."""

    @property
    def input_nc(self) -> int:
        """Channels of A after ``direction``: what the network takes."""

    @property
    def output_nc(self) -> int:
        """Channels of B after ``direction``: what the network makes."""

    @property
    def preprocess(self) -> str:
        """One of `transforms.PREPROCESS_MODES`."""


class PairedDataset(EpochDataset[Sample]):
    """Base of the datasets of A and B; a subclass knows where the images come from.

    Args:
        options: see `DataOptions`.
        names: of all samples, in order; the first ``max_dataset_size`` are used.

    Raises:
        ValueError: an option is out of range.
    """

    def __init__(self, options: DataOptions, names: list[str]) -> None:
        if options.direction not in ("AtoB", "BtoA"):
            raise ValueError(f"direction must be AtoB or BtoA, got {options.direction!r}")
        check_least(options, {"input_nc": 1, "output_nc": 1})
        training, flip = options.phase == "train", not options.no_flip
        preprocess = Preprocess(options.preprocess, options.load_size, options.crop_size, training, flip)
        super().__init__(options, names, preprocess)
        self.options = options
        self._channels: tuple[int, ...] = (options.input_nc, options.output_nc)

    @abstractmethod
    def _load(self, index: int) -> list[tuple[Array, PathLike]]:
        """The images of one sample as stored, each with the file to blame: A then B, or A alone."""

    def decoders(self, index: int) -> tuple[Callable[[PathLike], Array], ...]:
        """`read_image`, for each of the files."""
        return (read_image,) * len(self.files(index))

    @property
    def read_options(self) -> list[str | int]:
        """The direction and the channels."""
        return [self.options.direction, self.options.input_nc, self.options.output_nc]

    def read(self, index: int) -> tuple[Array, ...]:
        """Decode one sample: A and, for paired data, B, (H, W, C) after ``direction`` in the channels wanted.

        Raises:
            ImageError: a file is damaged, has the wrong channels, or the two differ in size.
            OSError: a file cannot be opened.
        """
        loaded = self._load(index)
        if self.options.direction == "BtoA":
            loaded.reverse()
        sizes = [image.shape[:2] for image, _ in loaded]
        if len(set(sizes)) > 1:
            (_, a), (_, b) = loaded
            raise ImageError(f"{a} and {b} must have one size, found {sizes[0]} and {sizes[1]} (height, width)")
        return tuple(
            fit_channels(image, channels, path) for (image, path), channels in zip(loaded, self._channels, strict=False)
        )

    def sample(self, index: int, epoch: int) -> Sample:
        """One sample as the network gets it in ``epoch``: a function of the seed, the epoch and the index.

        Raises:
            IndexError: there is no such sample; or what `read` raises.
        """
        index = range(len(self))[index]
        images = self.read(index)
        geometry = self._preprocess.plan(images[0].shape[:2], self._generator(index, epoch))
        tensors = self._tensors([geometry.apply(image) for image in images])
        sample: Sample = {"A": tensors[0], "path": self.name(index)}
        if len(tensors) == 2:
            sample["B"] = tensors[1]
        return sample

    def pictures(self, sample: Sample) -> list[Array]:
        """A sample for the eye: A and, where there is one, B, each uint8 RGB (H, W, 3)."""
        return [to_rgb(sample["A"])] + ([to_rgb(sample["B"])] if "B" in sample else [])

    def _tensors(self, images: list[Array]) -> list[torch.Tensor]:
        return [to_tensor(image) for image in images]


class FilesDataset(PairedDataset):
    """One file a sample: every image under a folder."""

    def __init__(self, options: DataOptions, folder: Path) -> None:
        self._files = find_images(folder)
        super().__init__(options, [image_name(path, folder) for path in self._files])

    def files(self, index: int) -> tuple[Path, ...]:
        """The one file."""
        return (self._files[index],)

    def _load(self, index: int) -> list[tuple[Array, PathLike]]:
        return [(read_image(self._files[index]), self._files[index])]


class SingleDataset(FilesDataset):
    """Images of A alone, to be translated: in ``dataroot/phase`` if that is a folder, else ``dataroot``."""

    def __init__(self, options: DataOptions) -> None:
        folder = Path(options.dataroot, options.phase)
        super().__init__(options, folder if folder.is_dir() else Path(options.dataroot))


class AlignedDataset(FilesDataset):
    """Files that hold A and B side by side, A on the left, in ``dataroot/phase`` (spec 6.1)."""

    def __init__(self, options: DataOptions) -> None:
        super().__init__(options, Path(options.dataroot, options.phase))

    def _load(self, index: int) -> list[tuple[Array, PathLike]]:
        ((image, path),) = super()._load(index)
        half, odd = divmod(image.shape[1], 2)
        if odd:
            raise ImageError(f"{path}: expected A and B side by side, found an odd width of {image.shape[1]} pixels")
        return [(image[:, :half], path), (image[:, half:], path)]


class ColorizationDataset(FilesDataset):
    """Colour photographs in ``dataroot/phase``: A is lightness, L / 50 - 1; B is ab / 110 (spec 6.5)."""

    def __init__(self, options: DataOptions) -> None:
        if (options.input_nc, options.output_nc, options.direction) != (1, 2, "AtoB"):
            raise ValueError(
                "colorization needs input_nc 1, output_nc 2 and direction AtoB, "
                f"got {options.input_nc}, {options.output_nc} and {options.direction}"
            )
        super().__init__(options, Path(options.dataroot, options.phase))
        self._channels = (3,)

    def pictures(self, sample: Sample) -> list[Array]:
        """The grey image and the colour image."""
        return [to_rgb(sample["A"]), lab_tensor_to_rgb(sample["A"], sample["B"])]

    def _tensors(self, images: list[Array]) -> list[torch.Tensor]:
        return list(rgb_to_lab_tensors(images[0]))


class FoldersDataset(PairedDataset):
    """Two folders paired by name: ``<phase>A`` and ``<phase>B``, or ``A/<phase>`` and ``B/<phase>``."""

    def __init__(self, options: DataOptions) -> None:
        self._pairs = pair_by_name(*_two_folders(Path(options.dataroot), options.phase))
        super().__init__(options, [pair.name for pair in self._pairs])

    def files(self, index: int) -> tuple[Path, ...]:
        """The file of A and that of B, before ``direction``."""
        return self._pairs[index].a, self._pairs[index].b

    def _load(self, index: int) -> list[tuple[Array, PathLike]]:
        return [(read_image(path), path) for path in self.files(index)]


class DemoDataset(PairedDataset):
    """Street scenes drawn by the package: A is the coloured label map, B the image. Needs no file.

    A scene is drawn at the load size in force and kept in memory. Each phase has scenes of its own.

    Raises:
        ValueError: the phase is not train, val or test.
    """

    def __init__(self, options: DataOptions) -> None:
        names, self._seeds = demo.scenes_of(options.phase, options.max_dataset_size)
        super().__init__(options, names)
        self._drawn: dict[tuple[int, int], tuple[Array, Array]] = {}

    def files(self, index: int) -> tuple[Path, ...]:
        """None."""
        return ()

    def _load(self, index: int) -> list[tuple[Array, PathLike]]:
        side = self._preprocess.scale
        if (index, side) not in self._drawn:
            scene = demo.draw_scene((side, side), self._seeds[index])
            self._drawn[index, side] = (scene.label, scene.image)
        label, image = self._drawn[index, side]
        return [(colourise_labels(label), self.name(index)), (image, self.name(index))]


DATASETS: dict[str, Callable[[DataOptions], PairedDataset]] = {
    "aligned": AlignedDataset,
    "folders": FoldersDataset,
    "single": SingleDataset,
    "colorization": ColorizationDataset,
    "demo": DemoDataset,
}
"""From ``dataset_mode`` to the class."""


def build_dataset(options: DataOptions) -> PairedDataset:
    """The dataset that the options describe.

    Raises:
        FileNotFoundError: a folder is missing.
        ValueError: an option is out of range, or the files cannot be paired; see the class of the mode.
    """
    if options.dataset_mode not in DATASETS:
        raise ValueError(f"dataset_mode must be one of {', '.join(DATASETS)}, got {options.dataset_mode!r}")
    return DATASETS[options.dataset_mode](options)


def _two_folders(dataroot: Path, phase: str) -> tuple[Path, Path]:
    layouts = [
        (dataroot / f"{phase}A", dataroot / f"{phase}B"),
        (dataroot / "A" / phase, dataroot / "B" / phase),
    ]
    found = [layout for layout in layouts if all(folder.is_dir() for folder in layout)]
    expected = " or ".join(f"{a} with {b}" for a, b in layouts)
    if not found:
        raise FileNotFoundError(f"dataset_mode folders expects {expected}; neither pair of folders exists")
    if len(found) > 1:
        raise ValueError(f"dataset_mode folders expects either {expected}; both exist")
    return found[0]
