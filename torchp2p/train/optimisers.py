"""Adam as both papers use it, and its learning rate (spec section 5.3)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from torchp2p.train.bf16_adam import BFloat16Adam


def adam(
    parameters: Iterable[nn.Parameter], lr: float, beta1: float, *, bf16_state: bool = False
) -> torch.optim.Optimizer:
    """Adam with betas (``beta1``, 0.999), eps 1e-8 and no weight decay, its state in bfloat16 if asked."""
    if bf16_state:
        return BFloat16Adam(parameters, lr, (beta1, 0.999))
    return torch.optim.Adam(parameters, lr=lr, betas=(beta1, 0.999), fused=True)


def set_lr(lr: float, *optimizers: torch.optim.Optimizer | None) -> None:
    """Set the learning rate of all parameters of those ``optimizers`` that are there.

    A rate that is a tensor is written to: a CUDA graph reads it where it is.
    """
    for optimizer in optimizers:
        for group in optimizer.param_groups if optimizer is not None else ():
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr


@contextlib.contextmanager
def stepping_in_backward(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Within this context a backward pass steps every parameter as soon as its gradient is there, and frees that.

    The result is that of ``optimizer.step()`` after the backward pass, where each parameter is stepped by its own
    gradient alone, as Adam does, and has its whole gradient at once: no wrapper that averages gradients over
    processes, no nested backward pass (reentrant checkpoints) through a parameter that is used twice.

    Args:
        optimizer: all gradients of its parameters are None.
    """

    def step(parameter: Tensor) -> None:
        optimizer.step()  # of all parameters this one alone has a gradient
        parameter.grad = None

    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    handles = [each.register_post_accumulate_grad_hook(step) for each in parameters if each.requires_grad]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
