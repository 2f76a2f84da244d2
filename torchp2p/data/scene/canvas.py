"""The camera, the picture planes and the one primitive everything upright is made of: the panel."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from torchp2p.data.scene.texture import Array

NEAR = 0.7  # metres: nothing closer than this is drawn

Point = tuple[float, float]  # X to the right and Z into the picture, metres, the camera at the origin


def rgb(red: float, green: float, blue: float) -> Array:
    """An 8-bit display colour as linear light, (3, 1, 1) float32. The display curve is a square root."""
    colour = np.array((red, green, blue), np.float32) * (1 / 255)
    return (colour * colour)[:, None, None]


def ramp(x: Array) -> Array:
    """x limited to [0, 1]."""
    limited: Array = x.clip(0.0, 1.0)
    return limited


def edge(distance: Array, foot: Array | float) -> Array:
    """Pixel coverage of the half plane distance > 0 where a pixel is `foot` wide."""
    return ramp(distance / foot + 0.5)


def band(x: Array, low: float, high: float, foot: Array | float) -> Array:
    """Pixel coverage of low < x < high; also right where the band is thinner than a pixel."""
    return edge(x - low, foot) - edge(x - high, foot)


def lay(colour: Array, over: Array | float, cover: Array) -> None:
    """Blend `over` into `colour`, in place, where `cover` says."""
    colour += (over - colour) * cover


@dataclass(frozen=True)
class Camera:
    """A level pinhole camera with a shifted lens; focal, horizon and vanish in pixels, height in metres."""

    size: tuple[int, int]
    focal: float
    height: float
    horizon: float
    vanish: float

    def column(self, point: Point) -> float:
        """Pixel column of a point."""
        return self.vanish + self.focal * point[0] / point[1]

    def row(self, above: float, z: float) -> float:
        """Pixel row of a point `above` metres over the ground at depth z."""
        return self.horizon + self.focal * (self.height - above) / z


@dataclass(frozen=True)
class Sun:
    """One sun for the scene. towards: unit vector (X right, Y up, Z into the picture) to the sun."""

    towards: tuple[float, float, float]
    direct: Array
    ambient: Array

    @property
    def side(self) -> float:
        """-1 where the sun stands on the left, 1 on the right."""
        return 1.0 if self.towards[0] > 0 else -1.0

    def on(self, normal: Point) -> Array:
        """Light on an upright surface with this (X, Z) normal; 1 is level ground in the sun."""
        facing = max(0.0, normal[0] * self.towards[0] + normal[1] * self.towards[2]) / self.towards[1]
        lit: Array = self.ambient + self.direct * min(facing, 1.1)
        return lit


@dataclass(frozen=True)
class Patch:
    """The pixels a panel may cover: (h, w) of them, with their place on the panel in metres.

    u: (1, w) along the panel; v: (h, w) above the ground; z: (1, w) depth.
    foot, foot_u: (1, w) metres per pixel, upwards and along the panel. light: (3, 1, 1) falling on it.
    """

    rows: slice
    cols: slice
    u: Array
    v: Array
    z: Array
    foot: Array
    foot_u: Array
    light: Array

    @property
    def scale(self) -> float:
        """Metres per pixel in the middle, a plain number to choose detail by."""
        return float(self.foot[0, self.foot.shape[1] // 2])


class Canvas:
    """Linear light, label, owner (object number, 0 for stuff) and depth of every pixel of the picture."""

    def __init__(self, camera: Camera, sun: Sun, haze: Array) -> None:
        height, width = camera.size
        self.camera, self.sun, self.haze = camera, sun, haze
        self.image = np.zeros((3, height, width), np.float32)
        self.label = np.zeros((height, width), np.uint8)
        self.owner = np.zeros((height, width), np.uint16)
        self.depth = np.full((height, width), np.inf, np.float32)
        self.owners = [0]  # owners[k]: the label of object k

    def new_owner(self, label: int) -> int:
        """The number of a new countable object of class `label`."""
        self.owners.append(label)
        return len(self.owners) - 1

    def panel(self, start: Point, end: Point, top: float, bottom: float = 0.0) -> Patch | None:
        """The upright rectangle over the line start-end, u running from start; None out of the picture."""
        (x0, z0), (x1, z1) = start, end
        if max(z0, z1) <= NEAR:
            return None
        camera = self.camera
        seen = [_clipped(start, end), _clipped(end, start)]
        left, right = sorted(camera.column(point) for point in seen)
        upper = min(camera.row(top, point[1]) for point in seen)
        lower = max(camera.row(bottom, point[1]) for point in seen)
        rows = slice(max(0, int(upper) - 1), min(camera.size[0], int(max(lower, 0)) + 2))
        # An end of a panel is a vertical line: it needs no soft edge, and panels that meet leave no seam.
        cols = slice(max(0, math.ceil(left - 0.5)), min(camera.size[1], max(0, math.ceil(right - 0.5))))
        if rows.start >= rows.stop or cols.start >= cols.stop:
            return None
        column = np.arange(cols.start, cols.stop, dtype=np.float64)[None] + 0.5
        slope = (column - camera.vanish) * (1 / camera.focal)
        dx, dz = x1 - x0, z1 - z0
        length = math.sqrt(dx * dx + dz * dz)
        turned = 1 / (dx - slope * dz)
        along = (slope * z0 - x0) * turned
        z = (z0 + along * dz).astype(np.float32)
        foot = z * (1 / camera.focal)
        foot_u = turned * turned * (abs(z0 * dx - x0 * dz) * length / camera.focal)
        row = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] + (0.5 - camera.horizon)
        outward = -1 if dz * x0 > dx * z0 else 1
        return Patch(
            rows=rows,
            cols=cols,
            u=(along * length).astype(np.float32),
            v=camera.height - row * foot,
            z=z,
            foot=foot,
            foot_u=foot_u.astype(np.float32),
            light=self.sun.on((outward * dz / length, -outward * dx / length)),
        )

    def billboard(self, x: float, z: float, width: float, top: float, bottom: float = 0.0) -> Patch | None:
        """A panel that faces the camera, u measured from its middle; its light is that of a round thing."""
        patch = self.panel((x - width / 2, z), (x + width / 2, z), top, bottom) if z > NEAR else None
        if patch is None:
            return None
        light = self.sun.ambient + self.sun.direct * 0.75
        return replace(patch, u=patch.u - width / 2, light=light)

    def paint(
        self,
        patch: Patch,
        cover: Array,
        colour: Array,
        label: int,
        owner: int = 0,
        solid: Array | None = None,
    ) -> None:
        """Lay lit `colour` (3, h, w) over the picture where `cover` (h, w) says and nothing nearer stands.

        Label, owner and depth are crisp: they change where `solid` (default: cover) is at least one half.
        """
        rows, cols = patch.rows, patch.cols
        depth = self.depth[rows, cols]
        free = patch.z <= depth * 1.02  # of things in one plane the later covers the soft edge of the earlier
        taken = ((cover if solid is None else solid) >= 0.5) & free
        distance = patch.z * (1 / 500)
        hazy = distance / (distance + 1)
        colour = colour + (self.haze - colour) * hazy
        view = self.image[:, rows, cols]
        lay(view, colour, cover * free)
        self.label[rows, cols][taken] = label
        self.owner[rows, cols][taken] = owner
        np.copyto(depth, patch.z, where=taken)


def _clipped(point: Point, other: Point) -> Point:
    """`point`, moved towards `other` up to the near plane."""
    if point[1] >= NEAR:
        return point
    part = (NEAR - point[1]) / (other[1] - point[1])
    return (point[0] + part * (other[0] - point[0]), NEAR)
