"""Fences, walls, rails, bins, and the bonnet of one's own car."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from torchp2p.data.scene import labels
from torchp2p.data.scene.canvas import Canvas, Point, band, edge, lay, ramp, rgb
from torchp2p.data.scene.ground import Ground
from torchp2p.data.scene.texture import Array, noise
from torchp2p.data.scene.thing import Lining, Standing


@dataclass(frozen=True)
class Barrier(Lining):
    """A fence (upright bars), a wall or a guard rail along a ground line.

    Args:
        kind: its label: FENCE, WALL or GUARD_RAIL.
    """

    kind: int
    height: float
    colour: Array
    shift: float

    def draw(self, canvas: Canvas) -> None:
        """Paint it. One can look through the bars of a fence, but its label is solid."""
        patch = canvas.panel(self.start, self.end, self.height)
        if patch is None:
            return
        u, v, foot = patch.u, patch.v, patch.foot
        grain = noise(5.0, 16).sample(u + self.shift, v, patch.scale)
        colour = self.colour * ((1 + grain * 0.1) * patch.light)
        whole = band(v, 0.0, self.height, foot)
        if self.kind == labels.FENCE:
            cell = u * (1 / 0.16)
            bars = band(cell - np.floor(cell), 0.25, 0.6, np.minimum(patch.foot_u / 0.16, 1))
            rails = band(v, 0.15, 0.25, foot) + band(v, self.height - 0.22, self.height - 0.12, foot)
            canvas.paint(patch, whole * np.maximum(bars, rails), colour, self.kind, solid=whole)
        elif self.kind == labels.GUARD_RAIL:
            cell = u * (1 / 4.0)
            posts = band(cell - np.floor(cell), 0.48, 0.52, patch.foot_u / 4)
            rail = band(v, self.height * 0.55, self.height, foot)
            colour *= 0.8 + band(v, self.height * 0.7, self.height * 0.85, foot) * 0.3
            canvas.paint(patch, whole * np.maximum(posts, rail), colour, self.kind, solid=whole)
        else:
            course = v * (1 / 0.3)
            seam = band(course - np.floor(course), 0.0, 0.1, foot / 0.3) * ramp(1.3 - foot * 12)
            colour *= 1 - seam * 0.2
            colour *= 1 + band(v, self.height - 0.12, self.height, foot) * 0.2
            canvas.paint(patch, whole, colour, self.kind)


@dataclass(frozen=True)
class Bin(Standing):
    """A litter bin (label static)."""

    colour: Array

    def shade(self, ground: Ground, fall: Point) -> None:
        """Cast the shadow, as `Thing.shade` says."""
        ground.cast(self.place, self.fallen(1.0, fall), 0.22, 0.1, 0.8)

    def draw(self, canvas: Canvas) -> None:
        """Paint a drum with a dark lid."""
        patch = canvas.billboard(*self.place, 0.6, 1.05)
        if patch is None:
            return
        side = 0.95 + patch.u * canvas.sun.side
        colour = self.colour * (patch.light * side) * (1 - band(patch.v, 0.86, 0.94, patch.foot) * 0.6)
        cover = band(patch.u, -0.26, 0.26, patch.foot) * band(patch.v, 0.0, 1.0, patch.foot)
        canvas.paint(patch, cover, colour, labels.STATIC)


@dataclass(frozen=True)
class Bonnet:
    """The front of the car that carries the camera; rise: share of the picture's height it takes."""

    rise: float

    def draw(self, canvas: Canvas) -> None:
        """Paint it over everything: a dark curve that mirrors the sky."""
        height, width = canvas.camera.size
        first = int(height * (1 - self.rise))
        across = (np.arange(width, dtype=np.float32)[None] + 0.5) * (2 / width) - 1
        down = (np.arange(first, height, dtype=np.float32)[:, None] + 0.5) * (1 / height)
        depth = (down - (1 - self.rise)) * (1 / self.rise) - across * across * 0.55
        cover = edge(depth * self.rise, 1 / height)
        colour = rgb(46, 50, 58) + rgb(120, 132, 146) * ramp(1 - depth * 2) * 0.6
        view = canvas.image[:, first:]
        lay(view, colour, cover)
        own = cover >= 0.5
        canvas.label[first:][own] = labels.EGO_VEHICLE
        canvas.owner[first:][own] = 0
