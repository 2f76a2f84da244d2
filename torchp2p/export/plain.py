"""The program of a network in operators of torch alone: what each op of the package means, in those."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchp2p.reference.conv_norm_act import conv_norm_act
from torchp2p.reference.instance_edges import instance_edges
from torchp2p.reference.label_conv2d import label_conv2d
from torchp2p.reference.norm_act import norm_act


def plain_program(net: nn.Module, inputs: Sequence[Tensor]) -> torch.export.ExportedProgram:
    """torch.export of a network, without operators of the package."""
    operators = torch.ops.torchp2p
    meanings: dict[Any, Any] = {
        operators.norm_act.default: _norm_act,
        operators.conv_norm_act.default: _conv_norm_act,
        operators.instance_edges.default: lambda ids, dtype, backend: instance_edges(ids, dtype),
        operators.label_conv2d.default: lambda *args: label_conv2d(*args[:7]),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's own, about what it does itself
        exported = torch.export.export(_OfCopies(net), tuple(inputs))
        program: torch.export.ExportedProgram = exported.run_decompositions(meanings)
    return program


class _OfCopies(nn.Module):
    """A network that may change its inputs in place, which a program must not."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, *inputs: Tensor) -> Any:
        return self.net(*(x.clone() for x in inputs))


def batch_normalised(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Batch norm with the statistics of x as an instance norm, which exporters and runtimes know as one operator."""
    n, c, h, w = x.shape
    if n == 1:
        return F.instance_norm(x, weight=weight, bias=bias, eps=eps)
    joined = x.transpose(0, 1).reshape(1, c, n * h, w)
    return F.instance_norm(joined, weight=weight, bias=bias, eps=eps).reshape(c, n, h, w).transpose(0, 1)


def _norm_act(
    x: Tensor, weight: Any, bias: Any, residual: Any, mean: Any, var: Any, norm: str, eps: float, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """The normalisation as one operator, and what the definition makes of it."""
    h = _normalised(x, weight, bias, mean, var, norm, eps)
    return norm_act(h, None, None, residual, None, None, "none", eps, *rest[:-1])


def _conv_norm_act(
    x: Tensor, weight: Any, bias: Any, residual: Any, mean: Any, var: Any, norm: str, eps: float, *rest: Any
) -> tuple[Tensor, ...]:
    """Likewise; statistics, of which the next operator may make use, are taken anew there."""
    *convolution, _, _, _ = rest
    h = _normalised(x, weight, bias, mean, var, norm, eps)
    found = conv_norm_act(h, None, None, residual, None, None, "none", eps, *convolution)
    return *found, *(x.new_empty(0) for _ in range(2))


def _normalised(x: Tensor, weight: Any, bias: Any, mean: Any, var: Any, norm: str, eps: float) -> Tensor:
    if mean is not None and mean.dim() == 1:  # others are those of x itself
        return F.batch_norm(x, mean, var, weight, bias, training=False, eps=eps)
    if norm == "batch":
        return batch_normalised(x, weight, bias, eps)
    return x if norm == "none" else F.instance_norm(x, weight=weight, bias=bias, eps=eps)
