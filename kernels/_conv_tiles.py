"""How the fused convolution is cut into programs: what to try where it is measured, and what to take unmeasured."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor


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
TILES = {
    "half": (
        Tile(128, 128, 32, 8, 3),
        Tile(128, 64, 32, 8, 3),
        Tile(64, 128, 32, 8, 3),
        Tile(64, 64, 32, 4, 3),
        Tile(64, 32, 64, 4, 3),
        Tile(32, 64, 64, 4, 3),
    ),
    "tf32": (
        Tile(64, 64, 32, 4, 2),
        Tile(64, 32, 32, 4, 2),
        Tile(32, 64, 16, 4, 2),
    ),
    "ieee": (
        Tile(32, 64, 16, 4, 2),
        Tile(64, 32, 16, 8, 2),
        Tile(32, 32, 16, 4, 2),
    ),
}


def arithmetic_of(x: Tensor) -> str:
    """How values of x are multiplied: ``half``, or float32 as exactly as torch's own convolutions are told to."""
    if x.dtype != torch.float32:
        return "half"
    return "tf32" if x.device.type != "cpu" and _tf32_is_allowed() else "ieee"


def candidates(x: Tensor, use: str) -> list[Tile]:
    """The tiles worth trying for ``use``, a field of Tiles. A data gradient holds x besides: not the largest ones."""
    return [tile for tile in TILES[arithmetic_of(x)] if use != "data" or tile.rows * tile.columns <= 128 * 64]


def default_tiles(x: Tensor) -> Tiles:
    """Tiles that are right everywhere and the fastest nowhere."""
    arithmetic = arithmetic_of(x)
    tile = TILES[arithmetic][3 if arithmetic == "half" else 0]
    return Tiles(tile, tile, tile)


def _tf32_is_allowed() -> bool:
    cudnn: Any = torch.backends.cudnn
    if hasattr(cudnn, "conv"):  # from torch 2.9 on, where asking the older flag may raise
        return bool(cudnn.conv.fp32_precision == "tf32")
    return bool(cudnn.allow_tf32)
