"""Which work a training step saves. Every saving is a switch, so that a benchmark can say what it is worth."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from torchp2p.ops._algorithm import require_algorithm


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
        step_in_backward: G of pix2pixHD, and E, are stepped parameter by parameter while the backward pass goes through
            them, and each gradient is freed at once: bit for bit the step afterwards, without memory for all gradients
            beside the activations (182 M of them in the default G), and none is left to look at. Only where nothing
            can come between a gradient and its step: networks of torchp2p, an optimiser that the step has made, not in
            float16, whose GradScaler looks at all gradients first, and not as a CUDA graph.
        recompute: of G of pix2pixHD, E and VGG only what goes from one stretch of layers to the next is kept, and the
            rest is made again in the backward pass: less memory for large images, and more time; see
            ``torchp2p.models.recompute``.
        bf16_state: Adam of pix2pixHD keeps its moments in bfloat16, see ``BFloat16Adam``: half the memory of its
            state, with other rounding, so another training.

    Raises:
        TypeError: a switch that is neither True nor False.
        ValueError: no algorithm of that name.
    """

    judge_once: bool = True
    share_condition: bool = True
    one_batch: bool = True
    label_conv: bool = True
    algorithm: str | None = None
    step_in_backward: bool = True
    recompute: bool = False
    bf16_state: bool = False

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type == "bool" and not isinstance(value, bool):
                raise TypeError(f"{field.name} must be True or False, got {value!r}")
        require_algorithm(self.algorithm)
