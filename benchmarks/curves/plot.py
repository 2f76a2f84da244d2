"""Loss curves as a picture: the band of the references with ours in it, and how all of them part."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..figures import pyplot, save
from .band import WINDOW, Curve, band, smoothed

INCHES = (3.4, 2.6)
OURS, THEIRS = "#c2410c", "#64748b"


def draw(path: Path, title: str, ours: Mapping[str, Curve], references: Mapping[str, Mapping[str, Curve]]) -> None:
    """Two rows of panels, a column a loss: the smoothed curves, and the distance of each to the mean of the references.

    Raises:
        ImportError: matplotlib is not installed.
        OSError: ``path`` cannot be written.
    """
    plt = pyplot()
    size = (INCHES[0] * len(ours), INCHES[1] * 2)
    figure, panels = plt.subplots(2, len(ours), figsize=size, squeeze=False)
    for column, (loss, curve) in enumerate(ours.items()):
        others = {run: smoothed(curves[loss]) for run, curves in references.items()}
        _curves(panels[0][column], loss, smoothed(curve), band([curves[loss] for curves in references.values()]))
        _distances(panels[1][column], smoothed(curve), others)
    panels[0][0].legend(frameon=False, fontsize="small")
    panels[1][0].set_ylabel("distance to the mean\nof the references")
    panels[1][0].legend(frameon=False, fontsize="small")
    figure.suptitle(f"{title}, mean of {WINDOW} steps")
    save(figure, path)
    plt.close(figure)


def _curves(panel: Any, loss: str, ours: Curve, edges: list[tuple[float, float]]) -> None:
    steps = range(1, len(ours) + 1)
    low, high = zip(*edges, strict=True)
    panel.fill_between(steps, low, high, color=THEIRS, alpha=0.5, linewidth=0, label="band of the references")
    panel.plot(steps, ours, color=OURS, linewidth=1, label="torchp2p")
    panel.set_title(loss)


def _distances(panel: Any, ours: Curve, references: Mapping[str, Curve]) -> None:
    steps = range(1, len(ours) + 1)
    mean = [sum(values) / len(values) for values in zip(*references.values(), strict=True)]

    def distance(curve: Curve) -> list[float]:
        return [abs(value - middle) for value, middle in zip(curve, mean, strict=True)]

    for number, curve in enumerate(references.values()):
        panel.plot(steps, distance(curve), color=THEIRS, linewidth=0.7, label="" if number else "references")
    panel.plot(steps, distance(ours), color=OURS, linewidth=1, label="torchp2p")
    panel.set_yscale("log")
    panel.set_xlabel("step")
