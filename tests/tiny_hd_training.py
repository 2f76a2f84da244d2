"""The smallest pix2pixHD training that has everything in it: an enhancer, features, two discriminators, a pool."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_training import stop_in

from torchp2p.train import HDTrainConfig, pix2pixhd_recipe

SCENES = 4

TINY_HD: dict[str, Any] = {
    "name": "tinyhd", "dataset_mode": "demo", "load_size": 64, "max_dataset_size": SCENES, "num_threads": 0,
    "ngf": 2, "ndf": 2, "n_blocks_global": 1, "n_downsample_global": 2, "num_D": 2, "n_layers_D": 2, "nef": 2,
    "n_downsample_E": 2, "no_vgg_loss": True, "niter": 2, "niter_decay": 2, "print_freq": 1, "display_freq": 3,
    "save_latest_freq": 1000, "save_epoch_freq": 1000, "n_samples": 1, "device": "cpu",
}  # fmt: skip

LOCAL: dict[str, Any] = {
    "netG": "local", "n_local_enhancers": 1, "n_blocks_local": 1, "niter_fix_global": 2, "pool_size": 2,
    "instance_feat": True,
}  # fmt: skip


def tiny_hd_config(folder: Path, **changes: Any) -> HDTrainConfig:
    """Drawn scenes, checkpoints in ``folder/checkpoints``."""
    return HDTrainConfig(**{**TINY_HD, "checkpoints_dir": str(folder / "checkpoints"), **changes})


def hd_flags(folder: Path, **changes: Any) -> list[str]:
    """The command line of such a training."""
    values = {**TINY_HD, "checkpoints_dir": str(folder / "checkpoints"), **changes}
    return ["--model=pix2pixHD", *(f"--{key}={value}" for key, value in values.items())]


def stop_in_hd_step(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on, the training ends like a crash in its step ``number``."""
    stop_in(pix2pixhd_recipe, "Pix2PixHDStep", number, monkeypatch)
