"""Decoded samples kept in memory, because decoding a large PNG takes longer than everything else done to it."""

from __future__ import annotations

import threading

from torch.utils.data import get_worker_info

from torchp2p.data.images import Array


class PlaneCache:
    """The planes of samples, up to a number of bytes; what came first stays.

    Nothing is evicted: an epoch visits every sample once in random order, so a cache that is too small serves
    best if it always holds the same ones.

    It may be used by several threads. Worker processes of a loader that are forked share what is there when they
    start, and add nothing, because they end with the epoch; those that are spawned start with an empty one.

    Args:
        budget: bytes; 0 keeps nothing.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.used = 0
        self.full = budget == 0
        self._held: dict[int, dict[str, Array]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._held)

    def get(self, index: int) -> dict[str, Array] | None:
        """The planes of a sample, if they are held."""
        return self._held.get(index)

    def add(self, index: int, planes: dict[str, Array]) -> None:
        """Hold the planes of a sample, if they fit; from then on they are read-only."""
        size = sum(plane.nbytes for plane in planes.values())
        if self.full or get_worker_info() is not None:
            return
        with self._lock:
            if index in self._held:
                return
            self.full = self.used + size > self.budget
            if not self.full:
                for plane in planes.values():
                    plane.setflags(write=False)
                self._held[index] = planes
                self.used += size

    def __reduce__(self) -> tuple[type[PlaneCache], tuple[int]]:
        return PlaneCache, (self.budget,)
