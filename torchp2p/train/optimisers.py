"""Adam as both papers use it, and its learning rate (spec section 5.3)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def adam(parameters: Iterable[nn.Parameter], lr: float, beta1: float) -> torch.optim.Adam:
    """Adam with betas (``beta1``, 0.999), eps 1e-8 and no weight decay."""
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
