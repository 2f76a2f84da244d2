"""Runs: layers of a chain that follow one another and are done in one or two fused operations.

A run is ``[act] [pad] conv [dropout] [norm] [act] [pad]`` with at least a convolution or a norm. What a run hands on
is deferred where it can be (:class:`torchp2p.ops.Deferred`): the next run normalises, activates and pads it on the
way into its convolution, so that one tensor a convolution is kept for the backward pass.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchp2p import ops
from torchp2p.fuse.kinds import Conv, activation_of, border_of, kind_of, pad_mode_of, padding_of
from torchp2p.ops import Deferred

_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
Links = list[tuple[str, nn.Module]]


@dataclass
class Run:
    """A run, or one layer that is called as it is.

    Attributes:
        links: names and layers, in their order.
        before: an activation in front of the convolution, to be made on the way into it.
        pad, conv, dropout, norm, act: the layers in their roles; all None for a layer that is called as it is.
        pad_after: a pad behind the norm that no convolution takes over.
    """

    links: Links = field(default_factory=list)
    before: nn.Module | None = None
    pad: nn.Module | None = None
    conv: Conv | None = None
    dropout: nn.Module | None = None
    norm: nn.Module | None = None
    act: nn.Module | None = None
    pad_after: nn.Module | None = None

    @property
    def is_fused(self) -> bool:
        """Whether it does anything other than calling its layers one by one."""
        return len(self.links) > 1 or self.norm is not None

    def __call__(self, x: Any) -> Any:
        """What the layers make of x, (N, C, H, W) or a Deferred of it; the result may be deferred.

        What the ops do not know, such as (C, H, W) or complex numbers, goes through the layers one by one.
        """
        if self.conv is None and self.norm is None:
            return self.links[0][1](computed(x))
        if not isinstance(x, Deferred) and not is_known(x):
            for _, layer in self.links:
                x = layer(x)
            return x
        if self.before is not None:
            x = Deferred(computed(x), **activation_of(self.before))
        told = {} if self.norm is None else normalisation_of(self.norm) | activation_of(self.act)
        result = Deferred(computed(x), **told) if self.conv is None else self._convolved(self.conv, x, told)
        if self.norm is None:
            return _activated_in_place(result.raw, self.act)
        if self.pad_after is None:
            return result
        if _is_under_autocast(result.raw):  # it may give a pad a dtype of its own
            return self.pad_after(result.tensor())
        return result.tensor(border_of(self.pad_after) or 0, pad_mode_of(self.pad_after))

    def _convolved(self, conv: Conv, x: Tensor | Deferred, told: dict[str, Any]) -> Deferred:
        """The output of the convolution, and what is told to be done to it."""
        if isinstance(x, Deferred) and _is_rounded_by_autocast(x.raw):
            x = x.tensor()
        padding = padding_of(conv, self.pad)
        if padding is None or (isinstance(x, Tensor) and not self.is_fused):
            return Deferred(self._dropped(conv(computed(x))), **told)
        weight, bias = conv.weight, conv.bias
        if self.dropout is None and isinstance(self.norm, nn.InstanceNorm2d) and self.norm.running_mean is None:
            weight, bias = _without_effect(weight, bias), None
        found = ops.conv_norm_act(
            x,
            weight,
            bias,
            stride=(conv.stride[0], conv.stride[1]),
            padding=padding[0],
            pad_mode=padding[1],
            transposed=isinstance(conv, nn.ConvTranspose2d),
            output_padding=(conv.output_padding[0], conv.output_padding[1]),
            defer=True,
            **(told if told and self.dropout is None else {"norm": "none", "act": "none"}),
        )
        assert isinstance(found, Deferred)
        return found if self.dropout is None else Deferred(self._dropped(found.raw), **told)

    def _dropped(self, raw: Tensor) -> Tensor:
        return raw if self.dropout is None else self.dropout(raw)


def runs_of(links: Links) -> list[Run]:
    """The layers of a chain as runs."""
    runs: list[Run] = []
    kinds = [kind_of(module) for _, module in links]
    at = 0
    while at < len(links):
        run = _run_at(links, kinds, at)
        runs.append(run)
        at += len(run.links)
    return runs


def _run_at(links: Links, kinds: list[str], start: int) -> Run:
    """The longest run that begins at ``start``; of one layer, to be called as it is, where there is none."""
    end = len(links)
    at = start
    roles: dict[str, Any] = {}
    # In place it changes what it is given, which others may see: then it is done by itself, before the run.
    if kinds[at] == "act" and not getattr(links[at][1], "inplace", False):
        roles["before"] = links[at][1]
        at += 1
    if at < end and kinds[at] == "pad":
        roles["pad"] = links[at][1]
        at += 1
    if at < end and kinds[at] == "conv" and (not roles or padding_of(_conv(links[at][1]), roles.get("pad"))):
        roles["conv"] = links[at][1]
        at += 1
        if at + 1 < end and kinds[at] == "dropout" and kinds[at + 1] == "norm":
            roles["dropout"] = links[at][1]
            at += 1
    elif roles or kinds[at] != "norm":
        return Run(links[start : start + 1])
    if at < end and kinds[at] == "norm":
        roles["norm"] = links[at][1]
        at += 1
    if at < end and kinds[at] == "act":
        roles["act"] = links[at][1]
        at += 1
    if "norm" in roles and at < end and kinds[at] == "pad" and not _is_padded_by_next(links, kinds, at):
        roles["pad_after"] = links[at][1]
        at += 1
    return Run(links[start:at], **roles)


def computed(x: Any) -> Any:
    """x, or the tensor that it stands for."""
    return x.tensor() if isinstance(x, Deferred) else x


def is_known(x: Any) -> bool:
    """Whether the ops take such an input."""
    return isinstance(x, Tensor) and x.dim() == 4 and x.dtype in _DTYPES


def _is_under_autocast(x: Tensor) -> bool:
    return x.device.type != "meta" and torch.is_autocast_enabled(x.device.type)


def _is_rounded_by_autocast(raw: Tensor) -> bool:
    """Whether autocast would round what a norm still has to take the mean from."""
    return _is_under_autocast(raw) and raw.dtype != torch.get_autocast_dtype(raw.device.type)


def _is_padded_by_next(links: Links, kinds: list[str], at: int) -> bool:
    """Whether the layer after the pad at ``at`` is a convolution that takes the pad over."""
    if at + 1 == len(links) or kinds[at + 1] != "conv":
        return False
    return padding_of(_conv(links[at + 1][1]), links[at][1]) is not None


def _conv(module: Any) -> Conv:
    conv: Conv = module
    return conv


def normalisation_of(norm: Any) -> dict[str, Any]:
    """What ``Deferred`` is told about a norm of torch, in the state that it is in; counts the batch as torch does."""
    momentum = 0.0 if norm.momentum is None else norm.momentum
    if isinstance(norm, nn.InstanceNorm2d):
        name, training = "instance", norm.training or not norm.track_running_stats
        running = norm.running_mean, norm.running_var
    else:
        name, training = "batch", norm.training or norm.running_mean is None
        if norm.training and norm.track_running_stats and norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
            if norm.momentum is None:
                momentum = 1.0 / float(norm.num_batches_tracked)
        tracked = norm.track_running_stats or not norm.training
        running = (norm.running_mean, norm.running_var) if tracked else (None, None)
    return {
        "norm": name,
        "norm_weight": norm.weight,
        "norm_bias": norm.bias,
        "running_mean": running[0],
        "running_var": running[1],
        "training": training,
        "momentum": momentum,
        "eps": norm.eps,
    }


def _activated_in_place(raw: Tensor, act: nn.Module | None) -> Tensor:
    """``act(raw)``; raw is the fresh output of a convolution, which nobody else sees."""
    if act is None:
        return raw
    if isinstance(act, nn.LeakyReLU):
        return F.leaky_relu(raw, act.negative_slope, inplace=True)
    return torch.tanh_(raw) if isinstance(act, nn.Tanh) else F.relu(raw, inplace=True)


class _WithoutEffect(torch.autograd.Function):
    """The weight, with a gradient of 0 for the bias: in front of a norm that takes the mean away it has no other.

    Without it the bias would get no gradient at all, which optimisers with weight decay and DDP tell from 0.
    """

    @staticmethod
    def forward(weight: Tensor, bias: Tensor) -> Tensor:
        return weight.view_as(weight)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:  # type: ignore[override]
        (bias,) = ctx.saved_tensors
        weight_needs, bias_needs = ctx.needs_input_grad
        return grad if weight_needs else None, torch.zeros_like(bias) if bias_needs else None


def _without_effect(weight: Tensor, bias: Tensor | None) -> Tensor:
    if bias is None or not torch.is_grad_enabled() or not bias.requires_grad:
        return weight
    tied: Tensor = _WithoutEffect.apply(weight, bias)
    return tied
