"""A copy of a network that has the very same parameters and buffers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn


def sharing_copy(module: nn.Module) -> nn.Module:
    """A copy of all modules, with the parameters, buffers and hooks of the original.

    Tensors are shared, so an optimiser of the one trains the other; so is whatever hooks belong to, unless that is
    one of the modules.
    """
    shared: dict[int, Any] = {}
    modules = set(module.modules())
    for part in modules:
        tensors = (*part._parameters.values(), *part._buffers.values(), *part.__dict__.values())
        shared.update((id(tensor), tensor) for tensor in tensors if isinstance(tensor, Tensor))
        for hook in _hooks(part):
            owner = getattr(hook, "__self__", hook)
            if not isinstance(owner, nn.Module) or owner not in modules:
                shared[id(owner)] = owner
    return copy.deepcopy(module, shared)


def _hooks(module: nn.Module) -> Iterator[Callable[..., Any]]:
    for name, value in module.__dict__.items():
        if name.endswith("_hooks") and isinstance(value, dict):
            yield from (hook for hook in value.values() if callable(hook))
