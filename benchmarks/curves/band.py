"""How far loss curves are apart that should be the same: the band that several references span, and who leaves it.

Rounding is amplified by training, so two runs of the very same procedure part as soon as one sum is taken in another
order. The references differ in nothing else. Their band, at each step, is
from the least to the largest of their smoothed losses; it is widened by nothing.

A band of k runs is left often even by one more run of the same procedure: at one step, k + 1 equals being in any order
with the same probability, it is the least or the largest in 2 of k + 1 cases. That is the share to hold others
against. So is every reference, judged by the band of the others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Curve = Sequence[float]

WINDOW = 10
"""Steps that a smoothed loss is the mean of, the newest the last; fewer at the beginning."""


@dataclass(frozen=True)
class Verdict:
    """One run and one loss, held against a band.

    Attributes:
        run, loss: which.
        references: runs that span the band.
        inside: share of the steps at which it is within the band, its edges included.
        excursion: the largest distance from the band, in units of the mean width of the band over all steps.
        apart: the distance to a reference: the root mean square, over all steps, of the difference of smoothed losses;
            of several references the mean.
    """

    run: str
    loss: str
    references: int
    inside: float
    excursion: float
    apart: float

    @property
    def expected(self) -> float:
        """The share of steps at which one more reference would be inside."""
        return (self.references - 1) / (self.references + 1)


def smoothed(curve: Curve) -> list[float]:
    """The mean of the last WINDOW values at each step."""
    parts = [curve[max(0, end - WINDOW) : end] for end in range(1, len(curve) + 1)]
    return [sum(part) / len(part) for part in parts]


def band(references: Sequence[Curve]) -> list[tuple[float, float]]:
    """The least and the largest smoothed loss at each step."""
    return [(min(values), max(values)) for values in zip(*map(smoothed, references), strict=True)]


def judge(run: str, loss: str, curve: Curve, references: Sequence[Curve]) -> Verdict:
    """``curve``, one loss of ``run``, against the band of ``references``, of which there are at least two."""
    edges, smooth = band(references), smoothed(curve)
    outside = [max(low - value, value - high, 0.0) for value, (low, high) in zip(smooth, edges, strict=True)]
    width = sum(high - low for low, high in edges) / len(edges)
    inside = outside.count(0.0) / len(outside)
    excursion = max(outside) / width if width else math.inf if max(outside) else 0.0
    apart = sum(math.dist(smooth, smoothed(each)) for each in references) / len(references) / math.sqrt(len(smooth))
    return Verdict(run, loss, len(references), inside, excursion, apart)


def verdicts(ours: Mapping[str, Curve], references: Mapping[str, Mapping[str, Curve]], name: str) -> list[Verdict]:
    """Ours, called ``name``, against all references, and each reference against the others, loss by loss."""
    found = []
    for loss, curve in ours.items():
        found.append(judge(name, loss, curve, [each[loss] for each in references.values()]))
        for run, curves in references.items():
            others = [each[loss] for other, each in references.items() if other != run]
            found.append(judge(run, loss, curves[loss], others))
    return found
