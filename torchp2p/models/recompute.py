"""Activations that are not kept for the backward pass, but made again in it: memory for time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

# A plain global, as the preferred algorithm of convolutions is one: torch.compile guards on it.
_on = False


@contextlib.contextmanager
def recompute(on: bool = True) -> Iterator[None]:
    """Within this context networks keep for the backward pass only what goes from one stretch of layers to the next.

    A residual block is a stretch, and so is what stands before, between or behind those of GlobalGenerator,
    LocalEnhancer and InstanceEncoder, and what lies between two maps of VGG19Features. In the backward pass each
    stretch is run once more, just before its gradients are found. Results are the same bit for bit, gradients but for
    rounding (what stretches hand on is read as it was, where it is otherwise made again from its statistics); dropout
    draws the same numbers, and running statistics count a batch once. Hooks on layers are called in both passes.

    Only the forward pass has to be within the context.

    Args:
        on: False for networks that keep their activations, as they do outside of any such context.
    """
    global _on
    before, _on = _on, on
    try:
        yield
    finally:
        _on = before


def recomputes() -> bool:
    """Whether activations are to be made again: in the context, where gradients are wanted at all."""
    return _on and torch.is_grad_enabled()


def run_stretch(function: Callable[[Any], Any], x: Any, layers: Sequence[nn.Module]) -> Any:
    """``function(x)``, of which x alone is kept.

    Args:
        function: of x and of the parameters of ``layers``, to a tensor.
        x: a tensor, or whatever else ``function`` takes.
        layers: whose running statistics ``function`` updates.
    """
    buffers = [buffer for layer in layers for buffer in layer.buffers()]
    return checkpoint(
        function, x, use_reentrant=False, context_fn=lambda: (contextlib.nullcontext(), _kept_as_they_are(buffers))
    )


@contextlib.contextmanager
def _kept_as_they_are(buffers: list[torch.Tensor]) -> Iterator[None]:
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(value)
