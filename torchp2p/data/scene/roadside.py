"""What stands along one side of a street: the draws that make it a town, a suburb, a park or the country."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from torchp2p.data.scene import labels, palette
from torchp2p.data.scene.buildings import Building
from torchp2p.data.scene.canvas import Point
from torchp2p.data.scene.dice import Dice
from torchp2p.data.scene.figures import Cyclist, Person
from torchp2p.data.scene.furniture import Barrier, Bin
from torchp2p.data.scene.ground import Road
from torchp2p.data.scene.plants import Hedge, Tree
from torchp2p.data.scene.posts import Lamp, Pole, Sign, TrafficLight
from torchp2p.data.scene.thing import Thing
from torchp2p.data.scene.traffic import draw_car, draw_cyclist, draw_person
from torchp2p.data.scene.vehicles import Vehicle

FAR = 1e6  # metres: the last strip of ground has no end


@dataclass(frozen=True)
class Style:
    """A kind of roadside.

    Args:
        walk, lawn: range of the widths of sidewalk and of the grass behind it, metres.
        parking: chance of a strip of parked cars.
        heights: range of building heights; None for no buildings.
        gap: range of the gaps between buildings. pitched: chance of a pitched roof. shop: chance of shops.
        row, wood: chance of a row of street trees, and range of how many trees stand on the grass.
        edge: range of the distance from the sidewalk to the edge of a forest, None: there is none.
        people: mean number of people.
    """

    walk: tuple[float, float]
    lawn: tuple[float, float]
    parking: float
    heights: tuple[float, float] | None
    gap: tuple[float, float]
    pitched: float
    shop: float
    row: float
    wood: tuple[float, float]
    edge: tuple[float, float] | None
    people: float


STYLES = {
    "tower": Style((2.5, 5.5), (0, 0), 0.5, (13, 32), (-3, 1), 0.0, 0.7, 0.3, (0, 0), None, 3.5),
    "shops": Style((2.5, 6), (0, 0), 0.5, (7, 13), (-2, 2), 0.3, 0.8, 0.4, (0, 0), None, 4.0),
    "houses": Style((1.8, 2.6), (2.5, 8), 0.3, (3.6, 7), (3, 11), 0.85, 0.0, 0.1, (2, 5), None, 1.2),
    "park": Style((2, 3.5), (30, 30), 0.35, None, (0, 0), 0.0, 0.0, 0.5, (7, 12), (24, 60), 2.0),
    "country": Style((0, 0), (30, 30), 0.0, None, (0, 0), 0.0, 0.0, 0.0, (0, 5), (30, 60), 0.0),
    "forest": Style((0, 2), (30, 30), 0.1, None, (0, 0), 0.0, 0.0, 0.0, (2, 6), (3, 9), 0.5),
}
_NAMES = ("tower",) * 5 + ("shops",) * 3 + ("houses",) * 4 + ("park",) * 4 + ("country",) * 4 + ("forest",) * 3


@dataclass(frozen=True)
class Roadside:
    """One side of the street before anything stands on it. Distances |s| from the road's middle.

    Args:
        side: -1 for the left, 1 for the right.
        kerb: edge of the road.
        parking, walk, front: outer edges of the parked cars, the sidewalk, the lawn. Buildings begin at the last.
    """

    name: str
    side: int
    kerb: float
    parking: float
    walk: float
    front: float

    @property
    def style(self) -> Style:
        """The ranges to draw from."""
        return STYLES[self.name]

    def strips(self) -> tuple[tuple[int, float], ...]:
        """The ground from the kerb outwards, as `Road.strips` wants it."""
        lawn = labels.SIDEWALK if self.front == self.walk else labels.TERRAIN
        strips = ((labels.PARKING, self.parking), (labels.SIDEWALK, self.walk), (lawn, FAR))
        inner = (self.kerb, self.parking, self.walk)
        return tuple(strip for strip, start in zip(strips, inner, strict=True) if strip[1] > start)


def draw_roadside(dice: Dice, side: int, half: float) -> Roadside:
    """Choose a style and its widths."""
    name = dice.pick(_NAMES)
    style = STYLES[name]
    parking = half + (2.3 if dice.chance(style.parking) else 0.0)
    walk = parking + dice.between(*style.walk)
    return Roadside(name, side, half, parking, walk, walk + dice.between(*style.lawn))


def row_of_buildings(dice: Dice, where: Roadside, road: Road) -> list[Building]:
    """Buildings along the side from beside the camera to the road's end, open where another road crosses."""
    style, buildings, z = where.style, list[Building](), dice.between(-6.0, 3.0)
    if style.heights is None:
        return buildings
    usual = dice.between(*style.heights)
    cover = (0.0, 0.0)  # height and setback of a building that touches the next one
    while z < min(road.end - 14, 115.0):
        start, end = z, z + dice.between(9, 22)
        z = end + max(0.0, dice.between(*style.gap))
        setback = dice.between(0, 0.3 + style.pitched * 2)
        if road.crossing and start < road.crossing[1] + 3 and end > road.crossing[0] - 3:
            end, z = road.crossing[0] - 3, road.crossing[1] + 3
        front = where.side * (where.front + setback)
        line = (road.place(front, start), road.place(front, end))
        depth = where.side * dice.between(9, 13)
        building = draw_building(dice, line, usual * dice.between(0.75, 1.3), depth, style.pitched, style.shop)
        if end - start > 4 and end > 1.5:
            hidden = building.height + building.ridge <= cover[0] and setback >= cover[1]
            buildings.append(replace(building, open=not hidden))
        cover = (building.height, setback) if z == end else (0.0, 0.0)
    return buildings


