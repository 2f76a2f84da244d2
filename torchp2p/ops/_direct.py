"""Calling an op without the dispatcher where nothing would notice but the clock.

A Python operator of torch.library costs tens of microseconds a call, most of them in its autograd wrapper. In
plain eager mode the same implementation, context and gradient run as a ``torch.autograd.Function`` instead, or
just as the function they are. Whoever traces, transforms, profiles or subclasses gets the registered operator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

_PLAIN = frozenset((Tensor, Parameter))
_VALUES = frozenset((str, int, float, bool, type(None)))


class Operator:
    """A registered operator as ops call it.

    Args:
        name: in ``torch.ops.torchp2p``.
        implementation: what it was registered with.
        setup_context, backward: likewise; None has the registered operator called where a gradient is recorded.
            With a list of tensors among its arguments the op returns a tensor and a list of them.
    """

    def __init__(
        self,
        name: str,
        implementation: Callable[..., Any],
        setup_context: Callable[..., None] | None = None,
        backward: Callable[..., Any] | None = None,
    ) -> None:
        self._registered = getattr(torch.ops.torchp2p, name)
        self._implementation = implementation
        self._function = _function(implementation, setup_context, backward) if setup_context and backward else None

    def __call__(self, *args: Any) -> Any:
        """The result, differentiable where an argument requires a gradient."""
        if _observed():
            return self._registered(*args)
        requires_grad = lists = False
        for arg in args:
            if type(arg) in _VALUES:
                continue
            for tensor in arg if type(arg) is list else (arg,):
                if type(tensor) in _PLAIN and not tensor.is_meta:
                    requires_grad |= tensor.requires_grad
                elif isinstance(tensor, Tensor):
                    return self._registered(*args)
            lists |= _is_tensor_list(arg)
        if not (requires_grad and torch.is_grad_enabled()):
            return self._implementation(*args)
        if self._function is None:
            return self._registered(*args)
        if not lists:
            return self._function.apply(*args, None)
        lengths = [len(arg) if _is_tensor_list(arg) else None for arg in args]
        head, *rest = self._function.apply(*_flat(args), lengths)
        return head, rest


def _observed() -> bool:
    """Whether somebody looks at which operators run: a compiler, a tracer, a transform, a profiler."""
    return (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._are_functorch_transforms_active()
        or torch._C._get_tracing_state() is not None
        or torch.autograd._profiler_enabled()
    )


def _function(
    implementation: Callable[..., Any], setup_context: Callable[..., None], backward: Callable[..., Any]
) -> type[torch.autograd.Function]:
    class Direct(torch.autograd.Function):
        """Takes the arguments, lists of tensors spread out, and at the end the lengths of those lists."""

        @staticmethod
        def forward(ctx: Any, *flat: Any) -> Any:
            *spread, lengths = flat
            args = tuple(spread) if lengths is None else tuple(_nested(spread, lengths))
            output = implementation(*args)
            setup_context(ctx, args, output)
            return output if lengths is None else tuple(_flat(output))

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            found = backward(ctx, *grads)
            found = found if isinstance(found, tuple) else (found,)
            return (*_flat(found), None)

    return Direct


def _is_tensor_list(arg: Any) -> bool:
    return isinstance(arg, list) and bool(arg) and isinstance(arg[0], Tensor)


def _flat(values: Iterable[Any]) -> list[Any]:
    """``values``, lists of tensors and of gradients (of which some may be None) spread out."""
    flat: list[Any] = []
    for value in values:
        if isinstance(value, list) and (not value or value[0] is None or isinstance(value[0], Tensor)):
            flat += value
        else:
            flat.append(value)
    return flat


def _nested(flat: list[Any], lengths: list[int | None]) -> Iterable[Any]:
    """What ``_flat`` has spread out: each length is that of a list, None stands for a single value."""
    at = 0
    for length in lengths:
        yield flat[at] if length is None else flat[at : at + length]
        at += 1 if length is None else length
