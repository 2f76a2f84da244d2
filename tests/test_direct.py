"""Ops without the dispatcher: the same results, and the registered operator for whoever looks."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from torchp2p import ops
from torchp2p.ops import _direct

LABELS = torch.randint(0, 3, (1, 1, 8, 8), generator=torch.Generator().manual_seed(0))
WEIGHT = torch.linspace(-1, 1, 4 * 4 * 9).view(4, 4, 3, 3)

CALLS: dict[str, Callable[[Tensor], Tensor]] = {
    "norm_act": lambda x: ops.norm_act(x),
    "gan_loss": lambda x: ops.gan_loss([x, [x, 2 * x]], True),
    "feature_matching_loss": lambda x: ops.feature_matching_loss([x, 2 * x], [x.detach() + 1, x.detach()]),
    "instance_avg_pool": lambda x: ops.instance_avg_pool(x, LABELS),
    "label_conv2d": lambda x: ops.label_conv2d(LABELS, WEIGHT, dense=x[:, :1], padding=1),
    "conv_norm_act": lambda x: ops.conv_norm_act(x, WEIGHT, padding=1),
}


class Recorder(TorchDispatchMode):
    """Notes the name of every operator of this package that runs."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "torchp2p":
            self.seen.append(func._schema.name.removeprefix("torchp2p::"))
        return func(*args, **(kwargs or {}))


def image() -> Tensor:
    return torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1)).requires_grad_()


@pytest.mark.parametrize("op", CALLS)
def test_value_and_gradient_are_those_of_the_registered_operator(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def both() -> tuple[Tensor, Tensor]:
        x = image()
        y = CALLS[op](x)
        (gradient,) = torch.autograd.grad(y, x, torch.ones_like(y))
        return y.detach(), gradient

    direct = both()
    monkeypatch.setattr(_direct, "_observed", lambda: True)
    for ours, registered in zip(direct, both(), strict=True):
        assert torch.equal(ours, registered)


@pytest.mark.parametrize("op", CALLS)
def test_nobody_looking_the_dispatcher_is_not_asked(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise AssertionError("the registered operator was called")

    for value in vars(importlib.import_module(f"torchp2p.ops.{op}")).values():
        if isinstance(value, _direct.Operator):
            monkeypatch.setattr(value, "_registered", refuse)
    CALLS[op](image()).sum().backward()


@pytest.mark.parametrize("op", CALLS)
def test_a_dispatch_mode_sees_the_operator(op: str) -> None:
    with Recorder() as recorder:
        CALLS[op](image())
    assert op in recorder.seen


def test_a_profiler_sees_the_operator() -> None:
    with torch.profiler.profile() as profile:
        CALLS["norm_act"](image())
    assert "torchp2p::norm_act" in {event.key for event in profile.key_averages()}


def test_a_trace_holds_the_operator() -> None:
    graph = make_fx(CALLS["norm_act"])(image().detach())
    assert torch.ops.torchp2p.norm_act.default in {node.target for node in graph.graph.nodes}


def test_a_tensor_subclass_gets_the_operator() -> None:
    seen = []

    class Loud(Tensor):
        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(str(func))
            return super().__torch_function__(func, types, args, kwargs or {})

    CALLS["norm_act"](image().detach().as_subclass(Loud))
    assert any("torchp2p.norm_act" in name for name in seen)


def test_a_saved_tensor_that_is_overwritten_is_noticed() -> None:
    leaf = image()
    x = leaf * 1
    y = ops.norm_act(x)
    x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_the_second_gradient_goes_through_the_registered_operator() -> None:
    x = image().double().detach().requires_grad_()
    (gradient,) = torch.autograd.grad(ops.norm_act(x).square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), x)
    assert second.abs().sum() > 0
