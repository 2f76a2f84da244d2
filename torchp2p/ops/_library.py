"""The operator library ``torchp2p`` and the one way in which an op enters it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from torchp2p.ops._direct import Operator

LIBRARY = torch.library.Library("torchp2p", "DEF")


def register(
    name: str,
    implementation: Callable[..., Any],
    fake: Callable[..., Any],
    setup_context: Callable[..., None] | None = None,
    backward: Callable[..., Any] | None = None,
) -> Operator:
    """Give op ``name`` (its schema already defined) its one implementation, its fake and, if any, its gradient.

    The implementation serves every device: it is told the backend, which ``_dispatch`` has chosen.

    Returns:
        The operator, to be called in place of ``torch.ops.torchp2p.<name>``: it is the same, and quicker.
    """
    LIBRARY.impl(name, implementation, "CompositeExplicitAutograd")
    torch.library.register_fake(f"torchp2p::{name}", fake, lib=LIBRARY)
    if backward is not None:
        torch.library.register_autograd(f"torchp2p::{name}", backward, setup_context=setup_context, lib=LIBRARY)
    if name.endswith("_backward"):  # its gradient is the rare second one, which can wait for the dispatcher
        return Operator(name, implementation)
    return Operator(name, implementation, setup_context, backward)


_COMPILED_OPTIONS = 64


@cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` under torch.compile, for use as an op's ``compile`` backend (it builds no graph).

    Every combination of options is compiled once. torch would stop at 8 of them and silently run eager.
    """
    inner = torch.compile(function, dynamic=True)

    def run(*args: Any) -> Any:
        with torch.no_grad(), torch._dynamo.config.patch(recompile_limit=_COMPILED_OPTIONS):
            return inner(*args)

    return run


def implementation(function: Callable[..., Any], backend: str) -> Callable[..., Any]:
    """What computes ``function``, one of ``torchp2p.reference``, on a backend other than native.

    For ``triton`` it is the function of the same name in ``torchp2p.kernels.<op>``, for ``compile`` the reference
    under torch.compile, for ``reference`` itself. All take and return the same.
    """
    if backend == "triton":
        return _kernel(function)
    return compiled(function) if backend == "compile" else function


@cache
def _kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    op = function.__module__.rpartition(".")[2]
    found: Callable[..., Any] = getattr(importlib.import_module(f"torchp2p.kernels.{op}"), function.__name__)
    return found


def with_own_memory(outputs: Sequence[Tensor], inputs: Sequence[Any]) -> list[Tensor]:
    """``outputs``, copied where they share memory with an input or with one another.

    An operator must not hand out what it was given, and plain PyTorch code does where there is nothing to do.
    """
    taken = {_memory(tensor) for tensor in inputs if isinstance(tensor, Tensor)}
    fresh = []
    for output in outputs:
        fresh.append(output.clone() if _memory(output) in taken else output)
        taken.add(_memory(fresh[-1]))
    return fresh


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr() or id(tensor)  # nothing has no address


def needed_gradients(ctx: Any) -> tuple[bool, ...]:
    """``ctx.needs_input_grad`` without what the backward pass that runs was not asked for.

    A pass with ``inputs``, as ``torch.autograd.grad`` is one, says nothing of it to a Function, which would compute
    gradients of weights only to have them thrown away. Torch's own operators are told.
    """
    needs: tuple[bool, ...] = ctx.needs_input_grad
    nodes = [node for node, _ in ctx.next_functions if node is not None]  # of the tensors that require a gradient
    if torch._C._current_graph_task_id() < 0 or len(nodes) != sum(needs):
        return needs
    runs = iter(nodes)
    return tuple(needed and _is_asked_for(next(runs)) for needed in needs)


def _is_asked_for(node: Any) -> bool:
    try:
        return torch._C._will_engine_execute_node(node)
    except RuntimeError:  # a leaf whose gradient is returned instead of accumulated
        return True


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
