"""What norm_act can be told, and the memory that its results need; other ops build on it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from torchp2p.reference import norm_act as reference

NORMS = ("instance", "batch", "none")
ACTIVATIONS = ("leaky_relu", "relu", "none", "tanh")
PAD_MODES = ("reflect", "replicate", "zeros")


class Options(NamedTuple):
    """What is the same for forward and backward, in the order of the schemas; other ops build on it."""

    norm: str
    eps: float
    act: str
    slope: float
    pad: int
    pad_mode: str
    stat_groups: int


def empty_outputs(x: Tensor, given_mean: Tensor | None, options: Options) -> tuple[Tensor, Tensor, Tensor]:
    """Memory for y, mean and var."""
    n, c, h, w = x.shape
    pad, layout = options.pad, reference.memory_format_of(x)
    y = torch.empty((n, c, h + 2 * pad, w + 2 * pad), dtype=x.dtype, device=x.device, memory_format=layout)
    if options.norm == "none" or given_mean is not None:
        stat_shape: tuple[int, ...] = (0,)
    else:
        stat_shape = (reference.groups_of(x, options.norm, options.stat_groups), c)
    mean = x.new_empty(stat_shape, dtype=reference.statistics_dtype(x.dtype))
    return y, mean, torch.empty_like(mean)


def empty_gradients(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, residual_grad: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Memory for the gradients of x, weight, bias and residual."""
    layout = reference.memory_format_of(x)
    grad_x = torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=layout)
    return (
        grad_x,
        x.new_empty(0) if weight is None else torch.empty_like(weight),
        x.new_empty(0) if bias is None else torch.empty_like(bias),
        torch.empty_like(grad_x) if residual_grad else x.new_empty(0),
    )
