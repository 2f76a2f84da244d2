"""What the tests of the fused convolution share."""

from __future__ import annotations

import pytest
from conv_norm_act_case import Case, Geometry

kernels = pytest.importorskip("torchp2p.kernels.conv_norm_act", reason="triton is not installed")
FUSED = {"algorithm": "fused"}
UP = Geometry(3, 2, 1, transposed=True, output_padding=1)
FIRST = Case(Geometry(1, 1, 0), act="tanh", affine=True, inputs=3, outputs=4)
SMALL = (2, 5, 6)
TILES = kernels.Tiles(kernels.Tile(32, 16, 16, 4, 1), kernels.Tile(16, 16, 16, 4, 1), kernels.Tile(16, 16, 32, 4, 1))
"""So small that every image has several, and tails."""
