"""What ops compute and move, against what the machine can: the numbers of the roofline."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from ..results import OURS
from .records import Record, newest

PROVIDERS = (OURS, "eager")
KEY = ("device", "torch", "allocator", "op", "config", "provider", "mode", "dtype", "layout", "shape")

OPERATIONS = {
    ("norm_act", "forward"): 7,
    ("norm_act", "forward_backward"): 20,
    ("gan_loss", "forward"): 3,
    ("gan_loss", "forward_backward"): 5,
    ("feature_matching_loss", "forward"): 3,
    ("feature_matching_loss", "forward_backward"): 4,
    ("instance_avg_pool", "forward"): 2,
    ("instance_avg_pool", "forward_backward"): 4,
}
"""For an element, counted in the definition: what statistics, affine, activation or loss need, and their gradients."""


@dataclass(frozen=True)
class Roofs:
    """The machine: gigabytes a second of a copy, and operations a second of a large matrix product in float32."""

    gb_per_s: float
    gflops: float


@dataclass(frozen=True)
class Point:
    """One op: operations for a byte of the least traffic, and 10^9 operations a second."""

    op: str
    provider: str
    intensity: float
    gflops: float


def roofs(rows: Sequence[Record]) -> Roofs | None:
    """The medians over all runs; None where the rows have not both."""
    copies = [float(row["gb_per_s"]) for row in rows if (row["op"], row["provider"]) == ("memory", "copy")]
    products = [row for row in rows if row["op"] == "peak" and row["dtype"] == "float32"]
    if not copies or not products:
        return None
    gflops = [2 * math.prod(map(int, row["shape"].split("x"))) / float(row["median_ms"]) / 1e6 for row in products]
    return Roofs(statistics.median(copies), statistics.median(gflops))


def points(rows: Sequence[Record]) -> list[Point]:
    """The newest row of every case in float32 whose operations are known, ours and eager's, contiguous."""
    found = []
    for row in newest(rows, KEY):
        if row["dtype"] != "float32" or row["layout"] != "contiguous" or row["provider"] not in PROVIDERS:
            continue
        work = _residual_block(row) if row["op"] == "conv_norm_act" else _elementwise(row)
        if work is not None:
            operations, traffic = work
            gflops = operations / float(row["median_ms"]) / 1e6
            found.append(Point(row["op"], row["provider"], operations / traffic, gflops))
    return found


def _elementwise(row: Record) -> tuple[float, float] | None:
    """Operations, and the bytes that the row itself states by its bandwidth."""
    count, gb_per_s = OPERATIONS.get((row["op"], row["mode"])), float(row["gb_per_s"])
    if count is None or math.isnan(gb_per_s):
        return None
    elements = sum(math.prod(map(int, shape.split("x"))) for shape in re.findall(r"\d+(?:x\d+)+", row["shape"]))
    return count * elements, gb_per_s * float(row["median_ms"]) * 1e6


def _residual_block(row: Record) -> tuple[float, float] | None:
    """Two direct convolutions 3x3 as wide as the image; with gradients three times that, of twice as many bytes read.

    A convolution by Winograd's algorithm does less, so it may stand above the roof.
    """
    if row["mode"] not in ("forward", "forward_backward"):
        return None
    n, channels, height, width = map(int, row["shape"].split("x"))
    times = 3 if row["mode"] == "forward_backward" else 1
    operations = 2 * 2 * 9 * channels * channels * n * height * width
    traffic = 4 * (2 * n * channels * height * width + 2 * 9 * channels * channels)
    return times * operations, times * traffic
