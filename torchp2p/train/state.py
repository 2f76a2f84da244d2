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

from torchp2p.models import read_checkpoint, save_weights, write_checkpoint
from torchp2p.train.recipe import Recipe
from torchp2p.train.run_config import RunConfig

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


def run_folder(config: RunConfig) -> Path:
    """Where a training writes."""
    return Path(config.checkpoints_dir, config.name)


def has_state(folder: Path) -> bool:
    """Whether the folder of a run holds a state to go on from."""
    return (folder / STATE_FILE).exists()


def save_state(folder: Path, progress: Progress, recipe: Recipe[Any]) -> None:
    """Write the whole state, atomically.

    Raises:
        OSError: naming the file; the state that stood there is then unharmed.
    """
    content: dict[str, Any] = {
        "format": _FORMAT,
        "config": recipe.config.as_dict(),
        "progress": asdict(progress),
        "rng": _random_state(),
        **recipe.state(),
    }
    write_checkpoint(folder / STATE_FILE, content)


def save_networks(folder: Path, label: str, recipe: Recipe[Any]) -> None:
    """Write ``<label>_net_G.pth`` and those of the other networks, each with the configuration inside.

    Raises:
        OSError: naming the file; what stood there is then unharmed.
    """
    for name, net in recipe.networks.items():
        save_weights(folder / f"{label}_net_{name}.pth", net.state_dict(), recipe.config.as_dict())


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


def restore(content: Mapping[str, Any], recipe: Recipe[Any]) -> Progress:
    """Bring networks, optimisers, pool and random numbers to where ``save_state`` found them.

    Raises:
        CheckpointError: the state is of another network.
    """
    progress = Progress(**content["progress"])
    try:
        recipe.begin_epoch(progress.epoch)
        recipe.load_state(content)
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"the training state does not fit: {error}") from error
    torch.set_rng_state(content["rng"]["cpu"])
    if "cuda" in content["rng"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(content["rng"]["cuda"])
    return progress


def _random_state() -> dict[str, Any]:
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state
