"""How the fused convolution is cut into programs: what to try where it is measured, and what to take unmeasured."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Tile(NamedTuple):
    """What one program computes: pixels (or weights) by channels, and how many terms it adds at a time."""

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int


class Tiles(NamedTuple):
    """Of the forward, the data gradient and the weight gradient."""

    forward: Tile
    data: Tile
    weight: Tile


# All fit into the shared memory and the registers of every GPU from sm_80 on; the report of the kernels shows it.
HALF = (
    Tile(128, 128, 32, 8, 3),
    Tile(128, 64, 32, 8, 3),
    Tile(64, 128, 32, 8, 3),
    Tile(64, 64, 32, 4, 3),
    Tile(64, 32, 64, 4, 3),
    Tile(32, 64, 64, 4, 3),
)
FLOAT = (
    Tile(64, 64, 32, 4, 2),
    Tile(64, 32, 32, 4, 2),
    Tile(32, 64, 16, 4, 2),
)


def candidates(dtype: torch.dtype, use: str) -> list[Tile]:
    """The tiles worth trying for ``use``, a field of Tiles. A data gradient holds x besides: not the largest ones."""
    tiles = FLOAT if dtype == torch.float32 else HALF
    return [tile for tile in tiles if use != "data" or tile.rows * tile.columns <= 128 * 64]


def default_tiles(dtype: torch.dtype) -> Tiles:
    """Tiles that are right everywhere and the fastest nowhere."""
    tile = FLOAT[0] if dtype == torch.float32 else HALF[3]
    return Tiles(tile, tile, tile)
