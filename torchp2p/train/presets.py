"""Named starting points of a training, and which configuration a model has."""

from __future__ import annotations

from typing import Any

from torchp2p.train.config import TrainConfig
from torchp2p.train.hd_config import HDTrainConfig
from torchp2p.train.run_config import ConfigError, RunConfig, nearest

_LOCAL: dict[str, Any] = {
    "netG": "local", "ngf": 32, "num_D": 3, "load_size": 2048, "resize_or_crop": "none",
    "niter": 50, "niter_decay": 50, "niter_fix_global": 10, "coarse_to_fine": True,
}  # fmt: skip

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
    "pix2pixhd-512p": {"name": "label2city_512p"},
    "pix2pixhd-512p-feat": {"name": "label2city_512p_feat", "instance_feat": True},
    "pix2pixhd-1024p": {"name": "label2city_1024p", **_LOCAL},
    "pix2pixhd-1024p-feat": {"name": "label2city_1024p_feat", **_LOCAL, "instance_feat": True, "load_features": True},
}  # fmt: skip
"""pix2pix and pix2pixhd-512p are the originals' recipes, the others say how they differ (S31, spec section 5.3).

The 512p presets make images of 1024 x 512 pixels, the 1024p presets of 2048 x 1024.
"""


MODELS: dict[str, type[RunConfig]] = {"pix2pix": TrainConfig, "pix2pixHD": HDTrainConfig}
"""The configuration of each model."""


def config_class(preset_name: str | None, model: str | None = None) -> type[RunConfig]:
    """The configuration that a preset is of, or a model without a preset; pix2pix's for none of both.

    Raises:
        ConfigError: there is no preset, or no model, of that name (the nearest is suggested), or the preset is of
            another model.
    """
    for what, name, known in (("preset", preset_name, tuple(PRESETS)), ("model", model, tuple(MODELS))):
        if name is not None and name not in known:
            raise ConfigError(f"{what} must be one of {', '.join(known)}, got {name!r}{nearest(name, known)}")
    if preset_name is None:
        return MODELS[model or "pix2pix"]
    found = HDTrainConfig if preset_name.startswith("pix2pixhd") else TrainConfig
    if model is not None and MODELS[model] is not found:
        raise ConfigError(f"preset {preset_name} is not of model {model}")
    return found


def preset(name: str, **changes: Any) -> RunConfig:
    """The configuration of a preset, with ``changes`` in place.

    Raises:
        ConfigError: there is none of that name, the nearest is suggested; or a field is out of range, as where a
            pix2pixhd preset is given neither ``vgg_weights`` nor ``no_vgg_loss``.
    """
    return config_class(name).from_mapping({**PRESETS[name], **changes})


def stored_config(values: dict[str, Any], **changes: Any) -> RunConfig:
    """The configuration that a checkpoint carries.

    Raises:
        ConfigError: it is of no model that this version knows.
    """
    kind = HDTrainConfig if "label_nc" in values else TrainConfig
    return kind.from_mapping({**values, **changes})
