"""Which work a training step saves. Every saving is a switch, so that a benchmark can say what it is worth."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Lean:
    """The savings of a training step: on where the mathematics stay the same but for rounding.

    Args:
        judge_once: D of pix2pixHD judges the fake once, for its own loss and for that of G, where there is no pool
            and D has no running statistics, which would count it twice (spec section 11.2, R1).
        share_condition: what D's first convolution makes of labels and edges, or of the input image, is made once for
            the real image and the fake, and no gradient is taken of them (R3 to R5).
        one_batch: D of pix2pix judges the fake and the real image as one batch when it is trained, its batch norm with
            statistics of each alone (R15).
        label_conv: networks that can look labels up, instead of convolving as many channels of ones and zeros (R6).
        algorithm: of convolutions, wherever it can run; see ``torchp2p.algorithm``. None for the one that was found to
            be the fastest as exact as torch's own.
    """

    judge_once: bool = True
    share_condition: bool = True
    one_batch: bool = True
    label_conv: bool = True
    algorithm: str | None = None
