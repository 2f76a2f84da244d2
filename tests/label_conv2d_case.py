"""One call of ``label_conv2d`` and its gradients, three ways: ours, eager PyTorch's, and the float64 oracle's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from op_testing import doubled, leaf
from torch import Tensor

from torchp2p.ops import label_conv2d

INPUTS = ("weight", "bias", "dense")


@dataclass(frozen=True)
class Case:
    """The options of a call. The default fills some registers of output channels and leaves a rest."""

    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (1, 1)
    pad_mode: str = "reflect"
    classes: int = 5
    dense: int = 1
    out: int = 19
    bias: bool = True
    size: tuple[int, int, int] = (2, 9, 11)
    labels: str = "areas"
    ignore: bool = False

    def __str__(self) -> str:
        window = "-".join("x".join(map(str, pair)) for pair in (self.kernel, self.stride, self.padding))
        channels = f"{self.classes}+{self.dense}to{self.out}{'' if self.bias else '-nobias'}"
        size = "x".join(map(str, self.size))
        return f"{window}-{self.pad_mode}-{channels}-{size}-{self.labels}{'-ignore' if self.ignore else ''}"

    @property
    def options(self) -> dict[str, object]:
        return {
            "stride": self.stride,
            "padding": self.padding,
            "pad_mode": self.pad_mode,
            "ignore_out_of_range": self.ignore,
        }


@dataclass(frozen=True)
class Inputs:
    """Tensors of a case."""

    labels: Tensor
    weight: Tensor
    bias: Tensor | None
    dense: Tensor | None
    grad_y: Tensor


def random_labels(case: Case) -> Tensor:
    """``noise``; ``areas`` of some pixels in width and height; ``one`` id everywhere."""
    n, h, w = case.size
    low, high = (-2, case.classes + 2) if case.ignore else (0, case.classes)
    if case.labels == "one":
        return torch.full((n, 1, h, w), case.classes // 2)
    if case.labels == "areas":
        coarse = torch.randint(low, high, (n, 1, h // 4 + 1, w // 6 + 1))
        return coarse.repeat_interleave(4, 2).repeat_interleave(6, 3)[:, :, :h, :w].contiguous()
    return torch.randint(low, high, (n, 1, h, w))


def random_inputs(case: Case, dtype: torch.dtype, device: torch.device, vectors: torch.dtype | None = None) -> Inputs:
    """Values of size one; the bias in ``vectors``."""
    n, h, w = case.size
    (kh, kw), (sh, sw), (ph, pw) = case.kernel, case.stride, case.padding
    out = ((h + 2 * ph - kh) // sh + 1, (w + 2 * pw - kw) // sw + 1)
    return Inputs(
        labels=random_labels(case).to(device),
        weight=torch.randn(case.out, case.classes + case.dense, kh, kw).to(device, dtype),
        bias=torch.randn(case.out).to(device, vectors or dtype) if case.bias else None,
        dense=torch.randn(n, case.dense, h, w).to(device, dtype) if case.dense else None,
        grad_y=torch.randn(n, case.out, *out).to(device, dtype),
    )


Results = dict[str, Tensor]
"""``y`` and, for every differentiable input there is, ``grad_<input>``."""


def results_of(forward: Callable[..., Tensor], inputs: Inputs) -> Results:
    """``forward(labels, weight, bias, dense)`` and its gradients, by autograd."""
    leaves = [leaf(getattr(inputs, name)) for name in INPUTS]
    y = forward(inputs.labels, *leaves)
    there = [(name, t) for name, t in zip(INPUTS, leaves, strict=True) if t is not None]
    grads = torch.autograd.grad(y, [t for _, t in there], inputs.grad_y)
    return {"y": y.detach()} | {f"grad_{name}": g for (name, _), g in zip(there, grads, strict=True)}


def ours(case: Case, inputs: Inputs, backend: str | None = None) -> Results:
    return results_of(
        lambda labels, weight, bias, dense: label_conv2d(
            labels, weight, bias, dense=dense, backend=backend, **case.options
        ),
        inputs,
    )


def dense_convolution(case: Case, labels: Tensor, weight: Tensor, bias: Tensor | None, dense: Tensor | None) -> Tensor:
    """What the original networks do: scatter ids into a one-hot tensor, join, pad, convolve."""
    n, _, h, w = labels.shape
    # One more channel takes the ids that are none of the classes, and is dropped.
    inside = (labels >= 0) & (labels < case.classes)
    ids = torch.where(inside, labels, torch.full_like(labels, case.classes)).long()
    one_hot = torch.zeros(n, case.classes + 1, h, w, dtype=weight.dtype, device=weight.device)
    x = one_hot.scatter_(1, ids, 1.0)[:, : case.classes]
    x = x if dense is None else torch.cat([x, dense], 1)
    (ph, pw), mode = case.padding, "constant" if case.pad_mode == "zeros" else case.pad_mode
    if ph or pw:
        x = F.pad(x, (pw, pw, ph, ph), mode=mode)
    return F.conv2d(x, weight, None if bias is None else bias.to(weight.dtype), case.stride)


def eager(case: Case, inputs: Inputs) -> Results:
    return results_of(lambda *tensors: dense_convolution(case, *tensors), inputs)


def oracle(case: Case, inputs: Inputs) -> Results:
    """The same in float64."""
    weight, bias, dense, grad_y = doubled((*(getattr(inputs, name) for name in INPUTS), inputs.grad_y))
    assert weight is not None
    assert grad_y is not None
    return eager(case, replace(inputs, weight=weight, bias=bias, dense=dense, grad_y=grad_y))


def magnitudes(case: Case, inputs: Inputs) -> dict[str, float]:
    """For every result the largest sum of the absolute values of the terms that it is a sum of."""
    tensors = {name: getattr(inputs, name) for name in (*INPUTS, "grad_y")}
    positive = replace(inputs, **{name: t if t is None else t.abs() for name, t in tensors.items()})
    return {name: value.max().item() if value.numel() else 0.0 for name, value in oracle(case, positive).items()}
