"""One call of ``norm_act`` and its gradients, three ways: ours, eager PyTorch's, and the float64 oracle's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from op_testing import doubled, leaf
from torch import Tensor

from torchp2p.ops import norm_act
from torchp2p.reference import norm_act as reference

NORMS = ("instance", "batch", "none")
ACTIVATIONS = ("leaky_relu", "relu", "tanh", "none")
PADS = ((0, "reflect"), (1, "reflect"), (2, "replicate"), (1, "zeros"))
INPUTS = ("x", "weight", "bias", "residual")


@dataclass(frozen=True)
class Case:
    """The options of a call. The default shape fills some registers and leaves a rest in every dtype."""

    norm: str = "instance"
    act: str = "leaky_relu"
    pad: int = 0
    pad_mode: str = "reflect"
    affine: bool = False
    residual: bool = False
    given: bool = False  # statistics given (eval mode) instead of taken from x
    shape: tuple[int, int, int, int] = (2, 3, 9, 11)
    slope: float = 0.2
    eps: float = 1e-5
    stat_groups: int = 1

    def __str__(self) -> str:
        words = [word for word in ("affine", "residual", "given") if getattr(self, word)]
        words += [f"{self.stat_groups}groups"] if self.stat_groups > 1 else []
        return "-".join([self.norm, self.act, f"{self.pad_mode}{self.pad}", *words])

    @property
    def options(self) -> tuple[str, float, str, float, int, str, int]:
        """What the reference and the registered operators take after the tensors."""
        return (self.norm, self.eps, self.act, self.slope, self.pad, self.pad_mode, self.stat_groups)

    @property
    def takes_statistics(self) -> bool:
        return self.norm != "none" and not self.given

    @property
    def padded_shape(self) -> tuple[int, int, int, int]:
        n, c, h, w = self.shape
        return (n, c, h + 2 * self.pad, w + 2 * self.pad)


@dataclass(frozen=True)
class Inputs:
    """Tensors of a case; ``mean`` and ``var`` are the running statistics where they are given."""

    x: Tensor
    weight: Tensor | None
    bias: Tensor | None
    residual: Tensor | None
    mean: Tensor | None
    var: Tensor | None
    grad_y: Tensor


def random_inputs(case: Case, dtype: torch.dtype, device: torch.device, vectors: torch.dtype | None = None) -> Inputs:
    """Values with means and scales of their own per channel; the vectors over channels in ``vectors``."""
    channels, vectors = case.shape[1], vectors or dtype
    around_one = [0.5 + torch.rand(channels) for _ in range(3)]
    around_zero = [torch.randn(channels) / 2 for _ in range(3)]

    def vector(values: Tensor, wanted: bool) -> Tensor | None:
        return values.to(device, vectors) if wanted else None

    x = torch.randn(case.shape) * around_one[0].view(-1, 1, 1) + around_zero[0].view(-1, 1, 1)
    sign = torch.where(torch.arange(channels) % 2 == 0, 1.0, -1.0)
    return Inputs(
        x=x.to(device, dtype),
        weight=vector(around_one[1] * sign, case.affine),
        bias=vector(around_zero[1], case.affine),
        residual=(torch.randn(case.shape) / 2).to(device, dtype) if case.residual else None,
        mean=vector(around_zero[2], case.given),
        var=vector(around_one[2], case.given),
        grad_y=torch.randn(case.padded_shape).to(device, dtype),
    )


def laid_out(inputs: Inputs, layout: Callable[[Tensor], Tensor]) -> Inputs:
    """x, the residual and the incoming gradient in another layout."""
    residual = None if inputs.residual is None else layout(inputs.residual)
    return replace(inputs, x=layout(inputs.x), residual=residual, grad_y=layout(inputs.grad_y))


Results = dict[str, Tensor]
"""``y`` and, for every input there is, ``grad_<input>``."""


def results_of(forward: Callable[..., Tensor], inputs: Inputs) -> Results:
    """``forward(x, weight, bias, residual, mean, var)`` and its gradients, by autograd."""
    leaves = [leaf(getattr(inputs, name)) for name in INPUTS]
    y = forward(*leaves, inputs.mean, inputs.var)
    there = [(name, t) for name, t in zip(INPUTS, leaves, strict=True) if t is not None]
    grads = torch.autograd.grad(y, [t for _, t in there], inputs.grad_y)
    return {"y": y.detach()} | {f"grad_{name}": g for (name, _), g in zip(there, grads, strict=True)}


def ours(case: Case, inputs: Inputs, backend: str | None = None) -> Results:
    def forward(
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        residual: Tensor | None,
        mean: Tensor | None,
        var: Tensor | None,
    ) -> Tensor:
        return norm_act(
            x, weight, bias, norm=case.norm, running_mean=mean, running_var=var, training=not case.given,
            eps=case.eps, act=case.act, slope=case.slope, residual=residual, pad=case.pad,
            pad_mode=case.pad_mode, stat_groups=case.stat_groups, backend=backend,
        )  # fmt: skip

    return results_of(forward, inputs)


def eager_layers(
    case: Case,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
) -> Tensor:
    """The same as separate layers of torch."""
    if case.norm == "instance":
        h = F.instance_norm(x, mean, var, weight, bias, use_input_stats=not case.given, eps=case.eps)
    elif case.norm == "batch":
        groups = x.chunk(case.stat_groups) if case.stat_groups > 1 else (x,)
        training = not case.given
        h = torch.cat([F.batch_norm(g, mean, var, weight, bias, training, eps=case.eps) for g in groups])
    else:
        h = x if weight is None else x * weight.to(x.dtype).view(1, -1, 1, 1)
        h = h if bias is None else h + bias.to(x.dtype).view(1, -1, 1, 1)
    if residual is not None:
        h = h + residual
    if case.act == "leaky_relu":
        h = F.leaky_relu(h, case.slope)
    elif case.act != "none":
        h = getattr(torch, case.act)(h)
    mode = "constant" if case.pad_mode == "zeros" else case.pad_mode
    return F.pad(h, (case.pad,) * 4, mode=mode) if case.pad else h


def eager(case: Case, inputs: Inputs) -> Results:
    return results_of(lambda *tensors: eager_layers(case, *tensors), inputs)


@dataclass(frozen=True)
class Oracle:
    """Results in float64, and for those that are sums over pixels the sum of the magnitudes of the terms."""

    results: Results
    magnitudes: dict[str, float]


def oracle(case: Case, inputs: Inputs) -> Oracle:
    """The definition in float64, its gradients by the explicit formula."""
    x, weight, bias, residual, mean, var, grad_y = doubled(
        (*(getattr(inputs, name) for name in INPUTS), inputs.mean, inputs.var, inputs.grad_y)
    )
    assert x is not None
    assert grad_y is not None
    given = (mean, var)
    y, *own = reference.norm_act(x, weight, bias, residual, mean, var, *case.options)
    mean, var = own if case.takes_statistics else given
    *grads, grad_z = reference.norm_act_backward(grad_y, x, weight, bias, residual, mean, var, *case.options, True)
    there = zip(INPUTS, (x, weight, bias, residual), (*grads, grad_z), strict=True)
    only_norm = replace(case, act="none", pad=0).options
    normalised, *_ = reference.norm_act(x, None, None, None, *given, *only_norm)
    return Oracle(
        {"y": y} | {f"grad_{name}": grad for name, tensor, grad in there if tensor is not None},
        {
            "grad_weight": _largest((grad_z * normalised).abs().sum((0, 2, 3))),
            "grad_bias": _largest(grad_z.abs().sum((0, 2, 3))),
        },
    )


def _largest(values: Tensor) -> float:
    return values.max().item() if values.numel() else 0.0
