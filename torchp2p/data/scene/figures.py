"""People and bicycles: figures of rounded strokes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from torchp2p.data.scene import labels
from torchp2p.data.scene.canvas import Canvas, Patch, Point, edge, lay, ramp
from torchp2p.data.scene.ground import Ground
from torchp2p.data.scene.texture import Array
from torchp2p.data.scene.thing import Standing

Stroke = tuple[float, float, float, float, float, float]  # from u, v to u, v; radius; radius of the ring it thickens


def stroke_figure(
    canvas: Canvas,
    patch: Patch,
    size: float,
    strokes: list[Stroke],
    colours: list[Array],
    label: int,
    owner: int = 0,
) -> None:
    """Paint strokes, in units of `size` metres, over one another as one object.

    A stroke of no length is a disc, or a ring; one can look through a ring, but its label is solid.
    """
    shape = np.array(strokes, np.float32).T[:, :, None, None] * size
    u0, v0, u1, v1, radius, ring = shape
    du, dv = u1 - u0, v1 - v0
    length = du * du + dv * dv
    u, v = patch.u - u0, patch.v - v0
    along = ramp((u * du + v * dv) / np.where(length > 0, length, 1))
    u, v = u - along * du, v - along * dv
    outside = np.sqrt(u * u + v * v) - ring
    solid = edge(radius - outside, patch.foot).max(axis=0)
    covers = edge(radius - abs(outside), patch.foot)
    covers *= np.minimum(radius * 2 / patch.foot[:, :1], 1)
    round_side = ramp(0.5 + u / (radius * 2)) - 0.5
    shades = patch.light[:, None] * (0.9 + round_side * (0.45 * canvas.sun.side))
    colour = np.zeros((3, *patch.v.shape), np.float32)
    total = np.zeros(patch.v.shape, np.float32)
    for k, albedo in enumerate(colours):
        lay(colour, albedo * shades[:, k], covers[k])
        np.maximum(total, covers[k], out=total)
    canvas.paint(patch, total, colour / np.maximum(total, 1e-3), label, owner, solid)


@dataclass(frozen=True)
class Person(Standing):
    """Somebody on foot. step: -1..1, how far the legs are apart; coat: the jacket reaches the knees."""

    height: float
    step: float
    coat: bool
    skin: Array
    hair: Array
    top: Array
    trousers: Array

    def shade(self, ground: Ground, fall: Point) -> None:
        """Cast the shadow, as `Thing.shade` says."""
        ground.cast(self.place, self.fallen(self.height, fall), 0.16, 0.1, 0.8)

    def draw(self, canvas: Canvas) -> None:
        """Paint legs, body, arms and head."""
        patch = canvas.billboard(*self.place, 0.62 * self.height, self.height * 1.04)
        if patch is None:
            return
        stride = 0.11 * self.step
        hem = 0.33 if self.coat else 0.47
        strokes = [
            (-0.04, 0.47, -0.05 - stride, 0.03, 0.042, 0.0),
            (0.04, 0.47, 0.05 + stride, 0.03, 0.042, 0.0),
            (-0.06 - stride, 0.015, -0.03 - stride, 0.015, 0.022, 0.0),
            (0.05 + stride, 0.015, 0.08 + stride, 0.015, 0.022, 0.0),
            (-0.11, 0.78, -0.135 + stride * 0.8, 0.48, 0.032, 0.0),
            (0.11, 0.78, 0.135 - stride * 0.8, 0.48, 0.032, 0.0),
            (-0.055, 0.77, -0.045, hem, 0.062, 0.0),
            (0.055, 0.77, 0.045, hem, 0.062, 0.0),
            (0.0, 0.8, 0.0, 0.87, 0.03, 0.0),
            (0.0, 0.925, 0.0, 0.945, 0.054, 0.0),
            (0.0, 0.902, 0.0, 0.925, 0.048, 0.0),
        ]
        dark = self.trousers * 0.4
        colours = [
            self.trousers,
            self.trousers,
            dark,
            dark,
            self.top,
            self.top,
            self.top,
            self.top,
            self.skin,
        ]
        colours += [self.hair, self.skin]
        stroke_figure(canvas, patch, self.height, strokes, colours, labels.PERSON, canvas.new_owner(labels.PERSON))


@dataclass(frozen=True)
class Cyclist(Standing):
    """Somebody on a bicycle, or (rider false) a bicycle left standing, seen from the side or from behind.

    Args:
        way: -1 rides to the left, 1 to the right, 0 away from the camera.
    """

    way: int
    rider: bool
    frame: Array
    skin: Array
    hair: Array
    top: Array
    trousers: Array

    def shade(self, ground: Ground, fall: Point) -> None:
        """Cast the shadow, as `Thing.shade` says."""
        x, z = self.place
        ground.cast((x - 0.6 * self.way, z), (x + 0.6 * self.way, z), 0.12, 0.1, 0.75)
        if self.rider:
            ground.cast(self.place, self.fallen(1.6, fall), 0.18, 0.12, 0.75)

    def draw(self, canvas: Canvas) -> None:
        """Paint the bicycle, then its rider."""
        patch = canvas.billboard(*self.place, 1.9 if self.way else 0.8, 1.85)
        if patch is None:
            return
        way = self.way
        bicycle, person = (_from_side(way), _rider_from_side(way)) if way else (_FROM_BEHIND, _RIDER_FROM_BEHIND)
        rubber = self.frame * 0.12
        paints = [rubber, rubber] + [self.frame] * (len(bicycle) - 2) if way else [rubber, rubber, self.frame]
        stroke_figure(canvas, patch, 1.0, bicycle, paints, labels.BICYCLE, canvas.new_owner(labels.BICYCLE))
        if self.rider:
            clothes = [self.trousers, self.trousers, self.top, self.top, self.top, self.hair, self.skin]
            stroke_figure(canvas, patch, 1.0, person, clothes, labels.RIDER, canvas.new_owner(labels.RIDER))


_FROM_BEHIND: list[Stroke] = [
    (0.0, 0.04, 0.0, 0.62, 0.03, 0.0),
    (0.0, 0.6, 0.0, 0.95, 0.025, 0.0),
    (-0.27, 1.02, 0.27, 1.02, 0.022, 0.0),
]
_RIDER_FROM_BEHIND: list[Stroke] = [
    (-0.1, 0.95, -0.12, 0.35, 0.07, 0.0),
    (0.1, 0.95, 0.12, 0.25, 0.07, 0.0),
    (-0.2, 1.38, -0.27, 1.05, 0.05, 0.0),
    (0.2, 1.38, 0.27, 1.05, 0.05, 0.0),
    (0.0, 1.0, 0.0, 1.34, 0.17, 0.0),
    (0.0, 1.64, 0.0, 1.66, 0.1, 0.0),
    (0.0, 1.53, 0.0, 1.58, 0.07, 0.0),
]


def _from_side(way: int) -> list[Stroke]:
    """Two wheels, the frame, the seat and the handlebar of a bicycle that faces `way`."""
    tubes = [
        (-0.52, 0.34, 0.0, 0.3),
        (0.0, 0.3, 0.36, 0.82),
        (-0.14, 0.82, 0.36, 0.8),
        (-0.14, 0.86, 0.0, 0.3),
    ]
    tubes += [
        (-0.52, 0.34, -0.14, 0.8),
        (0.52, 0.34, 0.38, 0.95),
        (0.38, 0.98, 0.3, 1.02),
        (-0.24, 0.92, -0.05, 0.92),
    ]
    wheels: list[Stroke] = [(way * u, 0.34, way * u, 0.34, 0.026, 0.32) for u in (-0.52, 0.52)]
    return wheels + [(way * u0, v0, way * u1, v1, 0.022, 0.0) for u0, v0, u1, v1 in tubes]


def _rider_from_side(way: int) -> list[Stroke]:
    """Two legs, the back, a shoulder, an arm, hair and face."""
    limbs = [(-0.14, 0.95, 0.12, 0.66, 0.075), (0.12, 0.66, 0.02, 0.2, 0.055), (-0.14, 1.0, 0.06, 1.4, 0.13)]
    limbs += [(0.04, 1.36, 0.08, 1.42, 0.1), (0.1, 1.36, 0.36, 1.04, 0.045), (0.1, 1.66, 0.11, 1.68, 0.105)]
    limbs += [(0.13, 1.58, 0.15, 1.62, 0.08)]
    return [(way * u0, v0, way * u1, v1, radius, 0.0) for u0, v0, u1, v1, radius in limbs]
