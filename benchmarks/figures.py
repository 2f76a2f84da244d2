"""matplotlib as the plots of the documents use it: the same rows make the same file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torchp2p.files import atomic_write

SALT = "torchp2p"
"""Of the names inside an SVG file, so that the same rows make the same bytes."""


def pyplot() -> Any:
    """matplotlib's pyplot, told to make SVG.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install torchp2p[plots]") from error
    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": SALT, "figure.constrained_layout.use": True, "font.size": 9})
    from matplotlib import pyplot

    return pyplot


def save(figure: Any, path: Path) -> Path:
    """Write the figure, all or nothing, into a folder that is made if need be; ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, lambda file: figure.savefig(file, format="svg", metadata={"Date": None}))
    return path
