"""Periodic textures in metres: fractal noise and lit foliage, made once a process, sampled at any scale."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
SIZE = 512  # texels a side, a power of two: wrapping is a bit mask


class Tile:
    """A periodic square texture with its halvings, so that a sample never aliases.

    Args:
        texels: (SIZE, SIZE) float32.
        metres: the side of one period.
    """

    def __init__(self, texels: Array, metres: float) -> None:
        self.density = SIZE / metres
        self.levels = [texels]
        while self.levels[-1].shape[0] > 4:
            fine = self.levels[-1]
            self.levels.append((fine[::2, ::2] + fine[1::2, ::2] + fine[::2, 1::2] + fine[1::2, 1::2]) * 0.25)

    def sample(self, u: Array, v: Array, foot: float) -> Array:
        """Texture at points (u, v), metres, broadcast together; foot: metres per pixel, picks the halving."""
        level = min(int(foot * self.density * 0.75).bit_length(), len(self.levels) - 1)
        density = self.density / (1 << level)
        column, row = u * density, v * density
        left, upper = np.floor(column), np.floor(row)
        texels = self.levels[level]
        size = texels.shape[0]
        x, y = left.astype(np.int32) & (size - 1), (upper.astype(np.int32) & (size - 1)) * size
        flat = texels.ravel()
        picked: Array = flat[y + x]
        if foot * density > 0.4:
            return picked
        # Seen from near: between texels.
        x_next, y_next = (x + 1) & (size - 1), (y + size) & (size * size - 1)
        right, down = column - left, row - upper
        picked = picked + (flat[y + x_next] - picked) * right
        below = flat[y_next + x]
        below = below + (flat[y_next + x_next] - below) * right
        picked += (below - picked) * down
        return picked


def _octave(rng: np.random.Generator, cells: int) -> Array:
    """One octave of periodic value noise in [-1, 1], (SIZE, SIZE)."""
    lattice = rng.random((cells, cells), dtype=np.float32) * 2 - 1
    position = np.arange(SIZE, dtype=np.float32) * (cells / SIZE)
    low = position.astype(np.int32)
    part = position - low
    fade = part * part * (3 - 2 * part)
    high = (low + 1) % cells
    rows = lattice[low] * (1 - fade)[:, None] + lattice[high] * fade[:, None]
    octave: Array = rows[:, low] * (1 - fade) + rows[:, high] * fade
    return octave


@cache
def noise(metres: float, coarsest: int = 4) -> Tile:
    """Fractal noise, roughly in [-1, 1] around 0; `coarsest` cells a period at the lowest octave."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(1)))
    total = np.zeros((SIZE, SIZE), np.float32)
    cells, amplitude = coarsest, 1.0
    while cells <= SIZE // 2:
        total += _octave(rng, cells) * amplitude
        cells, amplitude = cells * 2, amplitude * 0.6
    return Tile(total, metres)


@cache
def foliage() -> Tile:
    """Leaf clumps lit from above on the left, 0 (deep shade) to 1 (lit), one period 4 m."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(2)))
    texels = np.full((SIZE, SIZE), 0.1, np.float32)
    generations = ((30.0, 420, 0.2), (20.0, 900, 0.4), (14.0, 1300, 0.58), (9.0, 1800, 0.74))
    for radius, count, level in generations:
        for row, column, size, shade, *turn in rng.random((count, 6)):
            _leaf(
                texels,
                (int(row * SIZE), int(column * SIZE)),
                radius * (0.6 + 0.7 * size),
                turn,
                level + 0.25 * shade,
            )
    texels += _octave(rng, 256) * 0.1
    return Tile(texels, 4.0)


def _leaf(texels: Array, centre: tuple[int, int], radius: float, turn: list[float], level: float) -> None:
    """Paint one soft ellipse, turned as drawn, brighter on its upper left, wrapping round the edges."""
    reach = int(radius) + 1
    offset = np.arange(-reach, reach + 1, dtype=np.float32)
    down, right = offset[:, None] * (1 / radius), offset[None, :] * (1 / radius)
    a, b = turn[0] - 0.5, turn[1] - 0.5
    across = (down * a + right * b) * (1 / math.sqrt(a * a + b * b + 1e-9))
    inside = 1 - down * down - right * right - across * across * 2.2
    cover = np.minimum(np.maximum(inside * 3, 0), 1)
    lit = level * (1 - 0.3 * down - 0.2 * right)
    where = np.ix_((centre[0] + offset.astype(np.int32)) % SIZE, (centre[1] + offset.astype(np.int32)) % SIZE)
    texels[where] += cover * (lit - texels[where])
