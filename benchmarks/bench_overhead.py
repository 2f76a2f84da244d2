"""What one call of an op costs the host: microseconds on tensors too small to matter, on one thread.

    python -m benchmarks.bench_overhead [--quick]

Modes: forward (no_grad), forward_grad (the graph is recorded), forward_backward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from torchp2p import ops

from .harness import EAGER, Case, Provider, Session, arguments, timed_call
from .program import run_as_program
from .results import OURS

MODES = ("forward", "forward_grad", "forward_backward")
SHAPE = (1, 1, 4, 4)


def eager_norm_act(x: Tensor) -> Tensor:
    return F.leaky_relu(F.instance_norm(x), 0.2, inplace=True)


def native_norm_act(x: Tensor) -> Tensor:
    return ops.norm_act(x)


def native_gan_loss(x: Tensor) -> Tensor:
    return ops.gan_loss(x, True)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, show and keep."""
    parser = arguments(__doc__)
    parser.set_defaults(threads=1)
    session = Session(parser.parse_args(argv))
    x = torch.randn(SHAPE)
    target = torch.ones_like(x)
    compare(session, "norm_act", "instance leaky_relu", x, eager_norm_act, native_norm_act)
    compare(session, "gan_loss", "lsgan", x, lambda x: F.mse_loss(x, target), native_gan_loss)
    compare(
        session, "feature_matching_loss", "l1", x,
        lambda x: F.l1_loss(x, target), lambda x: ops.feature_matching_loss(x, target),
    )  # fmt: skip
    session.save()


def compare(
    session: Session,
    op: str,
    config: str,
    x: Tensor,
    eager: Callable[[Tensor], Tensor],
    native: Callable[[Tensor], Tensor],
) -> None:
    """One op in every mode; no traffic is stated, for none is to be seen."""
    case = Case(op, config, "float32", "x".join(map(str, SHAPE)), {})
    both = [
        Provider(EAGER, lambda mode: timed_call(eager, [x], mode)),
        Provider(OURS, lambda mode: timed_call(native, [x], mode)),
    ]
    session.run(case, both, MODES)


if __name__ == "__main__":
    run_as_program(main)
