"""What the steps of both models ask of what they are given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from torchp2p.train.lean import Lean


def require_network(name: str, value: Any, *, optional: bool = False) -> None:
    """Raise TypeError unless ``value`` is a Module, or None where it is ``optional``."""
    if not isinstance(value, nn.Module) and not (optional and value is None):
        raise TypeError(f"{name} must be a torch.nn.Module, got {type(value).__name__}")


def require_lean(value: Any) -> None:
    """Raise TypeError unless ``value`` is a Lean."""
    if not isinstance(value, Lean):
        raise TypeError(f"lean must be a Lean, got {type(value).__name__}")


def required(batch: Mapping[str, Tensor], name: str) -> Tensor:
    """What ``batch`` holds under ``name``; raise ValueError where it holds nothing."""
    if name not in batch:
        there = ", ".join(map(repr, batch)) or "nothing"
        raise ValueError(f"batch must have {name!r} with these options, got {there}")
    return batch[name]
