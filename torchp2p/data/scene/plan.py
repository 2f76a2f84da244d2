"""The plan of a scene: every random draw, made before the first pixel and the same for every picture size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from torchp2p.data.scene.buildings import Building
from torchp2p.data.scene.canvas import Camera, Sun
from torchp2p.data.scene.dice import Dice
from torchp2p.data.scene.furniture import Bonnet
from torchp2p.data.scene.ground import ROW_START, Road, Sky
from torchp2p.data.scene.plants import Hedge
from torchp2p.data.scene.roadside import (
    Roadside,
    draw_building,
    draw_roadside,
    furnish,
    row_of_buildings,
)
from torchp2p.data.scene.texture import Array
from torchp2p.data.scene.thing import Thing
from torchp2p.data.scene.traffic import LANE, draw_traffic

NO_END = 170.0  # metres: where a road that goes on is lost in the trees


@dataclass(frozen=True)
class View:
    """How the camera looks: its height in metres, the rest as shares of the picture (zoom: 1 is normal)."""

    zoom: float
    height: float
    horizon: float
    vanish: float

    def camera(self, size: tuple[int, int]) -> Camera:
        """The camera for a picture of (height, width) pixels; a wide picture shows more to the sides."""
        rows, cols = size
        shape = min(max(cols / rows, 0.5), 3.0)
        focal = rows * self.zoom * (0.55 + 0.45 * shape)
        return Camera(size, focal, self.height, self.horizon * rows, self.vanish * cols)


@dataclass(frozen=True)
class Plan:
    """A whole scene in metres.

    Args:
        things: everything upright, in groups of which each is painted before the next.
        shaded: the roadside with the sun behind it, skyline: the heights of its buildings.
        shift: moves the textures of the ground.
    """

    view: View
    sun: Sun
    sky: Sky
    road: Road
    things: tuple[Sequence[Thing], ...]
    bonnet: Bonnet | None
    shaded: Roadside
    skyline: Array
    shift: float


def draw_plan(seed: int) -> Plan:
    """Draw the scene number `seed`."""
    dice = Dice(seed, 0)
    view = View(
        zoom=dice.between(0.85, 1.25),
        height=dice.between(1.3, 2.3),
        horizon=dice.between(0.22, 0.72),
        vanish=dice.between(0.12, 0.88),
    )
    sun = _draw_sun(dice, view.vanish)
    sky = Sky(clouds=dice.between(0.0, 0.75), shift=dice.between(0, 14))
    half = LANE * dice.pick((1, 1, 1, 2))
    sides = [draw_roadside(Dice(seed, stream), side, half) for stream, side in ((1, -1), (2, 1))]
    road = _draw_road(dice, half, sides)
    rows = [row_of_buildings(Dice(seed, 3 + k), where, road) for k, where in enumerate(sides)]
    things = [thing for k, where in enumerate(sides) for thing in furnish(Dice(seed, 5 + k), where, road)]
    things += draw_traffic(Dice(seed, 7), road)
    return Plan(
        view=view,
        sun=sun,
        sky=sky,
        road=road,
        things=(
            _draw_backdrop(Dice(seed, 8), road, [where.name for where in sides]),
            rows[0] + rows[1],
            things,
        ),
        bonnet=Bonnet(dice.between(0.06, 0.13)) if dice.chance(0.3) and abs(road.offset) < half else None,
        shaded=sides[sun.side > 0],
        skyline=_skyline(rows[sun.side > 0]),
        shift=dice.between(0, 40),
    )


def _draw_sun(dice: Dice, vanish: float) -> Sun:
    """A high sun, mostly on the side the street runs to, so that the larger wall is the lit one."""
    towards = 1.0 if vanish > 0.5 else -1.0
    if dice.chance(0.15):
        towards = -towards
    x, y, z = towards * dice.between(0.45, 0.7), 0.8, dice.between(-0.6, -0.15)
    direct = np.array((0.62, 0.55, 0.45), np.float32)[:, None, None]
    ambient = np.array((0.45, 0.49, 0.56), np.float32)[:, None, None]
    return Sun((x, y, z), direct, ambient)


def _draw_road(dice: Dice, half: float, sides: list[Roadside]) -> Road:
    """Bend, lanes, crossing and end of the road, and where the camera stands on it or beside it."""
    bend = dice.between(-0.004, 0.004) * dice.between(0, 1)
    crossing: tuple[float, float] | None = None
    start, width = dice.between(12, 40), dice.between(7, 10)
    if dice.chance(0.45):
        crossing = (start, start + width)
    end = NO_END
    if dice.chance(0.22):
        end, bend = start + width + 12, 0.0
        crossing = (end - width, end)
    offset = dice.between(-0.6, 0.9) * half
    beside = dice.pick(sides)
    if dice.chance(0.4):
        room = beside.walk + (4 if beside.name == "country" else -0.9)
        offset = beside.side * dice.between(beside.parking, max(room, beside.parking))
    lines = [(0.0, dice.pick((3.0, 4.0, 9.0)))]
    lines += [(way * LANE, 3.0) for way in (-1, 1) if half > LANE]
    lines += [(way * (half - 0.35), 9.0) for way in (-1, 1) if sides[0].name == "country" or half > LANE]
    return Road(bend, offset, half, (sides[0].strips(), sides[1].strips()), tuple(lines), crossing, end)


def _skyline(buildings: list[Building]) -> Array:
    """Heights of a row of buildings every eighth of a metre of z, as `Ground.cast_row` wants them."""
    heights = np.zeros(2048, np.float32)
    for building in buildings:
        start, end = (int((point[1] - ROW_START) * 8) for point in building.front)
        heights[max(start, 0) : end] = building.height
    return heights


def _draw_backdrop(dice: Dice, road: Road, names: list[str]) -> list[Thing]:
    """What closes the view: a skyline and trees far away, and the front at the end of a road that ends."""
    backdrop: list[Thing] = []
    tall = sum({"tower": 1.0, "shops": 0.7}.get(name, 0.2) for name in names) / 2
    for _ in range(9):
        z = dice.between(200, 400)
        x = road.place(0, NO_END)[0] + dice.between(-0.7, 0.7) * z
        line = ((x, z), (x + dice.between(14, 40), z))
        backdrop.append(draw_building(dice, line, dice.between(8, 14 + 60 * tall), 0.0, 0.0, 0.0))
    backdrop.append(Hedge((-420.0, NO_END + 5), (420.0, NO_END + 5), dice.between(4, 8), 4.0, 0.0, dice.between(0, 50)))
    if road.end < NO_END:
        x, height = -75.0, dice.between(6, 20)
        while x < 75:
            line = ((x, road.end + 4), (x + dice.between(10, 20), road.end + 4))
            backdrop.append(draw_building(dice, line, height * dice.between(0.75, 1.3), 0.0, 0.2, 0.6))
            x = line[1][0]
    return backdrop
