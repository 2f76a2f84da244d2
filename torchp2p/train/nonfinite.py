"""Where an infinity or a nan comes from: the first layer of a forward pass whose output has one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn


def first_nonfinite(networks: Mapping[str, nn.Module], forward: Callable[[], object]) -> str | None:
    """The name of the first layer whose output is not finite, such as ``G.model.16.conv_block.1``.

    Args:
        networks: by the name that their layers are to have in front.
        forward: runs them; without gradients, and once.

    Returns:
        None where every output is finite.
    """
    found: list[str] = []
    handles = []
    for label, network in networks.items():
        for name, layer in network.named_modules(prefix=label):

            def look(_layer: nn.Module, _inputs: Any, output: Any, name: str = name) -> None:
                if not found and not all(each.isfinite().all() for each in _tensors(output)):
                    found.append(name)

            handles.append(layer.register_forward_hook(look))
    try:
        with torch.no_grad():
            forward()
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


def _tensors(output: Any) -> list[Tensor]:
    """The tensors in what a module returns: one, or lists of any depth; anything else is not looked into."""
    if isinstance(output, Tensor):
        return [output]
    return [tensor for each in output for tensor in _tensors(each)] if isinstance(output, (list, tuple)) else []
