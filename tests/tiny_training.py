"""The smallest training that has everything in it, for the tests of the trainer and of the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor

from torchp2p.train import Outcome, TrainConfig, pix2pix_recipe, train

PAIRS = 6
EPOCHS = 4
STEPS = PAIRS * EPOCHS

TINY: dict[str, Any] = {
    "name": "tiny", "netG": "resnet_6blocks", "ngf": 4, "netD": "n_layers", "n_layers_D": 1, "ndf": 4,
    "load_size": 36, "crop_size": 32, "num_threads": 0, "pool_size": 3, "n_epochs": 2, "n_epochs_decay": 2,
    "print_freq": 1, "display_freq": 7, "save_latest_freq": 1000, "save_epoch_freq": 1000, "n_samples": 2,
    "device": "cpu",
}  # fmt: skip
"""With batch norm, dropout, a pool, augmentation and a falling learning rate: all that a resume can lose."""


def draw_pair(size: int = 36, seed: int = 0, channels: int = 3) -> np.ndarray:
    """A|B, uint8 (size, 2 size, channels): coarse blocks, and beside them their negative."""
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 4, channels), dtype=np.uint8)
    a = np.kron(blocks, np.ones((size // 4, size // 4, 1), np.uint8))
    return np.concatenate([a, 255 - a], axis=1)


def save(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(path)


def draw_dataset(root: Path, *, train: int = PAIRS, test: int = 2, size: int = 36, channels: int = 3) -> Path:
    """An aligned dataset with the folders train and test."""
    for phase, count, first in (("train", train, 0), ("test", test, 100)):
        for number in range(count):
            save(draw_pair(size, first + number, channels), root / phase / f"pair{number}.png")
    return root


def tiny_config(folder: Path, **changes: Any) -> TrainConfig:
    """Data in ``folder/data``, checkpoints in ``folder/checkpoints``."""
    places = {"dataroot": str(folder / "data"), "checkpoints_dir": str(folder / "checkpoints")}
    return TrainConfig.from_mapping({**TINY, **places, **changes})


def flags(config: TrainConfig) -> list[str]:
    """The command line of a configuration."""
    return [f"--{key}={value}" for key, value in config.as_dict().items() if value is not None]


def run_training(config: TrainConfig, *, resume: bool = False) -> Outcome:
    """Train on one thread, as `start` does; how many there are can change the order of a sum."""
    torch.set_num_threads(1)
    return train(config, resume=resume, console=Console(quiet=True))


def train_straight(folder: Path) -> Path:
    """Draw the data and train on them without a stop; the folder of the run."""
    draw_dataset(folder / "data")
    outcome = run_training(tiny_config(folder, save_epoch_freq=2))
    assert (outcome.progress.step, outcome.stopped_by) == (STEPS, "")
    return outcome.folder


def start(*command: str, **options: Any) -> subprocess.Popen[str]:
    """A process of this Python on one thread, in a session of its own, its output piped as text."""
    return subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        **options,
    )


def read_state(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(folder / "latest_state.pth", weights_only=True)
    return state


def differences(one: Any, other: Any, where: str = "state") -> list[str]:
    """Where two states differ, to the last bit; the time spent and the configuration are not compared."""
    if isinstance(one, Tensor):
        same = isinstance(other, Tensor) and one.dtype == other.dtype and torch.equal(one, other)
        return [] if same else [where]
    if isinstance(one, dict) and isinstance(other, dict):
        if one.keys() != other.keys():
            return [f"{where}: {sorted(map(str, one.keys() ^ other.keys()))}"]
        skipped = ("seconds", "config")
        found = [differences(one[key], other[key], f"{where}.{key}") for key in one if key not in skipped]
        return [each for part in found for each in part]
    if isinstance(one, (list, tuple)):
        if len(one) != len(other):
            return [f"{where}: {len(one)} and {len(other)} entries"]
        found = [differences(*both, f"{where}[{index}]") for index, both in enumerate(zip(one, other, strict=True))]
        return [each for part in found for each in part]
    return [] if one == other else [f"{where}: {one!r} and {other!r}"]


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Stopped(Exception):
    """Raised by the tests to leave a training."""


def stop_in_step(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on, the training ends like a crash in its step ``number``."""
    stop_in(pix2pix_recipe, "Pix2PixStep", number, monkeypatch)


def stop_in(recipe: ModuleType, step: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on, the steps that ``recipe`` makes raise Stopped in place of the one of this number."""

    class Stopping(getattr(recipe, step)):
        taken = 0

        def __call__(self, batch):
            self.taken += 1
            if self.taken == number:
                raise Stopped
            return super().__call__(batch)

    monkeypatch.setattr(recipe, step, Stopping)
