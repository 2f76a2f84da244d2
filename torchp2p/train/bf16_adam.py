"""Adam with its two moments in bfloat16: half the memory of its state, at a rounding of the steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

CHUNK = 1 << 17
"""Values that are stepped at a time: what is computed for them in float32 stays in the cache."""

_BELOW = 1 << 16
"""How many float32 there are from one bfloat16 to the next."""

_GOLDEN = round(_BELOW * (math.sqrt(5) - 1) / 2)


class BFloat16Adam(torch.optim.Optimizer):
    """Adam without weight decay that computes in float32 and keeps its moments in bfloat16.

    The mean of the gradients is rounded to the nearest bfloat16, which is off by at most 2^-9 of it. That would not
    do for the mean of their squares: with ``beta2`` 0.999 a step changes it by a thousandth or so, and what is less
    than half a bfloat16 would be lost again and again. It is rounded up or down by a threshold that moves with every
    step, along the multiples of the golden ratio, the same for all parameters: over any number of steps a value is
    rounded up as often as its fraction says. With gradients of pure noise it so stays within a tenth of what it would
    be in float32, with a standard deviation of a fortieth (rounded at random, twice that; to the nearest, it is wrong
    by more than its own size as soon as gradients become smaller), and the length of a step within half of that.
    Nothing is random: two runs are alike, and the state in a checkpoint is all that a training goes on from.

    A state of ``torch.optim.Adam`` is taken up too.

    Args:
        parameters: float32, on any device.
        lr, betas, eps: as in ``torch.optim.Adam``.

    Raises:
        TypeError: a parameter that is not float32; in a step, a gradient that is sparse.
        ValueError: no parameters; lr or eps negative, or betas that are not two numbers from 0 to below 1.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "eps": eps})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Step these parameters too; what is refused when an optimiser is made is refused here."""
        super().add_param_group(param_group)
        try:
            _check(self.param_groups[-1])
        except (TypeError, ValueError):
            del self.param_groups[-1]
            raise

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step all parameters that have a gradient; returns what ``closure`` does, which may find the gradients."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step(parameter, group)
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a state, of this class or of ``torch.optim.Adam``."""
        super().load_state_dict(state_dict)  # as float32, which every bfloat16 is
        for state in self.state.values():
            for name in ("exp_avg", "exp_avg_sq"):
                state[name] = state[name].bfloat16()

    def _step(self, parameter: nn.Parameter, group: dict[str, Any]) -> None:
        if parameter.grad.layout != torch.strided:  # type: ignore[union-attr]
            raise TypeError(f"gradients must be dense, got {parameter.grad.layout}")  # type: ignore[union-attr]
        state = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)
            for name in ("exp_avg", "exp_avg_sq"):
                state[name] = torch.zeros_like(parameter, dtype=torch.bfloat16)
        state["step"] += 1
        count, (beta1, beta2) = int(state["step"]), group["betas"]
        length, shrunk = group["lr"] / (1 - beta1**count), math.sqrt(1 - beta2**count)
        threshold = count * _GOLDEN % _BELOW
        tensors = (parameter, parameter.grad, state["exp_avg"], state["exp_avg_sq"])
        for p, grad, mean, square in zip(*map(_chunks, tensors), strict=True):
            m = mean.float().lerp_(grad, 1 - beta1)
            v = square.float().mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
            p.addcdiv_(m, v.sqrt().div_(shrunk).add_(group["eps"]), value=-length)
            mean.copy_(m)
            square.copy_(_rounded(v, threshold))


def _check(group: dict[str, Any]) -> None:
    for parameter in group["params"]:
        if parameter.dtype != torch.float32:
            raise TypeError(f"parameters must be float32, got {parameter.dtype}")
    for name in ("lr", "eps"):
        if not _is_number(group[name]) or not group[name] >= 0:
            raise ValueError(f"{name} must be a number that is not negative, got {group[name]!r}")
    betas = group["betas"]
    pair = isinstance(betas, (tuple, list)) and len(betas) == 2
    if not pair or not all(_is_number(beta) and 0 <= beta < 1 for beta in betas):
        raise ValueError(f"betas must be two numbers from 0 to below 1, got {betas!r}")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float))


def _chunks(x: Tensor) -> tuple[Tensor, ...]:
    """Slices of x along its first dimension, of about CHUNK values; any strides."""
    x = x if x.dim() else x[None]
    chunks: tuple[Tensor, ...] = x.split(max(1, CHUNK * len(x) // max(1, x.numel())))
    return chunks


def _rounded(v: Tensor, threshold: int) -> Tensor:
    """v, not negative, in place: the next bfloat16 where it is more than 1 - ``threshold`` / 2^16 of the way to it."""
    v.view(torch.int32).add_(threshold).bitwise_and_(-_BELOW)  # the upper half of a float32 is a bfloat16
    return v
