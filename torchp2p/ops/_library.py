"""The operator library ``torchp2p`` and the one way in which an op enters it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

LIBRARY = torch.library.Library("torchp2p", "DEF")


def register(
    name: str,
    implementation: Callable[..., Any],
    fake: Callable[..., Any],
    setup_context: Callable[..., None],
    backward: Callable[..., Any],
) -> None:
    """Give op ``name`` (its schema already defined) its one implementation, its fake and its gradient.

    The implementation serves every device: it is told the backend, which ``_dispatch`` has chosen.
    """
    LIBRARY.impl(name, implementation, "CompositeExplicitAutograd")
    torch.library.register_fake(f"torchp2p::{name}", fake, lib=LIBRARY)
    torch.library.register_autograd(f"torchp2p::{name}", backward, setup_context=setup_context, lib=LIBRARY)


@cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` under torch.compile, for use as an op's ``compile`` backend (it builds no graph)."""
    inner = torch.compile(function, dynamic=True)

    def run(*args: Any) -> Any:
        with torch.no_grad():
            return inner(*args)

    return run


def differentiate(
    function: Callable[..., tuple[Tensor, ...]],
    inputs: tuple[Tensor | None, ...],
    needs: tuple[bool, ...],
    grad_outputs: tuple[Tensor | None, ...],
) -> list[Tensor | None]:
    """Vector-Jacobian product of a plain-PyTorch ``function`` of ``inputs``: the double backward of an op.

    Each input that needs a gradient is passed as an alias of its own, so one tensor given twice is counted
    once per place, and the result has a graph of its own (for third derivatives) where grad mode is on.
    """
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        aliases: list[Tensor | None] = []
        for tensor, needed in zip(inputs, needs, strict=True):
            if tensor is None or not needed:
                aliases.append(tensor)
            else:
                aliases.append(tensor.view_as(tensor) if tensor.requires_grad else tensor.detach().requires_grad_())
        outputs = function(*aliases)
        pairs = [
            (out, grad)
            for out, grad in zip(outputs, grad_outputs, strict=True)
            if grad is not None and out.requires_grad
        ]
        wanted = [alias for alias, needed in zip(aliases, needs, strict=True) if needed and alias is not None]
        if not pairs or not wanted:
            return [None] * len(inputs)
        found = iter(
            torch.autograd.grad(
                [out for out, _ in pairs],
                wanted,
                [grad for _, grad in pairs],
                allow_unused=True,
                create_graph=create_graph,
            )
        )
    return [next(found) if needed and alias is not None else None for alias, needed in zip(aliases, needs, strict=True)]