def draw_building(
    dice: Dice, front: tuple[Point, Point], height: float, depth: float, pitched: float, shop: float
) -> Building:
    """A building with this front; depth: see `Building`."""
    house = height < 8
    return Building(
        front=front,
        depth=depth,
        open=depth != 0,
        height=height,
        ridge=dice.between(2.0, 3.6) * dice.chance(pitched),
        wall=dice.pick(palette.WALLS),
        trim=dice.pick(palette.TRIMS),
        roof=dice.pick(palette.ROOFS),
        accent=dice.pick(palette.ACCENTS),
        floor=dice.between(2.7, 3.0) if house else dice.between(3.0, 3.7),
        pitch=dice.between(2.6, 3.8) if house else dice.between(2.0, 3.2),
        window=(dice.between(0.34, 0.5), dice.between(0.42, 0.56)),
        shop=dice.chance(shop),
        shift=dice.between(0, 50),
    )


def furnish(dice: Dice, where: Roadside, road: Road) -> list[Thing]:
    """Everything else on this side: plants, borders, posts, parked cars and people."""
    things: list[Thing] = []
    things += _street_trees(dice, where, road)
    things += _wood(dice, where, road)
    things += _border(dice, where, road)
    things += _posts(dice, where, road)
    things += _parked(dice, where, road)
    things += _people(dice, where, road)
    return things


def _clear(road: Road, z: float, margin: float = 2.0) -> bool:
    """Whether depth z is before the road's end and not on a crossing road."""
    crossing = road.crossing
    return z < road.end - 4 and not (crossing and crossing[0] - margin < z < crossing[1] + margin)


def draw_tree(dice: Dice, place: Point, height: float) -> Tree:
    """A tree of this height: round, tall or a cone."""
    form = dice.pick(("round", "round", "tall", "cone"))
    wide = {"round": 0.36, "tall": 0.24, "cone": 0.2}[form] * dice.between(0.85, 1.2)
    lobes = [(0.0, 0.0, 0.78, 0.86)]
    for _ in range(4):
        u, v = dice.between(-0.5, 0.5), dice.between(-0.55, 0.6)
        lobes.append((u, v, dice.between(0.34, 0.5), dice.between(0.3, 0.48)))
    if form == "cone":
        lobes = [(0.0, -0.62 + 0.42 * k, 0.9 - 0.22 * k, 0.42) for k in range(4)]
    stem = height * (0.12 if form == "cone" else dice.between(0.2, 0.32))
    return Tree(place, height, height * wide, stem, tuple(lobes), dice.between(-1, 1), dice.between(0, 50))


def _street_trees(dice: Dice, where: Roadside, road: Road) -> Iterator[Tree]:
    """A row of trees along the kerb."""
    if not dice.chance(where.style.row) or where.walk - where.parking < 1.8:
        return
    spacing, height, z = dice.between(9, 15), dice.between(5, 9), dice.between(9, 16)
    while z < 75:
        tree = draw_tree(dice, road.place(where.side * (where.parking + 0.9), z), height * dice.between(0.85, 1.15))
        if _clear(road, z):
            yield tree
        z += spacing * dice.between(0.9, 1.1)


