"""What the tests of fuse share: a network run forward and backward, and how alike two such runs have to be."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

BOUNDS = {torch.float32: 1e-5, torch.float64: 1e-10}


class Outcome(NamedTuple):
    """What came of one step: tensors that were returned, gradients by name, buffers by name."""

    outputs: list[Tensor]
    gradients: dict[str, Tensor | None]
    buffers: dict[str, Tensor]


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Every tensor of nested lists and tuples."""
    if isinstance(value, Tensor):
        yield value
    else:
        for part in value:
            yield from tensors_in(part)


def step(net: nn.Module, inputs: Sequence[Tensor], seed: int = 3) -> Outcome:
    """Forward with the same dropout, backward from a loss that weighs every output differently."""
    torch.manual_seed(seed)
    given = [x.clone().requires_grad_(x.is_floating_point()) for x in inputs]
    outputs = list(tensors_in(net(*given)))
    generator = torch.Generator().manual_seed(5)
    loss = sum((y * torch.randn(y.shape, generator=generator).to(y)).mean() for y in outputs)
    net.zero_grad()
    loss.backward()
    gradients = {f"input {place}": x.grad for place, x in enumerate(given)}
    gradients |= {name: parameter.grad for name, parameter in net.named_parameters()}
    return Outcome([y.detach() for y in outputs], gradients, dict(net.named_buffers()))


def apart(net: nn.Module, dtype: torch.dtype = torch.float64) -> nn.Module:
    """A copy with tensors of its own."""
    return copy.deepcopy(net).to(dtype)


def assert_same_step(fused: nn.Module, net: nn.Module, inputs: Sequence[Tensor], dtype: torch.dtype) -> None:
    """Outputs, gradients and buffers of one step, each up to the bound of the dtype relative to its largest value.

    A gradient that is 0, as that of a bias in front of an instance norm, is rounding noise: that is held against the
    largest gradient of all.
    """
    inputs = [x.to(dtype) if x.is_floating_point() else x for x in inputs]
    ours, theirs = (step(apart(each, dtype), inputs) for each in (fused, net))
    for place, (mine, plain) in enumerate(zip(ours.outputs, theirs.outputs, strict=True)):
        assert mine.dtype == plain.dtype
        _assert_close(f"output {place}", mine, plain, _size(plain), dtype)
    assert ours.gradients.keys() == theirs.gradients.keys()
    exact = step(apart(net), [x.double() if x.is_floating_point() else x for x in inputs]).gradients
    largest = max(_size(gradient) for gradient in exact.values())
    for name, plain in theirs.gradients.items():
        mine = ours.gradients[name]
        assert (mine is None) == (plain is None), f"only one has a gradient of {name}"
        if mine is not None:
            scale = largest if _size(exact[name]) < 1e-12 * largest else _size(plain)
            _assert_close(f"gradient of {name}", mine, plain, scale, dtype)
    for name, plain in theirs.buffers.items():
        _assert_close(name, ours.buffers[name], plain, _size(plain), dtype)


def _size(tensor: Tensor | None) -> float:
    return 0.0 if tensor is None else tensor.abs().max().item()


def _assert_close(what: str, mine: Tensor, plain: Tensor, scale: float, dtype: torch.dtype) -> None:
    assert mine.shape == plain.shape
    error = (mine.double() - plain.double()).abs().max().item()
    assert error <= BOUNDS[dtype] * scale, f"{what} is off by {error:.1e} where values reach {scale:.1e}"
