"""The loss curves of torchp2p beside those of the original, as a table: who stays where the original stays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..curves.band import verdicts
from ..loss_curves import read
from ..step.providers import OURS
from .records import markdown

COLUMNS = (
    "loss", "torchp2p inside", "one more run", "originals inside", "torchp2p's excursion", "originals' largest",
    "torchp2p apart", "originals apart",
)  # fmt: skip


def tables(folder: Path) -> str:
    """One table for each file of curves in ``folder``."""
    return "\n\n".join(_table(path) for path in sorted(folder.glob("loss_curves_*.csv"))) or "No curves yet."


def _table(path: Path) -> str:
    title, ours, references = read(path)
    return f"{title}, band of {len(references)} runs\n\n{markdown(COLUMNS, _lines(ours, references), text_columns=1)}"


def _lines(ours: dict[str, list[float]], references: dict[str, dict[str, list[float]]]) -> Iterator[tuple[str, ...]]:
    found = verdicts(ours, references, OURS)
    for loss in ours:
        own, *others = (verdict for verdict in found if verdict.loss == loss)
        inside, apart = ([getattr(verdict, name) for verdict in others] for name in ("inside", "apart"))
        yield (
            loss,
            f"{own.inside:.0%}",
            f"{own.expected:.0%}",
            f"{min(inside):.0%} to {max(inside):.0%} ({others[0].expected:.0%})",
            f"{own.excursion:.2f}",
            f"{max(verdict.excursion for verdict in others):.2f}",
            f"{own.apart:.3g}",
            f"{min(apart):.3g} to {max(apart):.3g}",
        )
