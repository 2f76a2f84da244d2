"""Random draws of a scene."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


class Dice:
    """A stream of draws from (seed, stream); uses nothing of numpy but its uniform doubles."""

    def __init__(self, seed: int, stream: int) -> None:
        sequence = np.random.SeedSequence(seed, spawn_key=(stream,))
        self._draw = np.random.Generator(np.random.PCG64(sequence)).random

    def between(self, low: float, high: float) -> float:
        """A number, evenly from low to high."""
        return low + (high - low) * self._draw()

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self._draw() < probability

    def pick(self, items: Sequence[T]) -> T:
        """One of the items; all alike likely."""
        return items[math.floor(self._draw() * len(items))]
