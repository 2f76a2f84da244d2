"""What every training is told, whatever its model: shared fields, and the checks of a configuration.

Field names are those of the original projects wherever they have one (spec sections 10.1 to 10.3).
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch

from torchp2p.train.layout import chosen_layout

KINDS = {"str": "text", "int": "a whole number", "float": "a number", "bool": "true or false"}
"""The types of fields in words, for messages."""

_TYPES: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "float": (float, int), "bool": (bool,)}

Self = TypeVar("Self", bound="RunConfig")


class ConfigError(ValueError):
    """A field that is unknown, of the wrong type or out of range; the message is one sentence."""


@dataclass(frozen=True)
class RunConfig(ABC):
    """The fields that trainings of all models share; a subclass per model adds its own.

    Args:
        name: of the experiment; everything it writes goes to checkpoints_dir/name.
        checkpoints_dir: folder of all experiments.
        dataroot: folder of the data (unused by the demo).
        phase: subfolder of the data.
        load_size: pixels to resize to.
        crop_size: pixels to crop to.
        no_flip: never mirror images.
        max_dataset_size: use only the first so many samples.
        serial_batches: take the samples in order instead of shuffling.
        num_threads: worker processes that read data; 0 reads in the training process.
        batch_size: samples in a step.
        input_nc: channels of the input image.
        output_nc: channels of the output image.
        ngf: generator filters in the first layer.
        ndf: discriminator filters in the first layer.
        pool_size: earlier fakes kept for the discriminator; 0 for none.
        lr: learning rate of Adam.
        beta1: momentum of Adam.
        device: cpu, cuda, cuda:1, ...; auto takes CUDA where there is one.
        channels_last: keep the channels of a pixel together in memory; by default on CUDA only.
        cuda_graph: on CUDA, launch a whole step as one graph, where it can be captured.
        compile: have torch.compile make kernels of whole networks, for devices that no kernel of this package serves.
        seed: of weights, order, augmentation and dropout.
        deterministic: on a GPU take only algorithms with the same bits every time; on the CPU it is so by itself.
        max_minutes: stop and save after so long; counted anew when resumed.
        print_freq: steps between log lines.
        display_freq: steps between gallery images.
        save_latest_freq: steps between saves of the latest state.
        save_epoch_freq: epochs between checkpoints that are kept.
        n_samples: fixed samples shown after every epoch, in the gallery and the progress video.
        video_fps: frames a second of the progress video.
        no_html: write no gallery.
        no_check: do not decode every file before the first step.
    """

    name: str = "experiment"
    checkpoints_dir: str = "checkpoints"
    dataroot: str = "datasets"
    phase: str = "train"
    load_size: int = 286
    crop_size: int = 256
    no_flip: bool = False
    max_dataset_size: int | None = None
    serial_batches: bool = False
    num_threads: int = 2
    batch_size: int = 1
    input_nc: int = 3
    output_nc: int = 3
    ngf: int = 64
    ndf: int = 64
    pool_size: int = 0
    lr: float = 2e-4
    beta1: float = 0.5
    device: str = "auto"
    channels_last: bool | None = None
    cuda_graph: bool = True
    compile: bool = False
    seed: int = 0
    deterministic: bool = False
    max_minutes: float | None = None
    print_freq: int = 100
    display_freq: int = 400
    save_latest_freq: int = 5000
    save_epoch_freq: int = 5
    n_samples: int = 4
    video_fps: int = 4
    no_html: bool = False
    no_check: bool = False

    CHOICES: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Fields that take one of a few names."""

    POSITIVE: ClassVar[tuple[str, ...]] = (
        "input_nc", "output_nc", "load_size", "crop_size", "batch_size", "ngf", "ndf",
        "print_freq", "display_freq", "save_latest_freq", "save_epoch_freq", "video_fps",
    )  # fmt: skip
    NOT_NEGATIVE: ClassVar[tuple[str, ...]] = ("num_threads", "seed", "pool_size", "lr", "beta1", "n_samples")
    OPTIONAL_POSITIVE: ClassVar[tuple[str, ...]] = ("max_dataset_size", "max_minutes")

    FREE_ON_RESUME: ClassVar[tuple[str, ...]] = (
        "checkpoints_dir", "name", "dataroot", "num_threads", "device", "channels_last", "cuda_graph", "compile",
        "max_minutes", "print_freq", "display_freq", "save_latest_freq", "save_epoch_freq", "n_samples", "video_fps",
        "no_html", "no_check", "deterministic",
    )  # fmt: skip
    """Fields that a resumed training may change; any other would make it another training."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check_type(field, getattr(self, field.name))
        for name, choices in self.CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise ConfigError(f"{name} must be one of {', '.join(choices)}, got {value!r}{nearest(value, choices)}")
        for names, least in ((self.POSITIVE, 1), (self.NOT_NEGATIVE, 0)):
            for name in names:
                value = getattr(self, name)
                if not math.isfinite(value):
                    raise ConfigError(f"{name} must be finite, got {value}")
                if value < least:
                    raise ConfigError(f"{name} must be at least {least}, got {value}")
        for name in self.OPTIONAL_POSITIVE:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name} must be more than 0, got {value}")
        self._check_together()

    def _check_together(self) -> None:
        """What fields must not be at the same time."""
        if not self.name or "/" in self.name or "\\" in self.name or self.name in (".", ".."):
            raise ConfigError(f"name must be a folder name, got {self.name!r}")
        if not 0 <= self.beta1 < 1:
            raise ConfigError(f"beta1 must be in [0, 1), got {self.beta1}")
        if self.device != "auto":
            check_device(self.device)

    @classmethod
    def fields(cls) -> tuple[str, ...]:
        """The names of all fields, in order."""
        return tuple(field.name for field in dataclasses.fields(cls))

    @classmethod
    def from_mapping(cls: type[Self], values: Mapping[str, Any], base: Self | None = None) -> Self:
        """``base`` (the defaults if None) with ``values`` in place.

        Raises:
            ConfigError: an unknown field (the nearest name is suggested), a value of the wrong type or out of
                range.
        """
        names = cls.fields()
        for key in values:
            if key not in names:
                raise ConfigError(f"{key!r} is not an option{nearest(key, names)}")
        return cls(**values) if base is None else dataclasses.replace(base, **values)

    def as_dict(self) -> dict[str, Any]:
        """The fields and their values, in order."""
        return dataclasses.asdict(self)

    @property
    @abstractmethod
    def epochs(self) -> int:
        """Epochs in all."""

    @abstractmethod
    def lr_in_epoch(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 1."""

    def torch_device(self) -> torch.device:
        """The device to train on."""
        if self.device != "auto":
            return torch.device(self.device)
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def layout(self) -> torch.memory_format:
        """The order in memory of images and of the weights that meet them."""
        return chosen_layout(self.channels_last, self.torch_device())


def changed_on_resume(stored: Self, wanted: Self) -> list[str]:
    """Differences that a resumed training must not have, as ``field: stored value, not wanted value``."""
    before, after = stored.as_dict(), wanted.as_dict()
    return [
        f"{key}: {before[key]!r}, not {after[key]!r}"
        for key in before
        if key not in stored.FREE_ON_RESUME and before[key] != after[key]
    ]


def nearest(value: object, choices: tuple[str, ...]) -> str:
    """``; did you mean 'x'?``, or nothing where no choice is near."""
    close = difflib.get_close_matches(str(value), choices, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _check_type(field: dataclasses.Field[Any], value: object) -> None:
    kind, _, optional = str(field.type).partition(" | ")
    if optional and value is None:
        return
    if not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "bool"):
        raise ConfigError(f"{field.name} must be {KINDS[kind]}, got {value!r}")


def check_device(name: str) -> None:
    """Raise ConfigError unless ``name`` is a device that this torch sees."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device must be auto, cpu, cuda or cuda:N, got {name!r}") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device {name} was asked for, but this torch sees no CUDA device")
