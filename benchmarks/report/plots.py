"""Plots of the newest rows, as SVG: where a step's time goes, memory, scaling, and ops under the machine's roofs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .. import machine
from ..figures import pyplot, save
from ..results import OURS
from ..step.rows import DONE
from .records import Record, grouped, newest
from .roofline import Point, Roofs, points, roofs
from .steps import CASE, MACHINE


def draw_all(
    folder: Path, of_ops: Sequence[Record], of_steps: Sequence[Record], of_kinds: Sequence[Record]
) -> list[Path]:
    """Draw what there are rows for; the files written.

    Raises:
        ImportError: matplotlib is not installed.
    """
    drawn = []
    for name, figure in _figures(pyplot(), of_ops, of_steps, of_kinds):
        drawn.append(save(figure, folder / f"{name}.svg"))
    return drawn


def _figures(
    plt: Any, of_ops: Sequence[Record], of_steps: Sequence[Record], of_kinds: Sequence[Record]
) -> Iterator[tuple[str, Any]]:
    for device, rows in _devices(of_kinds):
        yield f"breakdown_{device}", _breakdown(plt, rows)
    scale = [row for row in of_steps if row["part"] == "scale" and row["outcome"] == DONE]
    for device, rows in _devices(newest(scale, (*MACHINE, *CASE, "provider"))):
        yield f"memory_{device}", _lines(plt, rows, "peak_mb", 1e-3, "peak memory, GB")
        yield f"scaling_{device}", _lines(plt, rows, "median_ms", 1e-3, "a step, s")
    for device, rows in _devices(of_ops):
        limits, found = roofs(rows), points(rows)
        if limits is not None and found:
            yield f"roofline_{device}", _roofline(plt, limits, found)


def _devices(rows: Sequence[Record]) -> Iterator[tuple[str, list[Record]]]:
    for (device,), found in grouped(rows, ("device",)).items():
        yield machine.slug(device), found


def _breakdown(plt: Any, rows: Sequence[Record]) -> Any:
    """A bar for every provider of every case, made of its kinds of work."""
    last = {(row["preset"], row["size"], row["provider"]): row["date"] for row in rows}
    rows = [row for row in rows if row["date"] == last[row["preset"], row["size"], row["provider"]]]
    bars = grouped(rows, ("preset", "size", "provider"))
    figure, axes = plt.subplots(figsize=(8, 1 + 0.3 * len(bars)))
    labels = [" ".join(bar) for bar in bars]
    left = [0.0] * len(bars)
    for kind in dict.fromkeys(row["kind"] for row in rows):
        widths = [sum(float(row["kind_ms"]) / 1e3 for row in found if row["kind"] == kind) for found in bars.values()]
        axes.barh(labels, widths, left=left, label=kind)
        left = [before + width for before, width in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("a step under the profiler, s")
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def _lines(plt: Any, rows: Sequence[Record], column: str, scale: float, label: str) -> Any:
    """A line for every provider of every preset and number of threads, over the pixels of an image."""
    figure, axes = plt.subplots(figsize=(7, 4.5))
    for (preset, provider, threads), found in grouped(rows, ("preset", "provider", "threads")).items():
        found = sorted(found, key=_pixels)
        axes.plot(
            [_pixels(row) / 1e6 for row in found],
            [float(row[column]) * scale for row in found],
            marker="o",
            linestyle="-" if provider.startswith("torchp2p") else "--",
            label=f"{preset} {provider}, {threads} thread{'' if threads == '1' else 's'}",
        )
    axes.set(xscale="log", yscale="log", xlabel="megapixels", ylabel=label)
    axes.grid(alpha=0.3, which="both")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _pixels(row: Record) -> int:
    height, _, width = row["size"].partition("x")
    return int(height) * int(width)


def _roofline(plt: Any, limits: Roofs, found: Sequence[Point]) -> Any:
    """Operations a second over operations a byte, under the bandwidth and the peak that the same runs measured."""
    figure, axes = plt.subplots(figsize=(7, 4.5))
    reach = [10 ** (exponent / 10) for exponent in range(-12, 33)]
    roof = [min(limits.gb_per_s * intensity, limits.gflops) for intensity in reach]
    axes.plot(reach, roof, color="black", label=f"{limits.gb_per_s:.0f} GB/s, {limits.gflops:.0f} GFLOP/s")
    for op, provider in dict.fromkeys((point.op, point.provider) for point in found):
        of_op = [point for point in found if (point.op, point.provider) == (op, provider)]
        axes.scatter(
            [point.intensity for point in of_op],
            [point.gflops for point in of_op],
            marker="o" if provider == OURS else "x",
            label=f"{op} {provider}",
        )
    axes.set(xscale="log", yscale="log", xlabel="operations a byte", ylabel="GFLOP/s")
    axes.grid(alpha=0.3, which="both")
    figure.legend(loc="outside right upper", fontsize=7)
    return figure
