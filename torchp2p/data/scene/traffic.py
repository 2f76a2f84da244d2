"""Draws of whatever moves: vehicles, people, cyclists."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from torchp2p.data.scene import palette
from torchp2p.data.scene.canvas import Point
from torchp2p.data.scene.dice import Dice
from torchp2p.data.scene.figures import Cyclist, Person
from torchp2p.data.scene.ground import Road
from torchp2p.data.scene.vehicles import BUS, HATCHBACK, SALOON, TRUCK, VAN, Body, Vehicle

LANE = 3.2  # metres


def draw_car(
    dice: Dice, road: Road, s: float, z: float, way: int, bodies: tuple[Body, ...] = (HATCHBACK, SALOON, VAN)
) -> Vehicle:
    """A vehicle on the road at (s, z), heading away (way 1) or towards the camera (-1)."""
    body = dice.pick(bodies)
    lean = 2 * road.bend * z
    norm = way / math.sqrt(1 + lean * lean)
    paint = dice.pick(palette.BUSES if body is BUS else palette.PAINTS)
    return Vehicle(road.place(s, z), body, (lean * norm, norm), paint, dice.pick(palette.BOXES))


def draw_person(dice: Dice, place: Point) -> Person:
    """Somebody on foot."""
    return Person(
        place=place,
        height=dice.between(1.55, 1.88),
        step=dice.between(-1, 1),
        coat=dice.chance(0.3),
        skin=dice.pick(palette.SKINS),
        hair=dice.pick(palette.HAIRS),
        top=dice.pick(palette.TOPS),
        trousers=dice.pick(palette.TROUSERS),
    )


def draw_cyclist(dice: Dice, place: Point, way: int, rider: bool) -> Cyclist:
    """A bicycle with or without somebody on it."""
    return Cyclist(
        place=place,
        way=way,
        rider=rider,
        frame=dice.pick(palette.PAINTS),
        skin=dice.pick(palette.SKINS),
        hair=dice.pick(palette.HAIRS),
        top=dice.pick(palette.TOPS),
        trousers=dice.pick(palette.TROUSERS),
    )


def draw_traffic(dice: Dice, road: Road) -> Iterator[Vehicle | Person | Cyclist]:
    """What is on the road: lanes of vehicles, a cyclist, and those who cross."""
    density = dice.between(0, 1)
    for lane in range(-round(road.half / LANE), round(road.half / LANE)):
        yield from _lane(dice, road, (lane + 0.5) * LANE, density)
    z = dice.between(9, 30)
    cyclist = draw_cyclist(dice, road.place(road.half - 0.6, z), 0, rider=True)
    if dice.chance(0.25) and not _in_crossing(road, z, 3):
        yield cyclist
    if road.crossing:
        yield from _crossing(dice, road, *road.crossing)


def _in_crossing(road: Road, z: float, margin: float) -> bool:
    crossing = road.crossing
    return crossing is not None and crossing[0] - margin < z < crossing[1] + margin


def _lane(dice: Dice, road: Road, s: float, density: float) -> Iterator[Vehicle]:
    """Vehicles one behind the other, none too near the camera."""
    way = 1 if s > 0 else -1
    own = abs(s - road.offset) < 2.5
    z = dice.between(11, 26) if own else dice.between(7, 22)
    while z < 65:
        bodies = (HATCHBACK, SALOON, VAN) * 4 + ((BUS, TRUCK) if z > 16 else ())
        vehicle = draw_car(dice, road, s + dice.between(-0.25, 0.25), z + 2.5, way, bodies)
        half = vehicle.body.length / 2
        if dice.chance(0.25 + 0.6 * density) and z + half < road.end - 12 and not _in_crossing(road, z + 2.5, half + 5):
            yield vehicle
        z += vehicle.body.length + dice.between(3, 24)


def _crossing(dice: Dice, road: Road, start: float, end: float) -> Iterator[Vehicle | Person | Cyclist]:
    """Vehicles on the other road, people and a cyclist on the zebra."""
    middle = (start + end) / 2
    for z, way in ((middle - 1.8, 1), (middle + 1.8, -1)):
        car = draw_car(dice, road, 0.0, z, 1)
        x = dice.between(-0.5, 0.5) * z
        if dice.chance(0.4):
            yield replace(car, place=(x, z), heading=(float(way), 0.0))
    z = start - 2.8
    for _ in range(round(dice.between(0, 3.4))):
        yield draw_person(dice, road.place(dice.between(-1.1, 1.1) * road.half, z + dice.between(-1, 1)))
    cyclist = draw_cyclist(dice, road.place(dice.between(-1, 1) * road.half, z), dice.pick((-1, 1)), rider=True)
    if dice.chance(0.3):
        yield cyclist
