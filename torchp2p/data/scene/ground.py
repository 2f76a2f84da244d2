"""Sky and ground: everything that does not stand up."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from torchp2p.data.scene import labels
from torchp2p.data.scene.canvas import Camera, Canvas, Point, band, edge, lay, ramp, rgb
from torchp2p.data.scene.texture import Array, Tile, noise

ROW_START = -60.0  # metres of z: where the table of a row's heights begins

COLOURS = {
    labels.ROAD: rgb(102, 102, 106),
    labels.PARKING: rgb(118, 114, 112),
    labels.SIDEWALK: rgb(178, 164, 150),
    labels.TERRAIN: rgb(112, 134, 68),
}


@dataclass(frozen=True)
class Road:
    """Where the ground is what. Places s are metres to the right of the road's middle, z metres ahead.

    Args:
        bend: the road's middle lies at s = 0, that is X = bend * z * z - offset.
        offset: s of the camera.
        half: half the road's width.
        strips: for the left and the right, (label, its outer |s|) from the kerb outwards.
        lines: lane markings: (s, metres of dash in a 9 m period; 9 is a full line).
        crossing: depths between which another road crosses, or None.
        end: depth at which the road ends at a front of buildings.
    """

    bend: float
    offset: float
    half: float
    strips: tuple[tuple[tuple[int, float], ...], tuple[tuple[int, float], ...]]
    lines: tuple[tuple[float, float], ...]
    crossing: tuple[float, float] | None
    end: float

    def place(self, s: float, z: float) -> Point:
        """Camera coordinates of a lateral place."""
        return (s + self.bend * z * z - self.offset, z)


class Ground:
    """The ground plane's pixels: depth z (h, 1), X (h, w) and how deep in shadow each is, 0 to 1."""

    def __init__(self, camera: Camera, road: Road) -> None:
        self.camera, self.road = camera, road
        self.first = int(camera.horizon) + 1
        row = np.arange(self.first, camera.size[0], dtype=np.float32)[:, None] + (0.5 - camera.horizon)
        column = np.arange(camera.size[1], dtype=np.float32)[None] + (0.5 - camera.vanish)
        self.z = (camera.focal * camera.height) / row
        self.foot = self.z * (1 / camera.focal)
        self.x = column * self.foot
        self.s = self.x + road.offset - road.bend * self.z * self.z
        self.shadow = np.zeros(self.x.shape, np.float32)

    def foot_at(self, s: float) -> Array:
        """(h, 1) metres that a pixel spans across a line along the road at lateral place s."""
        lean = (s - self.road.offset) / self.camera.height
        return self.foot * math.sqrt(1 + lean * lean)

    @property
    def foot_z(self) -> Array:
        """(h, 1) metres of depth that a pixel spans."""
        return self.z * self.foot * (1 / self.camera.height)

    def cast(self, start: Point, end: Point, radius: float, soft: float, strength: float) -> None:
        """A soft shadow: the ground within `radius` of the line from start to end."""
        far, near = max(start[1], end[1]) + radius + soft, max(min(start[1], end[1]) - radius - soft, 0.5)
        if far <= near:
            return
        camera, drop = self.camera, self.camera.focal * self.camera.height
        rows = slice(
            max(0, int(camera.horizon + drop / far) - self.first),
            int(camera.horizon + drop / near) + 1 - self.first,
        )
        reach = [x + way * (radius + soft) for x in (start[0], end[0]) for way in (-1, 1)]
        places = [camera.column((x, z)) for x in reach for z in (near, far)]
        cols = slice(max(0, int(min(places))), max(0, int(max(places)) + 1))
        shadow = self.shadow[rows, cols]
        if shadow.size == 0:
            return
        x, z = self.x[rows, cols] - start[0], self.z[rows] - start[1]
        dx, dz = end[0] - start[0], end[1] - start[1]
        length = dx * dx + dz * dz
        if length > 0:
            along = ramp((x * dx + z * dz) * (1 / length))
            x, z = x - along * dx, z - along * dz
        distance = np.sqrt(x * x + z * z)
        depth = ramp((radius + soft - distance) * (0.5 / soft)) * strength
        np.maximum(shadow, depth, out=shadow)

    def cast_row(self, side: float, heights: Array, front: float, fall: Point) -> None:
        """The shadow of a row of buildings.

        Args:
            side: on which side they stand. front: |s| of their fronts.
            heights: height of the row at every eighth of a metre of z from `ROW_START` on.
            fall: where the shadow of a point one metre above the origin lies.
        """
        above = (front - self.s * side) * (1 / abs(fall[0]))
        source = self.z - above * fall[1]
        index = ((source - ROW_START) * 8).clip(0, len(heights) - 1).astype(np.int32)
        depth = ramp((heights[index] - above) * (1.6 / (1 + above * 0.25))) * 0.85
        np.maximum(self.shadow, depth, out=self.shadow)

    def texture(self, tile: Tile, shift: float, blur: float) -> Array:
        """A tile laid on the ground, (h, w); blur: metres it is smoothed by at least."""
        foot = np.maximum(self.foot * 2, blur)
        laid = np.empty(self.x.shape, np.float32)
        start, rows = 0, laid.shape[0]
        feet = foot[:, 0].tolist()
        while start < rows:
            stop = start + 1
            while stop < rows and feet[stop] * 1.9 > feet[start]:
                stop += 1
            part = slice(start, stop)
            laid[part] = tile.sample(self.x[part] + shift, self.z[part], feet[start])
            start = stop
        return laid

    def paint(self, canvas: Canvas, shift: float) -> None:
        """Paint the ground of the whole picture; call after all shadows are cast."""
        grain = self.texture(noise(3.0, 64), shift, 0.0)
        stain = self.texture(noise(40.0), shift, 0.1)
        grain *= 0.07 / (1 + self.foot * 6)
        label = np.full(self.x.shape, labels.ROAD, np.uint8)
        albedo = COLOURS[labels.ROAD] * (1 + grain + stain * 0.07 + self._wear())
        lay(albedo, rgb(232, 232, 226), self._markings() * (0.85 + stain * 0.2))
        aside = self._aside()
        for side, strips in zip((-1.0, 1.0), self.road.strips, strict=True):
            inner = self.road.half
            for kind, outer in strips:
                cover = edge(self.s * side - inner, self.foot_at(side * inner)) * aside
                lay(albedo, self._surface(kind, grain, stain), cover)
                label[cover >= 0.5] = kind
                if kind == labels.SIDEWALK:
                    self._kerb(albedo, side, inner, aside)
                inner = outer
        cover = edge(self.z - self.road.end, self.foot_z)
        lay(albedo, COLOURS[labels.SIDEWALK], cover)
        label[(cover >= 0.5)[:, 0]] = labels.SIDEWALK
        light = canvas.sun.ambient + canvas.sun.direct * (1 - self.shadow)
        distance = self.z * (1 / 500)
        albedo *= light
        lay(albedo, canvas.haze, distance / (distance + 1))
        canvas.image[:, self.first :] = albedo
        canvas.label[self.first :] = label

    def _aside(self) -> Array:
        """(h, 1) coverage by anything but the crossing road."""
        if self.road.crossing is None:
            return np.ones_like(self.z)
        return 1 - band(self.z, *self.road.crossing, self.foot_z)

    def _wear(self) -> Array:
        """Tracks of tyres: the asphalt is a little lighter between than where wheels run."""
        lane = self.s * (1 / 1.75)
        swing = lane - np.floor(lane) - 0.5
        return 0.05 - swing * swing * 0.4 / (1 + self.foot * 4)

    def _markings(self) -> Array:
        """Coverage by white paint."""
        paint = np.zeros(self.x.shape, np.float32)
        free = np.ones_like(self.z)
        if self.road.crossing:
            self._crosswalk(paint, self.road.crossing[0])
            free -= band(self.z, self.road.crossing[0] - 6, self.road.crossing[1] + 1, self.foot_z)
        cycle = self.z * (1 / 9) + 0.3
        cycle -= np.floor(cycle)
        for s, dash in self.road.lines:
            wide = band(self.s, s - 0.09, s + 0.09, self.foot_at(s))
            dashed = band(cycle * 9, -1.0, dash, np.minimum(self.foot_z, 9)) if dash < 9 else 1
            paint += wide * dashed * free
        return paint

    def _crosswalk(self, paint: Array, start: float) -> None:
        """A zebra in front of the crossing, and the line where traffic on the right stops."""
        on_road = edge(self.road.half - 0.3 - np.abs(self.s), self.foot)
        stripe = self.s - np.floor(self.s)
        bars = band(stripe, 0.25, 0.75, self.foot)
        lay(bars, 0.5, ramp(self.foot * 3 - 1))
        paint += band(self.z, start - 4.5, start - 1.0, self.foot_z) * bars * on_road
        paint += band(self.z, start - 6.2, start - 5.7, self.foot_z) * on_road * edge(self.s, self.foot)

    def _surface(self, kind: int, grain: Array, stain: Array) -> Array:
        """Albedo of one kind of ground, (3, h, w)."""
        if kind == labels.TERRAIN:
            return COLOURS[kind] * (1 + grain * 3 + stain * 0.16)
        shade = 1 + grain + stain * 0.05
        if kind == labels.SIDEWALK:
            for place in (self.s, self.z):
                cell = place * (1 / 0.8)
                cell = cell - np.floor(cell)
                foot = self.foot if place is self.s else self.foot_z
                seam = band(cell, 0.0, 0.04, np.minimum(foot / 0.8, 1))
                shade = shade - seam * 0.22 * ramp(1.4 - foot * 2)
        return COLOURS[kind] * shade

    def _kerb(self, albedo: Array, side: float, inner: float, aside: Array) -> None:
        """The kerb stone: a light strip with a dark joint towards the road."""
        along = self.s * side
        foot = self.foot_at(side * inner)
        albedo *= 1 - band(along, inner - 0.1, inner + 0.04, foot) * aside * 0.4
        albedo *= 1 + band(along, inner + 0.04, inner + 0.25, foot) * aside * 0.22


