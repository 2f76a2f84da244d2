"""The modules that a fused network is made of."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from torchp2p.fuse.classes import Fused
from torchp2p.fuse.kinds import links_of
from torchp2p.fuse.runs import normalisation_of, runs_of
from torchp2p.ops import Deferred

_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


class FusedChain(Fused):
    """A Sequential that does the runs it finds among its layers as fused operations.

    It looks at its layers anew at every call, so that a hook, a parametrization or another layer that came to it
    after it was fused is respected; the layers themselves are as they were.
    """

    def forward(self, x: Tensor) -> Tensor:
        """What the layers make of x, one after the other."""
        if not _is_fusible(x):
            plain: Tensor = super().forward(x)
            return plain
        state = Deferred(x)
        for run in runs_of(links_of(self)):  # type: ignore[arg-type]
            state = run(state)
        return state.tensor()


class FusedNorm(Fused):
    """An InstanceNorm2d in one pass, which keeps the layout, wherever it stands."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W), normalised."""
        if not _is_fusible(x):
            plain: Tensor = super().forward(x)
            return plain
        return Deferred(x, **normalisation_of(self)).tensor()


def _is_fusible(x: object) -> bool:
    """Whether the ops know such an input, and nobody wants to see torch's own operators."""
    return (
        isinstance(x, Tensor)
        and x.dim() == 4
        and x.dtype in _DTYPES
        and not torch.jit.is_tracing()
        and not _is_exporting()
        and not nn.modules.module._has_any_global_hook()
    )


def _is_exporting() -> bool:
    exporting = getattr(torch.compiler, "is_exporting", None)  # since torch 2.7
    return exporting is not None and bool(exporting())
