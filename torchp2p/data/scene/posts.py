"""Poles: street lamps, traffic lights and signs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from torchp2p.data.scene import labels
from torchp2p.data.scene.canvas import Canvas, Point, band, edge, lay, rgb
from torchp2p.data.scene.figures import Stroke, stroke_figure
from torchp2p.data.scene.ground import Ground
from torchp2p.data.scene.thing import Standing

STEEL, HOUSING = rgb(134, 138, 140), rgb(44, 46, 48)
RED, WHITE, BLUE = rgb(186, 44, 40), rgb(236, 236, 232), rgb(40, 88, 170)
LENSES = (rgb(214, 40, 34), rgb(236, 168, 40), rgb(56, 190, 110))
SIGN = 0.36  # metres: half the size of a sign


@dataclass(frozen=True)
class Pole(Standing):
    """A bare pole; height in metres."""

    height: float

    def shade(self, ground: Ground, fall: Point) -> None:
        """Cast the shadow, as `Thing.shade` says."""
        ground.cast(self.place, self.fallen(self.height, fall), 0.05, 0.06, 0.75)

    def draw(self, canvas: Canvas) -> None:
        """Paint it."""
        self._paint_strokes(canvas, [(0.0, 0.0, 0.0, self.height, 0.045, 0.0)], 0.2)

    def _paint_strokes(self, canvas: Canvas, strokes: list[Stroke], width: float) -> None:
        patch = canvas.billboard(*self.place, width, self.height + 0.6)
        if patch is not None:
            stroke_figure(canvas, patch, 1.0, strokes, [STEEL] * len(strokes), labels.POLE)


@dataclass(frozen=True)
class Lamp(Pole):
    """A street lamp; way: -1 or 1, the side to which it reaches over the road."""

    way: int

    def draw(self, canvas: Canvas) -> None:
        """Paint pole, arm and lamp."""
        top, way = self.height, self.way
        arm: Stroke = (0.0, top, way * 1.7, top + 0.35, 0.05, 0.0)
        head: Stroke = (way * 1.5, top + 0.3, way * 2.0, top + 0.36, 0.1, 0.0)
        self._paint_strokes(canvas, [(0.0, 0.0, 0.0, top, 0.07, 0.0), arm, head], 4.4)


@dataclass(frozen=True)
class TrafficLight(Pole):
    """A traffic light; burning: 0 red, 1 amber, 2 green."""

    burning: int

    def draw(self, canvas: Canvas) -> None:
        """Paint the pole, then the housing with its three lenses."""
        super().draw(canvas)
        patch = canvas.billboard(*self.place, 0.42, self.height + 0.3, self.height - 0.8)
        if patch is None:
            return
        colour = HOUSING * patch.light + 0 * patch.v
        for k, lens in enumerate(LENSES):
            dv = patch.v - (self.height + 0.08 - 0.33 * k)
            disc = edge(0.12 - np.sqrt(patch.u * patch.u + dv * dv), patch.foot)
            lay(colour, lens if k == self.burning else lens * 0.12, disc)
        cover = band(patch.v, self.height - 0.75, self.height + 0.25, patch.foot)
        canvas.paint(patch, cover, colour, labels.TRAFFIC_LIGHT)


@dataclass(frozen=True)
class Sign(Pole):
    """A traffic sign; shape: "round" or "triangle" (white in red), "square" (blue in white)."""

    shape: str

    def draw(self, canvas: Canvas) -> None:
        """Paint the pole, then the sign."""
        super().draw(canvas)
        patch = canvas.billboard(*self.place, 2 * SIGN, self.height + SIGN, self.height - SIGN)
        if patch is None:
            return
        u, v = abs(patch.u), patch.v - self.height
        rim, face = RED, WHITE
        if self.shape == "round":
            inside = SIGN - np.sqrt(u * u + v * v)
        elif self.shape == "triangle":
            inside = np.minimum((SIGN - v) * 0.45 - u * 0.9, v + SIGN * 0.8)
        else:
            inside = SIGN - np.maximum(u, abs(v))
            rim, face = WHITE, BLUE
        colour = (rim + (face - rim) * edge(inside - 0.07, patch.foot)) * patch.light
        canvas.paint(patch, edge(inside, patch.foot), colour, labels.TRAFFIC_SIGN)
