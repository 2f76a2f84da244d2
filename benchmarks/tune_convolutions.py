"""Which convolution is faster, the vendor's or the fused one, on the GPU at hand: the tables of the package.

    python -m benchmarks.tune_convolutions [--again]

Every block of the networks runs once without an algorithm being asked for, so torchp2p measures it. The rows go into
``torchp2p/ops/tuning/<gpu>.json``, those that lose too: they say that the vendor's convolution stays. ``--again``
measures what the table has already.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

import torchp2p
from torchp2p import ops

from .program import run_as_program

TABLES = Path(torchp2p.__file__).parent / "ops" / "tuning"
DTYPES = (torch.bfloat16, torch.float16, torch.float32)


class Block(NamedTuple):
    """A convolution of a network, on what the layer before it hands on."""

    size: tuple[int, int, int, int]
    outputs: int
    convolution: dict[str, Any]
    kernel: int = 3
    norm: str = "instance"
    act: str = "relu"


REFLECT: dict[str, Any] = {"padding": 1, "pad_mode": "reflect"}
DOWN: dict[str, Any] = {"padding": 1, "stride": 2}
UP: dict[str, Any] = {"padding": 1, "stride": 2, "transposed": True, "output_padding": 1}
# Channels, height and width within the global generator at 512 x 256 and at 1024 x 512.
LEVELS = [(c, 16384 // c * scale, 32768 // c * scale) for c in (64, 128, 256, 512, 1024) for scale in (1, 2)]
BLOCKS = (
    # pix2pixHD at 512 x 256, 1024 x 512 and 2048 x 1024: residual blocks, down, up, first and last.
    *(Block((1, 1024, 16 * scale, 32 * scale), 1024, REFLECT) for scale in (1, 2)),
    Block((1, 64, 512, 1024), 64, REFLECT),
    *(Block((1, *level), 2 * level[0], DOWN) for level in LEVELS if level[0] < 1024),
    *(Block((1, *level), level[0] // 2, UP) for level in LEVELS if level[0] > 64),
    Block((1, 32, 1024, 2048), 64, DOWN),
    Block((1, 64, 256, 512), 3, {"padding": 3, "pad_mode": "reflect"}, 7),
    # Its discriminators, and those of pix2pix.
    *(Block((2, c, 8192 // c, 16384 // c), 2 * c, {"padding": 2, "stride": 2}, 4, act="leaky_relu") for c in (64, 128)),
    Block((2, 256, 33, 65), 512, {"padding": 2}, 4, act="leaky_relu"),
    Block((1, 128, 64, 64), 256, DOWN, 4, "batch", "leaky_relu"),
    Block((1, 256, 32, 32), 512, {"padding": 1}, 4, "batch", "leaky_relu"),
    # The U-Net of pix2pix at 256 x 256, and its residual blocks.
    *(Block((1, c, 8192 // c, 8192 // c), 2 * c, DOWN, 4, "batch", "leaky_relu") for c in (64, 128, 256)),
    *(Block((1, c, 8192 // c, 8192 // c), c // 4, UP | {"output_padding": 0}, 4, "batch") for c in (256, 512)),
    Block((1, 256, 64, 64), 256, REFLECT, norm="batch"),
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, show, and write the table."""
    parser = argparse.ArgumentParser(description="Measure the fused convolution against the vendor's.")
    parser.add_argument("--again", action="store_true", help="measure what the table has already")
    again = parser.parse_args(argv).again
    if not torch.cuda.is_available():
        sys.exit("tune_convolutions needs a CUDA GPU, and torch sees none")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        if again:
            for table in TABLES.glob("*.json"):
                table.rename(Path(folder) / table.name)
        for dtype in DTYPES:
            for block in BLOCKS:
                run(block, dtype)
        for found in (Path(folder) / "torchp2p" / "tuning").glob("*.json"):
            rows = merged(TABLES / found.name, json.loads(found.read_text()))
            show(rows)


def run(block: Block, dtype: torch.dtype) -> None:
    """One block on random values; torchp2p measures it where no table has it."""
    x = torch.randn(block.size, dtype=dtype, device="cuda").contiguous(memory_format=torch.channels_last)
    channels = (block.size[1], block.outputs) if block.convolution.get("transposed") else (block.outputs, block.size[1])
    weight = torch.randn((*channels, block.kernel, block.kernel), dtype=dtype, device="cuda") / 100
    before = ops.Deferred(x, block.norm, act=block.act)
    ops.conv_norm_act(before, weight.contiguous(memory_format=torch.channels_last), **block.convolution, defer=True)


def merged(path: Path, found: dict[str, Any]) -> dict[str, Any]:
    """Add the rows of a table to the one at ``path``; all rows that are there then."""
    before = json.loads(path.read_text()) if path.exists() else {"rows": {}}
    table = found | {"rows": dict(sorted({**before["rows"], **found["rows"]}.items()))}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(table, indent=1) + "\n")
    rows: dict[str, Any] = table["rows"]
    return rows


def show(rows: dict[str, Any]) -> None:
    """A line for each row, and how many are left to the vendor."""
    for key, row in rows.items():
        took = row.get("milliseconds", {})
        times = " ".join(f"{took[name]:8.3f}" if name in took else "       -" for name in ("vendor", "fused"))
        print(f"{times}  {row['algorithm']:<6}  {key}")
    lost = sum(row["algorithm"] == "vendor" for row in rows.values())
    print(f"{lost} of {len(rows)} shapes are left to the vendor's convolution")


if __name__ == "__main__":
    run_as_program(main)
