"""What a training is told: one dataclass, checked when it is made, and the presets.

Field names are those of the original project wherever it has one (spec sections 10.2, 10.3).
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from torchp2p.data.datasets import DATASETS
from torchp2p.data.transforms import PREPROCESS_MODES
from torchp2p.models.define import DISCRIMINATORS, GENERATORS
from torchp2p.train.schedule import LR_POLICIES

CHOICES: dict[str, tuple[str, ...]] = {
    "dataset_mode": tuple(mode for mode in DATASETS if mode != "single"),
    "direction": ("AtoB", "BtoA"),
    "preprocess": tuple(PREPROCESS_MODES),
    "netG": GENERATORS,
    "netD": DISCRIMINATORS,
    "norm": ("batch", "instance", "none"),
    "variant": ("pytorch", "paper"),
    "init_type": ("normal", "xavier", "kaiming", "orthogonal"),
    "gan_mode": ("vanilla", "lsgan", "hinge", "wgangp"),
    "pixel_loss": ("l1", "l2"),
    "lr_policy": LR_POLICIES,
    "precision": ("float32", "bfloat16"),
}
"""Fields that take one of a few names."""

KINDS = {"str": "text", "int": "a whole number", "float": "a number", "bool": "true or false"}
"""The types of fields in words, for messages."""

_TYPES: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "float": (float, int), "bool": (bool,)}

_POSITIVE = (
    "input_nc", "output_nc", "load_size", "crop_size", "batch_size", "ngf", "ndf", "n_layers_D",
    "lr_decay_iters", "print_freq", "display_freq", "save_latest_freq", "save_epoch_freq", "video_fps",
)  # fmt: skip
_NOT_NEGATIVE = (
    "num_threads", "seed", "init_gain", "lambda_L1", "pool_size", "lr", "beta1", "n_epochs", "n_epochs_decay",
    "n_samples",
)  # fmt: skip


class ConfigError(ValueError):
    """A field that is unknown, of the wrong type or out of range; the message is one sentence."""


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a pix2pix training.

    Args:
        name: of the experiment; everything it writes goes to checkpoints_dir/name.
        checkpoints_dir: folder of all experiments.
        dataroot: folder of the data (unused by the demo).
        dataset_mode: aligned (A|B side by side), folders (paired by name), colorization, demo (drawn).
        phase: subfolder of the data.
        direction: AtoB or BtoA.
        input_nc: channels of the input image.
        output_nc: channels of the output image.
        preprocess: resize_and_crop, crop, scale_width, scale_width_and_crop or none.
        load_size: pixels to resize to.
        crop_size: pixels to crop to.
        no_flip: never mirror images.
        max_dataset_size: use only the first so many samples.
        serial_batches: take the samples in order instead of shuffling.
        num_threads: worker processes that read data; 0 reads in the training process.
        batch_size: samples in a step.
        netG: generator network.
        netD: discriminator network.
        ngf: generator filters in the first layer.
        ndf: discriminator filters in the first layer.
        n_layers_D: strided layers of the discriminator with netD n_layers.
        norm: batch, instance or none.
        no_dropout: leave out the dropout of the generator.
        variant: of the U-Net, pytorch or paper.
        init_type: normal, xavier, kaiming or orthogonal.
        init_gain: spread of the initial weights.
        gan_mode: vanilla, lsgan, hinge or wgangp.
        use_GAN: train against a discriminator.
        condition_GAN: show the discriminator the input image as well.
        use_L1: add the pixel loss.
        pixel_loss: l1, or l2 for the mean squared difference.
        lambda_L1: weight of the pixel loss.
        pool_size: earlier fakes kept for the discriminator; 0 for none.
        lr: learning rate of Adam.
        beta1: momentum of Adam.
        n_epochs: epochs at the full learning rate.
        n_epochs_decay: epochs over which it falls.
        lr_policy: linear, linear_hd, step, cosine or constant.
        lr_decay_iters: epochs between the steps of lr_policy step.
        zero_lr_last_epoch: let the linear policy end with an epoch at rate 0, as the original does.
        precision: float32, or bfloat16 for autocast.
        device: cpu, cuda, cuda:1, ...; auto takes CUDA where there is one.
        seed: of weights, order, augmentation and dropout.
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

    name: str = "pix2pix"
    checkpoints_dir: str = "checkpoints"
    dataroot: str = "datasets"
    dataset_mode: str = "aligned"
    phase: str = "train"
    direction: str = "AtoB"
    input_nc: int = 3
    output_nc: int = 3
    preprocess: str = "resize_and_crop"
    load_size: int = 286
    crop_size: int = 256
    no_flip: bool = False
    max_dataset_size: int | None = None
    serial_batches: bool = False
    num_threads: int = 2
    batch_size: int = 1
    netG: str = "unet_256"
    netD: str = "basic"
    ngf: int = 64
    ndf: int = 64
    n_layers_D: int = 3
    norm: str = "batch"
    no_dropout: bool = False
    variant: str = "pytorch"
    init_type: str = "normal"
    init_gain: float = 0.02
    gan_mode: str = "vanilla"
    use_GAN: bool = True
    condition_GAN: bool = True
    use_L1: bool = True
    pixel_loss: str = "l1"
    lambda_L1: float = 100.0
    pool_size: int = 0
    lr: float = 2e-4
    beta1: float = 0.5
    n_epochs: int = 100
    n_epochs_decay: int = 100
    lr_policy: str = "linear"
    lr_decay_iters: int = 50
    zero_lr_last_epoch: bool = False
    precision: str = "float32"
    device: str = "auto"
    seed: int = 0
    max_minutes: float | None = None
    print_freq: int = 100
    display_freq: int = 400
    save_latest_freq: int = 5000
    save_epoch_freq: int = 5
    n_samples: int = 4
    video_fps: int = 4
    no_html: bool = False
    no_check: bool = False

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check_type(field, getattr(self, field.name))
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise ConfigError(
                    f"{name} must be one of {', '.join(choices)}, got {value!r}{_nearest(value, choices)}"
                )
        for names, least in ((_POSITIVE, 1), (_NOT_NEGATIVE, 0)):
            for name in names:
                value = getattr(self, name)
                if not math.isfinite(value):
                    raise ConfigError(f"{name} must be finite, got {value}")
                if value < least:
                    raise ConfigError(f"{name} must be at least {least}, got {value}")
        for name in ("max_dataset_size", "max_minutes"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name} must be more than 0, got {value}")
        self._check_together()

    def _check_together(self) -> None:
        if not self.name or "/" in self.name or "\\" in self.name or self.name in (".", ".."):
            raise ConfigError(f"name must be a folder name, got {self.name!r}")
        if self.n_epochs + self.n_epochs_decay < 1:
            raise ConfigError("n_epochs and n_epochs_decay must not both be 0")
        if not (self.use_GAN or self.use_L1):
            raise ConfigError("use_GAN and use_L1 must not both be off: there would be no loss")
        if not 0 <= self.beta1 < 1:
            raise ConfigError(f"beta1 must be in [0, 1), got {self.beta1}")
        if self.variant == "paper" and self.netG.startswith("resnet"):
            raise ConfigError(f"variant paper exists for U-Nets and the encoder-decoder, not for {self.netG}")
        if self.use_GAN and self.netD != "pixel" and "crop" in self.preprocess:
            layers = self.n_layers_D if self.netD == "n_layers" else 3
            least = 3 * 2**layers
            if self.crop_size < least:
                raise ConfigError(
                    f"crop_size must be at least {least} for a discriminator of {layers} strided layers, "
                    f"got {self.crop_size}"
                )
        if self.device != "auto":
            _check_device(self.device)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], base: TrainConfig | None = None) -> TrainConfig:
        """``base`` (the defaults if None) with ``values`` in place.

        Raises:
            ConfigError: an unknown field (the nearest name is suggested), a value of the wrong type or out of
                range.
        """
        for key in values:
            check_field(key)
        return dataclasses.replace(base or cls(), **values)

    def as_dict(self) -> dict[str, Any]:
        """The fields and their values, in order."""
        return dataclasses.asdict(self)

    @property
    def epochs(self) -> int:
        """Epochs in all."""
        return self.n_epochs + self.n_epochs_decay

    def torch_device(self) -> torch.device:
        """The device to train on."""
        if self.device != "auto":
            return torch.device(self.device)
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")


FIELDS = tuple(field.name for field in dataclasses.fields(TrainConfig))

FREE_ON_RESUME = (
    "checkpoints_dir", "name", "dataroot", "num_threads", "n_epochs", "n_epochs_decay", "device",
    "max_minutes", "print_freq", "display_freq", "save_latest_freq", "save_epoch_freq", "n_samples",
    "video_fps", "no_html", "no_check",
)  # fmt: skip
"""Fields that a resumed training may change; any other would make it another training."""

PRESETS: dict[str, dict[str, Any]] = {
    "pix2pix": {},
    "demo": {
        "name": "demo", "dataset_mode": "demo", "netG": "unet_128", "ngf": 32, "ndf": 32, "netD": "n_layers",
        "n_layers_D": 2, "load_size": 140, "crop_size": 128, "max_dataset_size": 200, "num_threads": 0,
        "n_epochs": 4, "n_epochs_decay": 3, "max_minutes": 2.6, "print_freq": 20, "display_freq": 100,
        "save_latest_freq": 200, "save_epoch_freq": 100,
    },
    "colorization": {"name": "colorization", "dataset_mode": "colorization", "input_nc": 1, "output_nc": 2},
    "maps": {"name": "maps", "n_epochs": 75, "n_epochs_decay": 75},
    "edges2shoes": {"name": "edges2shoes", "n_epochs": 15, "n_epochs_decay": 15},
    "sketch": {"name": "sketch", "n_epochs": 38, "n_epochs_decay": 37},
}  # fmt: skip
"""Named starting points; pix2pix is the original's recipe, the others say how they differ from it (S31)."""


