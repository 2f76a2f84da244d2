"""The phase of coarse to fine in which the outermost enhancer alone is trained (spec section 5.4)."""

from __future__ import annotations

import re

from torch import nn


def freeze_all_but_the_outermost_enhancer(G: nn.Module) -> None:
    """Let gradients be taken of ``model{n}_1`` and ``model{n}_2`` of the largest n alone.

    Raises:
        ValueError: G has no enhancers.
    """
    enhancers = [int(match[1]) for name, _ in G.named_parameters() if (match := re.match(r"model(\d+)_", name))]
    if not enhancers:
        raise ValueError(f"G must have local enhancers with fix_global, got a {type(G).__name__}")
    outermost = f"model{max(enhancers)}_"
    for name, parameter in G.named_parameters():
        parameter.requires_grad_(name.startswith(outermost))


def trainable(*networks: nn.Module | None) -> list[nn.Parameter]:
    """The parameters of the networks that are there, but for frozen ones."""
    return [
        parameter for net in networks if net is not None for parameter in net.parameters() if parameter.requires_grad
    ]
