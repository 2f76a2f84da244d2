"""What torchp2p is to reach with whole steps, beside what it has reached; missed goals are called so."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..step.providers import OURS, SMALL
from ..step.rows import DONE
from .records import Record, markdown

REFERENCE, BEST_PEER = "the reference", "the best peer"
PLAIN_MEMORY = "plain modules at 512x1024"


@dataclass(frozen=True)
class Goal:
    """A number to reach: times as fast as ``over``, or, with ``most``, gigabytes or a share of memory.

    ``small`` is for torchp2p with its switches for memory.
    """

    hardware: str
    preset: str
    size: str
    precision: str
    over: str
    least: float = math.nan
    most: float = math.nan
    vgg: bool = False
    small: bool = False

    def is_reached_by(self, value: float) -> bool:
        """Whether it is enough, or not too much."""
        return value >= self.least if math.isnan(self.most) else value <= self.most


GOALS = (
    Goal("CPU", "pix2pix", "256x256", "float32", REFERENCE, least=1.5),
    Goal("CPU", "pix2pix", "256x256", "bfloat16", REFERENCE, least=2.5),
    Goal("CPU", "pix2pixhd-512p", "256x512", "float32", REFERENCE, least=3),
    Goal("CPU", "pix2pixhd-512p", "256x512", "bfloat16", REFERENCE, least=5),
    Goal("CPU", "pix2pixhd-512p", "256x512", "float32", BEST_PEER, least=1.5),
    Goal("CPU", "pix2pixhd-512p", "256x512", "bfloat16", BEST_PEER, least=1.5),
    Goal("CPU", "pix2pixhd-512p", "256x512", "float32", REFERENCE, least=3, vgg=True),
    Goal("CPU", "pix2pixhd-512p", "512x1024", "float32", PLAIN_MEMORY, most=0.5),
    Goal("CPU", "pix2pixhd-512p", "512x1024", "float32", PLAIN_MEMORY, most=0.5, small=True),
    Goal("CPU", "pix2pixhd-512p", "512x1024", "bfloat16", PLAIN_MEMORY, most=0.5, small=True),
    Goal("CPU", "pix2pixhd-1024p", "1024x2048", "float32", "", most=24),
    Goal("H100", "pix2pix", "256x256", "bfloat16", REFERENCE, least=5),
    Goal("H100", "pix2pix", "256x256", "bfloat16", BEST_PEER, least=1.5),
    Goal("H100", "pix2pixhd-1024p", "1024x2048", "bfloat16", REFERENCE, least=2.5),
    Goal("H100", "pix2pixhd-1024p", "1024x2048", "bfloat16", BEST_PEER, least=1.4),
    Goal("H100", "pix2pixhd-1024p", "1024x2048", "bfloat16", "", most=12),
)


def table(rows: Sequence[Record]) -> str:
    """Every goal: what was asked, what was measured last, and whether that reaches it."""
    return markdown(("on", "step", "goal", "reached", ""), (_line(goal, rows) for goal in GOALS), text_columns=5)


def reached(goal: Goal, rows: Sequence[Record]) -> float:
    """What the newest rows say; nan where they say nothing."""
    fitting = [row for row in rows if _fits(goal, row)]
    most_threads = max((int(row["threads"]) for row in fitting), default=0)
    found = {row["provider"]: row for row in fitting if int(row["threads"]) == most_threads}
    stem = SMALL if goal.small else OURS
    ours = found.get(stem if goal.precision == "float32" else f"{stem}_{goal.precision}")
    if ours is None or ours["outcome"] != DONE:
        return math.nan
    if goal.over == REFERENCE:
        return float(ours["times_as_fast"]) if ours["base"] == "reference" else math.nan
    if goal.over == BEST_PEER:
        return advantage(ours, list(found.values()))
    if goal.over == PLAIN_MEMORY:
        plain = found.get("reference")
        return float(ours["peak_mb"]) / float(plain["peak_mb"]) if plain and plain["outcome"] == DONE else math.nan
    return float(ours["peak_mb"]) / 1e3


def advantage(ours: Record, rows: Sequence[Record]) -> float:
    """How many times as fast ours is as the fastest of the same precision that leaves the allocator alone; or nan."""
    peers = [
        float(row["times_as_fast"])
        for row in rows
        if row["precision"] == ours["precision"] and row["allocator"] == "default" and row["outcome"] == DONE
        if not row["provider"].startswith(OURS) and row["base"] == ours["base"]
    ]
    return float(ours["times_as_fast"]) / max(peers) if peers else math.nan


def _fits(goal: Goal, row: Record) -> bool:
    wanted = (goal.preset, goal.size, str(goal.vgg), "1", "against")
    on_gpu = "NVIDIA" in row["device"]
    same_hardware = goal.hardware in row["device"] if goal.hardware != "CPU" else not on_gpu
    return same_hardware and (row["preset"], row["size"], row["vgg"], row["batch_size"], row["part"]) == wanted


def _line(goal: Goal, rows: Sequence[Record]) -> tuple[str, ...]:
    value = reached(goal, rows)
    step = f"{goal.preset} {goal.size}{', VGG' if goal.vgg else ''}, {goal.precision}"
    if goal.small:
        step += ", `--recompute --bf16_state`"
    if not math.isnan(goal.least):
        asked, got = f"≥ {goal.least:g} x {goal.over}", f"{value:.{_digits(value, goal, 2)}f} x"
    elif goal.over:
        asked, got = f"peak ≤ {goal.most:.0%} of {goal.over}", f"{value:.{_digits(value, goal, 2) - 2}%}"
    else:
        asked, got = f"peak ≤ {goal.most:g} GB", f"{value:.{_digits(value, goal, 1)}f} GB"
    if math.isnan(value):
        return goal.hardware, step, asked, "", "not measured"
    return goal.hardware, step, asked, got, "reached" if goal.is_reached_by(value) else "MISSED"


def _digits(value: float, goal: Goal, least: int) -> int:
    """Decimals, ``least`` if they do, with which ``value`` still reads as reaching the goal, or as missing it."""
    return next(n for n in itertools.count(least) if goal.is_reached_by(round(value, n)) == goal.is_reached_by(value))
