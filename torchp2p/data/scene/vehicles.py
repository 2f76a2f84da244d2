"""Cars, vans, buses and trucks: a side, an end and a cabin, each an upright panel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from torchp2p.data.scene import labels
from torchp2p.data.scene.canvas import Canvas, Patch, Point, band, edge, lay, ramp, rgb
from torchp2p.data.scene.ground import Ground
from torchp2p.data.scene.texture import Array
from torchp2p.data.scene.thing import Standing

GLASS, GLASS_SKY, RUBBER, METAL = rgb(34, 40, 48), rgb(138, 156, 172), rgb(30, 30, 32), rgb(150, 152, 156)
FINE = 0.15  # metres per pixel: what is smaller on the picture gets no small parts
TAIL, HEAD, PLATE, CHROME = rgb(176, 32, 28), rgb(238, 238, 226), rgb(216, 216, 210), rgb(70, 72, 76)


@dataclass(frozen=True)
class Body:
    """The shape of a kind of vehicle, in metres.

    Args:
        roof: side view, (share of the length from the rear, height) corners of the upper outline.
        glass: side view, the same of the upper outline of the windows; they begin at `belt`.
        belt: height of the lower edge of the windows.
        inset: how far the cabin stands back at the rear and at the front; 0 for no bonnet.
        pillars: shares of the length where the windows of the side are parted.
        cargo: share of the length, from the rear, that is a closed box; 0 for none.
    """

    label: int
    length: float
    width: float
    height: float
    roof: tuple[tuple[float, float], ...]
    glass: tuple[tuple[float, float], ...]
    belt: float
    inset: tuple[float, float]
    pillars: tuple[float, ...]
    wheel: float
    axles: tuple[float, ...]
    cargo: float = 0.0

    @property
    def clearance(self) -> float:
        """Metres between the ground and the body."""
        return 0.22 if self.height < 2.5 else 0.44


HATCHBACK = Body(
    labels.CAR,
    length=4.1,
    width=1.76,
    height=1.48,
    roof=(
        (0, 0.95),
        (0.02, 1.05),
        (0.1, 1.42),
        (0.3, 1.48),
        (0.52, 1.45),
        (0.74, 0.98),
        (0.97, 0.78),
        (1, 0.6),
    ),
    glass=((0.08, 0.95), (0.16, 1.34), (0.5, 1.37), (0.68, 0.95)),
    belt=0.95,
    inset=(0.41, 1.75),
    pillars=(0.34, 0.52),
    wheel=0.32,
    axles=(0.19, 0.8),
)
SALOON = Body(
    labels.CAR,
    length=4.7,
    width=1.82,
    height=1.44,
    roof=((0, 0.9), (0.02, 1), (0.16, 1.04), (0.3, 1.41), (0.42, 1.44), (0.54, 1.4), (0.72, 0.98), (1, 0.66)),
    glass=((0.2, 0.97), (0.31, 1.33), (0.53, 1.33), (0.67, 0.97)),
    belt=0.97,
    inset=(1.2, 2.0),
    pillars=(0.44,),
    wheel=0.33,
    axles=(0.2, 0.81),
)
VAN = Body(
    labels.CAR,
    length=4.8,
    width=1.9,
    height=1.95,
    roof=((0, 1), (0.02, 1.85), (0.06, 1.95), (0.64, 1.93), (0.84, 1.15), (0.98, 0.95), (1, 0.65)),
    glass=((0.05, 1.1), (0.06, 1.72), (0.62, 1.74), (0.8, 1.1)),
    belt=1.1,
    inset=(0.1, 1.4),
    pillars=(0.34, 0.58),
    wheel=0.34,
    axles=(0.18, 0.81),
)
BUS = Body(
    labels.BUS,
    length=11.5,
    width=2.5,
    height=3.1,
    roof=((0, 2.9), (0.01, 3.1), (0.99, 3.1), (1, 2.8)),
    glass=((0.02, 2.5), (0.98, 2.5)),
    belt=1.15,
    inset=(0, 0),
    pillars=(0.17, 0.33, 0.49, 0.65, 0.81, 0.9),
    wheel=0.48,
    axles=(0.24, 0.77),
)
TRUCK = Body(
    labels.TRUCK,
    length=8.0,
    width=2.4,
    height=3.4,
    roof=((0, 3.4), (0.73, 3.4), (0.735, 2.55), (0.95, 2.5), (1, 1.5)),
    glass=((0.82, 1.5), (0.83, 2.3), (0.95, 2.3), (0.98, 1.5)),
    belt=1.5,
    inset=(0, 0),
    pillars=(),
    wheel=0.46,
    axles=(0.16, 0.3, 0.84),
    cargo=0.73,
)


@dataclass(frozen=True)
class Vehicle(Standing):
    """A vehicle; its place is its middle.

    Args:
        heading: unit vector (X, Z) it drives towards.
        paint: albedo of the body. box: albedo of the cargo box.
    """

    body: Body
    heading: Point
    paint: Array
    box: Array

    def corner(self, ahead: float, right: float) -> Point:
        """A point `ahead` and `right` of the middle, metres."""
        (x, z), (hx, hz) = self.place, self.heading
        return (x + ahead * hx + right * hz, z + ahead * hz - right * hx)

    def shade(self, ground: Ground, fall: Point) -> None:
        """Cast the shadow, as `Thing.shade` says."""
        body, reach = self.body, self.body.height * 0.55
        half = body.length / 2 - body.width / 2 + 0.1
        start, end = self.corner(-half, 0), self.corner(half, 0)
        ground.cast(start, end, body.width / 2, 0.2, 1.55)
        shifted = [(x + fall[0] * reach, z + fall[1] * reach) for x, z in (start, end)]
        ground.cast(shifted[0], shifted[1], body.width / 2, 0.25, 0.9)

    def draw(self, canvas: Canvas) -> None:
        """Paint what can be seen: the cabin's end, a side, the end."""
        owner = canvas.new_owner(self.body.label)
        length, half = self.body.length / 2, self.body.width / 2
        (x, z), (hx, hz) = self.place, self.heading
        ahead, right = x * hx + z * hz, x * hz - z * hx  # how far the camera is behind it, and to its left
        way = -1 if ahead > length else 1 if ahead < -length else 0
        side = half if right < -half else -half if right > half else 0.0
        if way and self.body.inset[way > 0]:
            self._cabin(canvas, way * (length - self.body.inset[way > 0]), side, owner)
        if side:
            patch = canvas.panel(self.corner(-length, side), self.corner(length, side), self.body.height)
            if patch is not None:
                self._side(canvas, patch, owner)
        if way:
            self._end(canvas, way, owner)

    def _sheen(self, patch: Patch) -> Array:
        """Light on the painted body: brighter where it turns to the sky, dark near the ground."""
        level = patch.v * (1 / self.body.belt)
        shade: Array = 0.55 + ramp(level) * 0.45
        if patch.scale < FINE:
            shade += band(level, 0.82, 1.02, patch.foot) * 0.1
        return shade * patch.light

    def _pane(self, patch: Patch) -> Array:
        """Glass that mirrors the sky the more the higher."""
        rise = ramp((patch.v - self.body.belt) * (1 / (self.body.height - self.body.belt)))
        pane: Array = (GLASS + (GLASS_SKY - GLASS) * (rise * rise * 0.55 + 0.08)) * patch.light
        return pane

    def _side(self, canvas: Canvas, patch: Patch, owner: int) -> None:
        """Body under the roof line, windows, doors, wheels and the edges of the lamps."""
        body, foot, light, u, v = self.body, patch.foot, patch.light, patch.u, patch.v
        cover = _below(patch, body.length, body.roof) * edge(v - body.clearance, foot)
        colour = self.paint * self._sheen(patch)
        if body.cargo:
            box = edge(body.cargo * body.length - u, patch.foot_u) * edge(v - 0.95, foot)
            lay(colour, self.box * light, box)
        glass = _below(patch, body.length, body.glass) * edge(v - body.belt, foot)
        if patch.scale < FINE:
            for pillar in body.pillars:
                at = u - pillar * body.length
                glass *= 1 - band(at, -0.05, 0.05, patch.foot_u)
                colour *= 1 - band(at, -0.02, 0.02, patch.foot_u) * edge(body.belt - v, foot) * 0.35
            lamps = band(v, body.belt * 0.68, body.belt * 0.86, foot)
            lay(colour, TAIL * light, lamps * edge(0.14 - u, patch.foot_u))
            lay(colour, HEAD * light, lamps * edge(u - body.length + 0.2, patch.foot_u))
        lay(colour, self._pane(patch), glass)
        du, dv = u - np.array(body.axles, np.float32)[:, None, None] * body.length, v - body.wheel
        distance = np.sqrt(du * du + dv * dv).min(axis=0)
        lay(colour, RUBBER * light * 0.8, edge(body.wheel * 1.16 - distance, foot))
        lay(colour, METAL * light * 0.75, edge(body.wheel * 0.6 - distance, foot))
        canvas.paint(patch, np.maximum(cover, edge(body.wheel - distance, foot)), colour, body.label, owner)

    def _cabin(self, canvas: Canvas, ahead: float, shown: float, owner: int) -> None:
        """The cabin's end above the belt; narrows to the roof but where it meets the side that is shown."""
        body, half = self.body, self.body.width / 2
        patch = canvas.panel(self.corner(ahead, -half), self.corner(ahead, half), body.height, body.belt * 0.6)
        if patch is None:
            return
        rise = ramp((patch.v - body.belt) * (1 / (body.height - body.belt)))
        offset = patch.u - half
        aside = abs(offset)
        narrow = half * (0.97 - rise * rise * 0.26) - aside
        joined = offset * shown > 0
        top = body.height - 0.09 / (half * half) * aside * aside * ~joined
        colour = self.paint * (patch.light * (0.95 + rise * 0.1))
        pane = edge(narrow - 0.1, patch.foot) * band(patch.v, body.belt, body.height - 0.13, patch.foot)
        lay(colour, self._pane(patch), pane)
        cover = np.maximum(edge(narrow, patch.foot), joined) * edge(top - patch.v, patch.foot)
        canvas.paint(patch, cover, colour, body.label, owner)

    def _end(self, canvas: Canvas, way: int, owner: int) -> None:
        """The front (way 1) or rear (-1): body, wheels, lamps, plate; a window if there is no bonnet."""
        body, half = self.body, self.body.width / 2
        full = body.inset[way > 0] == 0
        top = body.height if full else body.belt + 0.03
        left, right = (self.corner(way * body.length / 2, side) for side in (-half, half))
        patch = canvas.panel(left, right, top)
        if patch is None:
            return
        foot, light, v, aside = patch.foot, patch.light, patch.v, abs(patch.u - half)
        bend = ramp((v - (top - 0.3)) * (1 / 0.3))
        cover = edge(half - bend * bend * 0.14 - aside, foot) * band(v, body.clearance, top, foot)
        if full and way < 0 and body.cargo:
            colour = self.box * self._sheen(patch)
            colour *= 1 - edge(0.03 - aside, foot) * 0.4
        else:
            colour = self.paint * self._sheen(patch)
            if full:
                window = edge(half - 0.16 - aside, foot) * band(v, body.belt + 0.1, body.height - 0.5, foot)
                lay(colour, self._pane(patch), window)
        low = min(body.belt * 0.66, 0.8)
        lamps = band(v, low, low + 0.2, foot) * band(aside, half * 0.66, half * 0.97, foot)
        lay(colour, (HEAD if way > 0 else TAIL) * (light * 0.4 + 0.6), lamps)
        if patch.scale < FINE:
            lay(colour, CHROME * light, band(v, body.clearance, body.clearance + 0.18, foot) * 0.75)
            lay(colour, PLATE * light, band(v, low - 0.14, low - 0.02, foot) * edge(0.28 - aside, foot))
            if way > 0:
                grille = band(v, low, low + 0.16, foot) * edge(0.4 * half + 0.1 - aside, foot)
                lay(colour, CHROME * light * 0.5, grille)
        wheels = band(v, 0.0, body.clearance + 0.06, foot) * band(aside, half - 0.32, half - 0.06, foot)
        lay(colour, RUBBER * light * 0.7, wheels * (1 - cover))
        canvas.paint(patch, np.maximum(cover, wheels), colour, body.label, owner)


def _below(patch: Patch, length: float, corners: tuple[tuple[float, float], ...]) -> Array:
    """Coverage of what lies under a line of (share of the length, height) corners, nothing beyond its ends."""
    places, heights = np.array(corners, np.float32).T
    places = places * length
    slopes = (heights[1:] - heights[:-1]) / (places[1:] - places[:-1])
    piece = (np.searchsorted(places, patch.u) - 1).clip(0, len(slopes) - 1)
    slope = slopes[piece]
    height = heights[piece] + (patch.u - places[piece]) * slope
    within = (patch.u >= places[0]) & (patch.u <= places[-1])
    cover: Array = edge(height - patch.v, patch.foot * np.sqrt(1 + slope * slope)) * within
    return cover
