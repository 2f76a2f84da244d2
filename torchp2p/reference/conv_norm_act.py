"""The convolution of an activation that does not exist yet: raw = conv(pad(act(norm(x)))), in plain PyTorch.

This is the middle of a chain of conv-norm-act blocks: x is the raw output of the block before, which is
normalised, activated and padded on the way into the convolution. What autograd must keep is x and its
statistics; the activation is made again where the weight gradient needs it.

Shapes: x, residual (N, C, H, W); weight (O, C, kh, kw), or (C, O, kh, kw) when transposed; raw (N, O, H', W').
Source: spec sections 2.4 to 2.7 (the blocks), 11.2 R10 to R12.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from torchp2p.reference import norm_act as norm_act_reference


class Convolution(NamedTuple):
    """The convolution of a block, in the order of the schemas.

    Attributes:
        stride: pixels, (vertical, horizontal).
        padding: pixels on every side.
        pad_mode: ``zeros``, ``reflect`` or ``replicate``; zeros are left to the convolution itself.
        transposed: whether it is a transposed convolution; then ``padding`` is the convolution's, with zeros.
        output_padding: of a transposed convolution.
    """

    stride: list[int]
    padding: int
    pad_mode: str
    transposed: bool
    output_padding: list[int]

    @property
    def border(self) -> int:
        """Padding that is part of the activation."""
        return 0 if self.pad_mode == "zeros" else self.padding

    @property
    def own_padding(self) -> list[int]:
        """Padding that the convolution does by itself."""
        return [self.padding - self.border] * 2

    def output_size(self, dim: int, size: int, kernel: int) -> int:
        """Pixels of the output for ``size`` pixels of the input, vertical (``dim`` 0) or horizontal (1)."""
        step, around = self.stride[dim], 2 * self.padding
        if self.transposed:
            return (size - 1) * step - around + kernel + self.output_padding[dim]
        return (size + around - kernel) // step + 1


def activation(
    x: Tensor,
    in_weight: Tensor | None,
    in_bias: Tensor | None,
    residual: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    norm: str,
    eps: float,
    act: str,
    slope: float,
    stat_groups: int,
    convolution: Convolution,
) -> tuple[Tensor, Tensor, Tensor]:
    """What the convolution reads, and the statistics that were taken for it."""
    return norm_act_reference.norm_act(
        x, in_weight, in_bias, residual, mean, var, norm, eps, act, slope, convolution.border, convolution.pad_mode,
        stat_groups,
    )  # fmt: skip


def conv_norm_act(
    x: Tensor,
    in_weight: Tensor | None,
    in_bias: Tensor | None,
    residual: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    norm: str,
    eps: float,
    act: str,
    slope: float,
    stat_groups: int,
    weight: Tensor,
    bias: Tensor | None,
    *convolution: object,
) -> tuple[Tensor, Tensor, Tensor]:
    """raw, and the mean and variance of x that were taken (empty where they were given or not needed)."""
    conv = Convolution(*convolution)  # type: ignore[arg-type]
    h, taken_mean, taken_var = activation(
        x, in_weight, in_bias, residual, mean, var, norm, eps, act, slope, stat_groups, conv
    )
    return convolve(h, weight, bias, conv), taken_mean, taken_var


def convolve(h: Tensor, weight: Tensor, bias: Tensor | None, conv: Convolution) -> Tensor:
    """The convolution itself."""
    return torch.convolution(
        h, weight, bias, conv.stride, conv.own_padding, [1, 1], conv.transposed, conv.output_padding, 1
    )


def convolve_backward(
    grad: Tensor, h: Tensor, weight: Tensor, conv: Convolution, needs: tuple[bool, bool, bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of h, weight and bias; empty where not needed. Of h, only the weight's gradient reads the values."""
    outputs = weight.shape[1] if conv.transposed else weight.shape[0]
    gradients: tuple[Tensor | None, ...] = torch.ops.aten.convolution_backward(
        grad, h, weight, [outputs], conv.stride, conv.own_padding, [1, 1], conv.transposed, conv.output_padding, 1,
        needs,
    )  # fmt: skip
    of_h, of_weight, of_bias = (grad.new_empty(0) if found is None else found for found in gradients)
    return of_h, of_weight, of_bias


def conv_norm_act_backward(
    grad: Tensor,
    x: Tensor,
    in_weight: Tensor | None,
    in_bias: Tensor | None,
    residual: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    norm: str,
    eps: float,
    act: str,
    slope: float,
    stat_groups: int,
    weight: Tensor,
    *rest: object,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, in_weight, in_bias, residual, weight and bias; those that do not exist are empty.

    ``rest`` is the convolution, and whether there are gradients to find: of what comes before the convolution, and
    there of the residual, of the weight, and of the bias. Statistics are the ones used; (G, C) move with x, (C,) do
    not.
    """
    *convolution, input_grad, residual_grad, weight_grad, bias_grad = rest
    conv = Convolution(*convolution)  # type: ignore[arg-type]
    moving = mean is not None and mean.dim() == 2
    given = (None, None) if moving else (mean, var)  # taken again, so that differentiating once more sees them move
    h, _, _ = activation(x, in_weight, in_bias, residual, *given, norm, eps, act, slope, stat_groups, conv)
    needs = (bool(input_grad), bool(weight_grad), bool(bias_grad))
    grad_h, *grads_after = convolve_backward(grad, h, weight, conv, needs)
    grads_before = (x.new_empty(0),) * 4
    if input_grad:
        grads_before = norm_act_reference.norm_act_backward(
            grad_h, x, in_weight, in_bias, residual, mean, var, norm, eps, act, slope, conv.border, conv.pad_mode,
            stat_groups, bool(residual_grad),
        )  # fmt: skip
    return (*grads_before, *grads_after)  # type: ignore[return-value]
