"""Trees, hedges and the far tree line: foliage in the light."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from torchp2p.data.scene import labels
from torchp2p.data.scene.canvas import Canvas, Patch, Point, edge, ramp, rgb
from torchp2p.data.scene.ground import Ground
from torchp2p.data.scene.texture import Array, foliage, noise
from torchp2p.data.scene.thing import Lining, Standing

SHADE, LIT, BARK = rgb(26, 40, 18), rgb(118, 142, 58), rgb(92, 76, 60)


def leaves(canvas: Canvas, patch: Patch, shift: float) -> Array:
    """The foliage texture on a panel, lit from the side of the sun, 0 to 1."""
    way = -canvas.sun.side
    return foliage().sample(patch.u * way + shift, -patch.v, patch.scale)


def green(amount: Array, tint: float) -> Array:
    """Albedo of foliage by how much light reaches it; tint -1 (bluish, dark) to 1 (yellowish)."""
    lit = LIT * np.array([1 + 0.18 * tint, 1 + 0.08 * tint, 1 - 0.05 * tint], np.float32)[:, None, None]
    colour: Array = SHADE + (lit - SHADE) * ramp(amount)
    return colour


@dataclass(frozen=True)
class Tree(Standing):
    """A trunk and a crown of lobes.

    Args:
        height, radius: metres of the whole tree and of its crown.
        stem: height where the crown begins.
        lobes: (u, v, ru, rv) of ellipses in units of the crown: u, v in -1..1.
        tint: see `green`. shift: moves the texture.
    """

    height: float
    radius: float
    stem: float
    lobes: tuple[tuple[float, float, float, float], ...]
    tint: float
    shift: float

    def shade(self, ground: Ground, fall: Point) -> None:
        """Cast the shadow, as `Thing.shade` says."""
        crown = self.fallen(self.height * 0.6, fall)
        ground.cast(crown, crown, self.radius * 0.75, self.radius * 0.35, 0.85)
        ground.cast(self.place, crown, 0.12 + 0.02 * self.radius, 0.1, 0.8)

    def draw(self, canvas: Canvas) -> None:
        """Paint the trunk, then the crown."""
        patch = canvas.billboard(*self.place, 2.5 * self.radius, self.height * 1.06)
        if patch is None:
            return
        thick = (0.06 + 0.015 * self.height) * (1.25 - patch.v * (0.6 / self.height))
        stem = edge(thick - np.abs(patch.u), patch.foot) * (patch.v < self.stem + self.radius * 0.6) * (patch.v > 0)
        side = ramp(0.5 + patch.u * (canvas.sun.side / 2) / thick)
        canvas.paint(
            patch,
            stem,
            BARK * (patch.light * (0.45 + side * 0.65)),
            labels.VEGETATION,
        )
        self._crown(canvas, patch)

    def _crown(self, canvas: Canvas, patch: Patch) -> None:
        tall = (self.height - self.stem) / 2
        u, v = patch.u * (1 / self.radius), patch.v * (1 / tall) - (self.stem / tall + 1)
        inside = np.full(v.shape, -9.0, np.float32)
        lit = np.zeros(v.shape, np.float32)
        for lobe_u, lobe_v, wide, high in self.lobes:
            du, dv = (
                (u - lobe_u) * (1 / wide),
                (v - lobe_v) * (1 / high),
            )
            here = 1 - du * du - dv * dv
            front = here > inside
            np.copyto(inside, here, where=front)
            np.copyto(lit, dv * 0.34 + du * (0.2 * canvas.sun.side), where=front)
        clump = leaves(canvas, patch, self.shift)
        ragged = noise(5.0).sample(patch.u + self.shift, patch.v, patch.scale)
        inside += ragged * 0.28 + (clump - 0.5) * 0.45
        cover = ramp(inside * (self.radius * 0.3) / patch.foot + 0.5)
        whole = 0.34 + v * 0.14 + u * (0.08 * canvas.sun.side)
        amount = whole + lit * 0.7 + (clump - 0.45) * 0.62
        canvas.paint(patch, cover, green(amount, self.tint) * patch.light, labels.VEGETATION)


@dataclass(frozen=True)
class Hedge(Lining):
    """A wall of leaves along a ground line; rough: how much its top wavers, metres."""

    height: float
    rough: float
    tint: float
    shift: float

    def draw(self, canvas: Canvas) -> None:
        """Paint it, darker towards the ground."""
        patch = canvas.panel(self.start, self.end, self.height + self.rough)
        if patch is None:
            return
        u = patch.u + self.shift
        waver = noise(24.0, 8).sample(u * (1 / max(self.rough, 0.25)), 0 * u, patch.scale)
        clump = leaves(canvas, patch, self.shift)
        top = self.height + waver * (self.rough * 0.6)
        cover = edge(top + (clump - 0.5) * (0.3 * self.rough + 0.1) - patch.v, patch.foot)
        cover *= edge(patch.v, patch.foot)
        if self.rough > 1:  # a forest: whole crowns, the same leaves seven times as large
            crowns = foliage().sample(u * (1 / 7), -patch.v * (1 / 9), patch.scale / 7)
            clump = clump * 0.55 + crowns * 0.6 - 0.03
            jut = foliage().sample(0 * patch.u + self.shift, -patch.v * (1 / 7), patch.scale / 7)
            cover *= edge(patch.u - self.rough * jut, patch.foot)
        amount = 0.12 + ramp(patch.v / top) * 0.36 + (clump - 0.45) * 0.6
        canvas.paint(patch, cover, green(amount, self.tint) * patch.light, labels.VEGETATION)