def _wood(dice: Dice, where: Roadside, road: Road) -> Iterator[Tree | Hedge]:
    """Trees and bushes on the grass, and far trees where nothing else ends the view."""
    low, high = where.style.wood
    for _ in range(round(dice.between(low, high))):
        near = dice.between(0, 1)
        z = 11 + 75 * near * near
        away = where.walk + 1.5 + dice.between(0, max(where.front - where.walk - 2, 6 + z * 0.35))
        tree = draw_tree(dice, road.place(where.side * away, z), dice.between(4, 11))
        garden = where.style.heights is not None
        if _clear(road, z) and (not garden or away < where.front - 1):
            yield tree
    if where.style.edge is not None:
        distance, tint, rise = dice.between(*where.style.edge), dice.between(-1, 1), dice.between(0.7, 1.2)
        height = rise * (6 + 60 / (4 + distance))
        for z in (-4, 12, 30, 60, 100):
            away = where.side * (where.walk + distance)
            line = (road.place(away, z), road.place(away, z * 1.5 + 26))
            if _clear(road, z):
                yield Hedge(*line, height, 0.4 * height, tint, z)


def _border(dice: Dice, where: Roadside, road: Road) -> Iterator[Hedge | Barrier]:
    """A hedge, fence or wall behind the sidewalk, in pieces that follow the road; a rail in the country."""
    kinds = {
        "houses": ("hedge", "hedge", "fence", "wall", ""),
        "park": ("hedge", "fence", "", ""),
        "country": ("rail", ""),
    }
    kind = dice.pick(kinds.get(where.name, ("",)))
    height = dice.between(0.8, 1.7) if kind == "hedge" else dice.between(0.8, 1.2)
    colour, tint = dice.pick(palette.FENCES), dice.between(-1, 1)
    z, away = dice.between(3, 7), where.side * (where.walk + 0.35)
    while kind and z < min(road.end - 12, 90):
        length = dice.between(8, 14)
        gap = dice.between(2.5, 4) if where.name == "houses" and dice.chance(0.4) else 0.0
        line = (road.place(away, z), road.place(away, z + length))
        if _clear(road, z) and _clear(road, z + length):
            if kind == "hedge":
                yield Hedge(*line, height, 0.15, tint, z)
            elif kind == "fence":
                yield Barrier(*line, labels.FENCE, height, colour, z)
            elif kind == "wall":
                yield Barrier(*line, labels.WALL, height, palette.WALL, z)
            else:
                yield Barrier(*line, labels.GUARD_RAIL, 0.75, palette.RAIL, z)
        z += length + gap


def _posts(dice: Dice, where: Roadside, road: Road) -> Iterator[Pole | Bin]:
    """Lamps at regular distances, a sign or two, traffic lights at the crossing, a bin."""
    kerb = where.side * (where.parking + 0.45)
    z, spacing, height = dice.between(8, 20), dice.between(20, 30), dice.between(6, 8.5)
    if dice.chance(0.6):
        while z < 65:
            if _clear(road, z):
                yield Lamp(road.place(kerb, z), height, -where.side)
            z += spacing
    for _ in range(2):
        z, shape = dice.between(8, 45), dice.pick(("round", "round", "square", "triangle"))
        sign = Sign(road.place(kerb, z), dice.between(2.3, 2.9), shape)
        if dice.chance(0.55) and _clear(road, z):
            yield sign
    if road.crossing and dice.chance(0.7) and road.end > road.crossing[1]:
        yield TrafficLight(road.place(kerb, road.crossing[0] - 0.8), 3.3, dice.pick((0, 2)))
    z = dice.between(8, 30)
    if dice.chance(0.35) and where.walk > where.parking and _clear(road, z):
        yield Bin(road.place(where.side * (where.walk - 0.4), z), palette.BIN)


def _parked(dice: Dice, where: Roadside, road: Road) -> Iterator[Vehicle]:
    """Cars in the parking strip; those on the left face the camera."""
    z = dice.between(4, 10)
    while where.parking > where.kerb and z < min(road.end - 14, 60):
        car = draw_car(dice, road, where.side * (where.kerb + 1.15), z + 2.5, where.side)
        if dice.chance(0.72) and _clear(road, z + 2.5, 7.0):
            yield car
        z += dice.between(5.4, 7.0)


def _people(dice: Dice, where: Roadside, road: Road) -> Iterator[Person | Cyclist]:
    """People on the sidewalk, and a bicycle left standing."""
    for _ in range(round(where.style.people * dice.between(0, 2))):
        near = dice.between(0, 1)
        z = 5 + 40 * near * near
        away = where.side * dice.between(where.parking + 0.6, where.walk - 0.4)
        person = draw_person(dice, road.place(away, z))
        if _clear(road, z):
            yield person
    z = dice.between(6, 25)
    bicycle = draw_cyclist(dice, road.place(where.side * (where.walk - 1.1), z), dice.pick((-1, 1)), rider=False)
    if dice.chance(0.12 * where.style.people) and _clear(road, z):
        yield bicycle
