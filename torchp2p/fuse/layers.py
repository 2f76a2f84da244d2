"""The modules that a fused network is made of."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from torchp2p.fuse.classes import Fused
from torchp2p.fuse.kinds import links_of
from torchp2p.fuse.runs import computed, is_known, normalisation_of, runs_of
from torchp2p.ops import Deferred


class FusedChain(Fused):
    """A Sequential that does the runs it finds among its layers as fused operations.

    It looks at its layers anew at every call, so that a hook, a parametrization or another layer that came to it
    after it was fused is respected; the layers themselves are as they were.
    """

    def forward(self, input: Any) -> Any:
        """What the layers make of the input, one after the other."""
        if _is_watched_everywhere():
            return super().forward(input)
        x = input
        for run in runs_of(links_of(cast(nn.Sequential, self))):
            x = run(x)
        return computed(x)


class FusedNorm(Fused):
    """An InstanceNorm2d in one pass, which keeps the layout, wherever it stands."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W), normalised."""
        if _is_watched_everywhere() or not is_known(input):
            plain: Tensor = super().forward(input)
            return plain
        return Deferred(input, **normalisation_of(self)).tensor()


def _is_watched_everywhere() -> bool:
    """Whether somebody wants to see every module, or operators of torch's own: hooks, tracers, transforms, modes."""
    if nn.modules.module._has_any_global_hook():
        return True
    if torch.compiler.is_compiling():
        exporting = getattr(torch.compiler, "is_exporting", None)  # since torch 2.7
        return exporting is not None and bool(exporting())
    return bool(
        torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch.autograd.forward_ad._current_level >= 0
    )
