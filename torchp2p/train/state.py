"""The state of a training on disk: one file that continues it bit for bit, beside the plain network files.

``latest_state.pth`` alone decides how a training continues, so a kill between two writes cannot mix moments.
``<label>_net_G.pth`` and ``<label>_net_D.pth`` are plain state_dicts, as the original projects write them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from torchp2p.models import load_state_dict_compatible, read_checkpoint, save_weights, write_checkpoint
from torchp2p.train.config import TrainConfig
from torchp2p.train.pix2pix_step import Pix2PixStep

STATE_FILE = "latest_state.pth"
_FORMAT = 1


class CheckpointError(ValueError):
    """A training state that is missing, damaged or of another training; the message is one sentence."""


@dataclass
class Progress:
    """Where a training stands.

    Attributes:
        step: optimiser steps done.
        epoch: the epoch being worked on, counted from 1.
        batch: batches of that epoch that are done.
        seconds: time spent in the training loop.
        history: a row of losses for every log line.
    """

    step: int = 0
    epoch: int = 1
    batch: int = 0
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


def save_state(folder: Path, config: TrainConfig, progress: Progress, step: Pix2PixStep) -> None:
    """Write the whole state, atomically.

    Raises:
        OSError: naming the file; the state that stood there is then unharmed.
    """
    content: dict[str, Any] = {
        "format": _FORMAT,
        "config": config.as_dict(),
        "progress": asdict(progress),
        "rng": _random_state(),
        "G": step.G.state_dict(),
        "optimizer_G": step.optimizer_G.state_dict(),
        "pool": step.pool.state_dict(),
        "penalty_rng": step.penalty_generator.get_state(),
    }
    if step.D is not None and step.optimizer_D is not None:
        content |= {"D": step.D.state_dict(), "optimizer_D": step.optimizer_D.state_dict()}
    write_checkpoint(folder / STATE_FILE, content)


def save_networks(folder: Path, label: str, config: TrainConfig, step: Pix2PixStep) -> None:
    """Write ``<label>_net_G.pth`` and ``<label>_net_D.pth``, each with the configuration inside.

    Raises:
        OSError: naming the file; what stood there is then unharmed.
    """
    save_weights(folder / f"{label}_net_G.pth", step.G.state_dict(), config.as_dict())
    if step.D is not None:
        save_weights(folder / f"{label}_net_D.pth", step.D.state_dict(), config.as_dict())


def read_state(folder: Path) -> dict[str, Any]:
    """The content of a state file, onto the CPU; nothing in it is executed.

    Raises:
        CheckpointError: there is none, it is damaged, or another version wrote it.
    """
    path = folder / STATE_FILE
    if not path.exists():
        raise CheckpointError(f"there is nothing to resume: {path} does not exist")
    try:
        content = read_checkpoint(path)
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    if not isinstance(content, Mapping) or content.get("format") != _FORMAT:
        raise CheckpointError(f"{path} is not a training state of this version of torchp2p")
    return dict(content)


def restore(content: Mapping[str, Any], step: Pix2PixStep) -> Progress:
    """Bring networks, optimisers, pool and random numbers to where ``save_state`` found them.

    Raises:
        CheckpointError: the state is of another network.
    """
    try:
        load_state_dict_compatible(step.G, content["G"])
        step.optimizer_G.load_state_dict(content["optimizer_G"])
        if step.D is not None and step.optimizer_D is not None:
            load_state_dict_compatible(step.D, content["D"])
            step.optimizer_D.load_state_dict(content["optimizer_D"])
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"the training state does not fit: {error}") from error
    step.pool.load_state_dict(content["pool"])
    step.penalty_generator.set_state(content["penalty_rng"])
    torch.set_rng_state(content["rng"]["cpu"])
    if "cuda" in content["rng"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(content["rng"]["cuda"])
    return Progress(**content["progress"])


def _random_state() -> dict[str, Any]:
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state
