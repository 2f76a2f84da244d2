"""Buildings: facades with windows, shops, cornices and roofs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from torchp2p.data.scene import labels
from torchp2p.data.scene.canvas import Canvas, Patch, Point, band, edge, lay, ramp, rgb
from torchp2p.data.scene.texture import Array, noise
from torchp2p.data.scene.thing import Thing

GLASS, GLASS_SKY = rgb(84, 90, 98), rgb(158, 172, 184)
FINE = 0.2  # metres per pixel: what is smaller on the picture gets no small parts


@dataclass(frozen=True)
class Building(Thing):
    """A block whose front faces the street or the camera.

    Args:
        front: ground line of the front, the nearer point first.
        depth: metres from the front to the back, counted to the right; 0 for a front alone.
        open: whether its near end can be seen, which the building before it may hide.
        height: metres up to the eaves; ridge: metres of pitched roof on top, 0 for a flat one.
        wall, trim, roof: albedos. accent: albedo of shop fronts and doors.
        floor, pitch: metres from floor to floor, from window to window.
        window: share of the pitch and of the floor that is glass.
        shop: the ground floor has shop windows.
        shift: moves the textures, so that no two buildings are alike.
    """

    front: tuple[Point, Point]
    depth: float
    open: bool
    height: float
    ridge: float
    wall: Array
    trim: Array
    roof: Array
    accent: Array
    floor: float
    pitch: float
    window: tuple[float, float]
    shop: bool
    shift: float

    @property
    def distance(self) -> float:
        """The depth of its farthest corner."""
        return max(self.front[0][1], self.front[1][1])

    def draw(self, canvas: Canvas) -> None:
        """Paint roof, near end and front, in this order."""
        if self.ridge:
            self._roof(canvas)
        if self.open:
            x, z = self.front[0]
            end = canvas.panel((x, z), (x + self.depth, z), self.height + self.ridge)
            if end is not None:
                self._facade(canvas, end, abs(self.depth), gable=self.ridge, shop=False)
        front = canvas.panel(*self.front, self.height)
        if front is not None:
            (x0, z0), (x1, z1) = self.front
            length = math.sqrt((x1 - x0) * (x1 - x0) + (z1 - z0) * (z1 - z0))
            self._facade(canvas, front, length, gable=0.0, shop=self.shop)

    def _roof(self, canvas: Canvas) -> None:
        """The street-side slope, seen as the upright plane under the ridge behind the eaves."""
        start, end = ((x + self.depth / 2, z) for x, z in self.front)
        patch = canvas.panel(start, end, self.height + self.ridge, self.height * 0.5)
        if patch is None:
            return
        rows = patch.v * (1 / 0.35)
        rows = rows - np.floor(rows)
        grain = noise(6.0).sample(patch.u + self.shift, patch.v, patch.scale)
        shade = 0.9 + grain * 0.12 + (rows - 0.5) * 0.25 * ramp(1.5 - patch.foot * 6)
        cover = edge(self.height + self.ridge - patch.v, patch.foot)
        canvas.paint(patch, cover, self.roof * (shade * (patch.light * 0.4 + 0.6)), labels.BUILDING)

    def _facade(self, canvas: Canvas, patch: Patch, length: float, gable: float, shop: bool) -> None:
        """One wall with everything on it."""
        top: Array | float = self.height
        if gable:
            top = self.height + gable * (1 - np.abs(patch.u * (2 / length) - 1))
        cover = edge(top - patch.v, patch.foot) * edge(patch.v, patch.foot)
        if patch.foot.min() > 0.6 * self.pitch:
            canvas.paint(patch, cover, self.wall * patch.light * 0.85 + 0 * cover, labels.BUILDING)
            return
        albedo = self.wall * self._weather(patch)
        base = 4.0 if shop else 0.0
        self._windows(albedo, patch, length, base)
        if shop:
            self._shop(albedo, patch, length)
        self._ledges(albedo, patch, base)
        contact = 1 - 0.3 / (1 + np.maximum(patch.v, 0) * 2)
        canvas.paint(patch, cover, albedo * (patch.light * contact), labels.BUILDING)

    def _weather(self, patch: Patch) -> Array:
        """Stains, streaks under the eaves and the grain of the wall, a factor near 1."""
        u = patch.u + self.shift
        stain = noise(18.0).sample(u, patch.v, patch.scale)
        shade = 1 + stain * 0.06
        if patch.scale < FINE:
            shade += noise(9.0, 16).sample(u * 2, patch.v * 0.15, patch.scale) * 0.035
        if patch.scale < FINE / 3:
            shade += noise(2.0, 32).sample(u, patch.v * 3, patch.scale) * 0.035
        return shade

    def _windows(self, albedo: Array, patch: Patch, length: float, base: float) -> None:
        """A grid of windows with frames, sills and a glimpse of sky or curtain in each pane."""
        count = max(1, int(length / self.pitch))
        across = patch.u * (count / length)
        above = (patch.v - base) * (1 / self.floor)
        column, storey = np.floor(across), np.floor(above)
        du, dv = across - column - 0.5, above - storey - 0.52
        foot_u, foot_v = patch.foot_u * (count / length), patch.foot * (1 / self.floor)
        wide, tall = self.window[0] / 2, self.window[1] / 2
        storeys = int((self.height - base) / self.floor)
        rows = ((storey >= 0) & (storey < storeys)) * ramp(1.5 - foot_v * 1.2)
        columns = ((column >= 0) & (column < count)) * (1 - ramp(foot_u * 2 - 0.6) * 0.4)
        panes = band(du, -wide, wide, foot_u) * columns
        if patch.scale < FINE:
            frames = band(du, -wide - 0.04, wide + 0.04, foot_u) * columns
            lay(albedo, self.trim, frames * (band(dv, -tall - 0.05, tall + 0.03, foot_v) * rows))
            albedo *= 1 + frames * (band(dv, -tall - 0.1, -tall - 0.05, foot_v) * rows) * 0.18  # the sill
            panes *= 1 - band(du, -0.015, 0.015, foot_u) * (patch.scale < FINE / 4)
        lot = noise(1.0, 64).sample(column * 0.37, storey * 0.61 + self.shift, 0.0)
        sky = ramp(0.35 + dv * 0.5 + lot * 0.35)
        sky *= 1 - ramp((dv - tall) * (1 / 0.08) + 1) * 0.8  # the lintel's shadow
        lay(albedo, GLASS + (GLASS_SKY - GLASS) * sky, panes * (band(dv, -tall, tall, foot_v) * rows))

    def _shop(self, albedo: Array, patch: Patch, length: float) -> None:
        """Shop windows, a door now and then, and the sign board above them."""
        count = max(1, int(length / 4.5))
        across = patch.u * (count / length)
        column = np.floor(across)
        du, foot_u = across - column - 0.5, patch.foot_u * (count / length)
        lot = noise(1.0, 64).sample(column * 0.29 + self.shift, column * 0.53, 0.0)
        board = band(patch.v, 2.95, 3.55, patch.foot) * band(du, -0.46, 0.46, foot_u)
        lay(albedo, self.accent * (1 + lot * 0.3), board)
        glass = band(patch.v, 0.5, 2.8, patch.foot) * band(du, -0.42, 0.42, foot_u)
        inside = GLASS * (0.75 + ramp(patch.v * 0.3) * 0.9 + lot * 0.3)
        lay(albedo, inside, glass)
        door = band(patch.v, 0.05, 2.5, patch.foot) * band(du, 0.16, 0.36, foot_u) * (lot > 0)
        lay(albedo, self.accent * 0.45, (door * 0.8))

    def _ledges(self, albedo: Array, patch: Patch, base: float) -> None:
        """The cornice with its shadow, and a thin line at every floor."""
        drop = self.height - patch.v
        if not self.ridge:
            lay(albedo, self.trim, band(drop, -1.0, 0.45, patch.foot))
            albedo *= 1 - band(drop, 0.45, 0.95, patch.foot) * 0.3
        else:
            albedo *= 1 - band(drop, -0.1, 0.4, patch.foot) * 0.4
        if patch.scale < FINE:
            above = (patch.v - base) * (1 / self.floor)
            line = above - np.floor(above)
            albedo *= 1 + band(line, 0.0, 0.05, patch.foot * (1 / self.floor)) * ramp(2 - patch.foot * 8) * 0.14
        if base:
            albedo *= 1 - band(patch.v, base - 0.35, base, patch.foot) * 0.25
