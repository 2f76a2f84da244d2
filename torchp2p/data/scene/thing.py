"""What a scene is made of: things that cast shadows on the ground, then are painted, the farthest first."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torchp2p.data.scene.canvas import Canvas, Point
from torchp2p.data.scene.ground import Ground


class Thing(ABC):
    """Something upright."""

    @property
    @abstractmethod
    def distance(self) -> float:
        """Metres to it; what is farther is painted first."""

    def shade(self, ground: Ground, fall: Point) -> None:  # noqa: B027 (some things cast no shadow worth painting)
        """Cast its shadow; fall: where the shadow of a point one metre above the origin lies."""

    @abstractmethod
    def draw(self, canvas: Canvas) -> None:
        """Paint it."""


@dataclass(frozen=True)
class Standing(Thing):
    """A thing that stands in one place."""

    place: Point

    @property
    def distance(self) -> float:
        """The depth of its place."""
        return self.place[1]

    def fallen(self, height: float, fall: Point) -> Point:
        """Where the shadow of its point at this height lies."""
        return (self.place[0] + fall[0] * height, self.place[1] + fall[1] * height)


@dataclass(frozen=True)
class Lining(Thing):
    """A thing along a line on the ground."""

    start: Point
    end: Point

    @property
    def distance(self) -> float:
        """The depth of its middle."""
        return (self.start[1] + self.end[1]) / 2