def preset(name: str) -> TrainConfig:
    """The configuration of a preset.

    Raises:
        ConfigError: there is none of that name; the nearest is suggested.
    """
    if name not in PRESETS:
        raise ConfigError(f"preset must be one of {', '.join(PRESETS)}, got {name!r}{_nearest(name, tuple(PRESETS))}")
    return TrainConfig.from_mapping(PRESETS[name])


def check_field(key: str) -> None:
    """Raise ConfigError unless ``key`` is a field; the nearest name is suggested."""
    if key not in FIELDS:
        raise ConfigError(f"{key!r} is not an option{_nearest(key, FIELDS)}")


def changed_on_resume(stored: TrainConfig, wanted: TrainConfig) -> list[str]:
    """Differences that a resumed training must not have, as ``field: stored value, not wanted value``."""
    before, after = stored.as_dict(), wanted.as_dict()
    return [
        f"{key}: {before[key]!r}, not {after[key]!r}"
        for key in FIELDS
        if key not in FREE_ON_RESUME and before[key] != after[key]
    ]


def _nearest(value: object, choices: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(str(value), choices, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _check_type(field: dataclasses.Field[Any], value: object) -> None:
    kind, _, optional = str(field.type).partition(" | ")
    if optional and value is None:
        return
    if not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "bool"):
        raise ConfigError(f"{field.name} must be {KINDS[kind]}, got {value!r}")


def _check_device(name: str) -> None:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device must be auto, cpu, cuda or cuda:N, got {name!r}") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device {name} was asked for, but this torch sees no CUDA device")
