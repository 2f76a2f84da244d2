"""A network with tensors of its own, run forward and backward, and how far two such runs are apart."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

NOISE = 1e-3  # of the largest gradient: what is smaller may be rounding, as that of a bias that has no effect


class Step(NamedTuple):
    """What came of one forward and backward pass; gradients and buffers by name."""

    outputs: list[Tensor]
    gradients: dict[str, Tensor]
    buffers: dict[str, Tensor]


def apart(net: nn.Module, dtype: torch.dtype | None = None) -> nn.Module:
    """A copy with parameters and buffers of its own, in ``dtype`` if given."""
    made = {  # what a hook makes of parameters, and will make again
        id(value): value.detach().clone()
        for module in net.modules()
        for value in module.__dict__.values()
        if isinstance(value, Tensor)
    }
    twin = copy.deepcopy(net, made)
    return twin if dtype is None else twin.to(dtype)


def cast(inputs: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """The inputs, floating ones in ``dtype``."""
    return [x.detach().to(dtype) if x.is_floating_point() else x for x in inputs]


def copies(inputs: Sequence[Tensor]) -> list[Tensor]:
    """What a network may be given that changes it in place."""
    return [x.clone() for x in inputs]


def outputs_of(net: nn.Module, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Every floating tensor that the network returns.

    Raises:
        ValueError: there is none.
    """
    found = [y for y in _tensors_in(net(*inputs)) if y.is_floating_point()]
    if not found:
        raise ValueError(f"net must return a floating tensor, or lists or dicts of them; {type(net).__name__} does not")
    return found


def loss_of(outputs: Sequence[Tensor], seed: int) -> Tensor:
    """Mean of each output's values, each with a random weight of its own, summed."""
    generator = torch.Generator().manual_seed(seed)
    weighed = [(y * torch.randn(y.shape, generator=generator).to(y)).mean() for y in outputs]
    return torch.stack([each.to(weighed[0]) for each in weighed]).sum()


def step(net: nn.Module, inputs: Sequence[Tensor], seed: int) -> Step:
    """Forward and backward; ``seed`` is that of dropout and of the loss."""
    given = [x.detach().clone().requires_grad_(x.is_floating_point()) for x in inputs]
    torch.manual_seed(seed)
    outputs = outputs_of(net, copies(given))
    net.zero_grad()
    loss_of(outputs, seed).backward()
    named = [*((f"input {place}", x) for place, x in enumerate(given)), *net.named_parameters()]
    gradients = {name: tensor.grad for name, tensor in named if tensor.grad is not None}
    return Step([y.detach() for y in outputs], gradients, dict(net.named_buffers()))


def largest_error(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], noise: float = 0.0) -> float:
    """Largest difference of a tensor relative to its largest value, or to ``noise`` of the largest of all.

    Infinite where one of the two has a tensor that the other has not.
    """
    if ours.keys() != theirs.keys() or any(ours[name].shape != theirs[name].shape for name in theirs):
        return float("inf")
    sizes = {name: _size(value) for name, value in theirs.items()}
    floor = noise * max(sizes.values(), default=0.0)
    errors = [0.0]
    for name, size in sizes.items():
        difference = _size(ours[name].double() - theirs[name].double())
        errors.append(difference / max(size, floor) if difference else 0.0)
    return float("inf") if any(error != error for error in errors) else max(errors)


def distance(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> float:
    """Distance of all tensors taken as one vector, relative to its length."""
    squares = torch.zeros(2, dtype=torch.float64)
    for name, value in theirs.items():
        squares += torch.stack(
            [(ours[name].double() - value.double()).square().sum(), value.double().square().sum()]
        ).cpu()
    return float((squares[0] / squares[1].clamp(min=1e-300)).sqrt())


def numbered(tensors: Sequence[Tensor]) -> dict[str, Tensor]:
    """The tensors, named by their places."""
    return {str(place): tensor for place, tensor in enumerate(tensors)}


def _size(tensor: Tensor) -> float:
    return float(tensor.double().abs().max()) if tensor.numel() else 0.0


def _tensors_in(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _tensors_in(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors_in(part)