@dataclass(frozen=True)
class Sky:
    """Gradient, glow and clouds. clouds: 0 clear to 1 half covered; shift moves them."""

    clouds: float
    shift: float
    zenith: Array = field(default_factory=lambda: rgb(84, 138, 204))
    low: Array = field(default_factory=lambda: rgb(196, 216, 234))

    def paint(self, canvas: Canvas) -> None:
        """Paint everything above the horizon as sky."""
        camera, stop = canvas.camera, int(canvas.camera.horizon) + 1
        rows = np.arange(stop, dtype=np.float32)[:, None]
        up = np.maximum(camera.horizon - rows, 1) * (1 / camera.focal)
        right = (np.arange(camera.size[1], dtype=np.float32)[None] - camera.vanish) * (1 / camera.focal)
        rise = up / (up + 0.45)
        sky = self.low + (self.zenith - self.low) * np.minimum(rise * 1.35, 1)
        glow = right * canvas.sun.side * 0.35 + 0.5
        sky = sky + (rgb(250, 246, 232) - sky) * (ramp(glow) * 0.3 * (1 - rise))
        away = 1 / (up + 0.12)
        cloud = noise(14.0).sample(right * away + self.shift, away * 1.6, 2 / camera.focal)
        cover = ramp(cloud * 0.9 + (self.clouds - 0.6))
        cover *= (2 - cover) * 0.6 * ramp(up * 6)
        body = rgb(246, 246, 246) - rgb(120, 116, 108) * (cover * cover * 0.55)
        canvas.image[:, :stop] = sky + (body - sky) * cover
        canvas.label[:stop] = labels.SKY
