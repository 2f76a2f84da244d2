"""Modules change what they do, and nothing else, by changing their class to a subclass and back.

The object stays the same, with its parameters, children, hooks and names; whoever refers to it refers to it still.
"""

from __future__ import annotations

from typing import Any

from torch import nn


class Fused(nn.Module):
    """In front of a class of module: does its work in fused operations, and is a module of that class in all else."""

    _kind: Any
    _original: type[nn.Module]

    def __reduce_ex__(self, protocol: Any) -> Any:
        # The classes are made as needed and have no name to be found by: a pickle holds what they are made of.
        reduced: Any = super().__reduce_ex__(protocol)
        make, (_, *arguments), *rest = reduced
        return _remade, (make, type(self)._kind, type(self)._original, *arguments), *rest


_MADE: dict[Any, Any] = {}


def fused_class(kind: Any, original: Any) -> Any:
    """The class that is ``original``, but for the forward of ``kind``, a subclass of Fused."""
    if (kind, original) not in _MADE:
        members = {"_kind": kind, "_original": original, "__doc__": kind.__doc__}
        _MADE[kind, original] = type(f"Fused{original.__name__}", (kind, original), members)
    return _MADE[kind, original]


def original_class(cls: type[nn.Module]) -> Any:
    """The class that a fused one was made of; any other class is its own."""
    return cls._original if issubclass(cls, Fused) else cls


def _remade(make: Any, kind: Any, original: Any, *arguments: Any) -> Any:
    return make(fused_class(kind, original), *arguments)
