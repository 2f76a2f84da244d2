"""``NormAct``: a norm layer, the residual sum, the activation and the next padding in one module."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from torchp2p import ops
from torchp2p.ops.norm_act import ACTIVATIONS, NORMS, PAD_MODES


class NormAct(nn.Module):
    """``pad(act(norm(x) * weight + bias + residual))``, see :func:`torchp2p.ops.norm_act`.

    Parameters and buffers are named as those of ``torch.nn.BatchNorm2d`` and ``InstanceNorm2d`` (``weight``,
    ``bias``, ``running_mean``, ``running_var``, ``num_batches_tracked``), so checkpoints interchange.

    Args:
        num_features: channels C of the (N, C, H, W) input.
        norm: ``instance``, ``batch`` or ``none``.
        affine: learn weight and bias; by default with batch norm only, as in torch.
        track_running_stats: keep running statistics, used in eval mode; by default with batch norm only.
        momentum: weight of the newest batch in the running statistics; None for their cumulative average.
        eps, act, slope, pad, pad_mode: as in :func:`torchp2p.ops.norm_act`.

    Raises:
        ValueError: an unknown norm, activation or padding mode, or affine or tracked statistics without norm.
    """

    _version = 2  # as BatchNorm2d: from version 2 on, num_batches_tracked is part of the state
    stat_groups = 1  # changed by ``separate_statistics`` alone

    def __init__(
        self,
        num_features: int,
        *,
        norm: str = "instance",
        affine: bool | None = None,
        track_running_stats: bool | None = None,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        act: str = "leaky_relu",
        slope: float = 0.2,
        pad: int = 0,
        pad_mode: str = "reflect",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        for name, value, choices in (
            ("norm", norm, NORMS),
            ("act", act, ACTIVATIONS),
            ("pad_mode", pad_mode, PAD_MODES),
        ):
            if value not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
        self.num_features = num_features
        self.norm = norm
        self.affine = norm == "batch" if affine is None else affine
        self.track_running_stats = norm == "batch" if track_running_stats is None else track_running_stats
        if norm == "none" and (self.affine or self.track_running_stats):
            raise ValueError("norm 'none' has no affine parameters and no running statistics")
        self.eps = eps
        self.momentum = momentum
        self.act = act
        self.slope = slope
        self.pad = pad
        self.pad_mode = pad_mode
        like: dict[str, Any] = {"device": device, "dtype": dtype}
        self.weight = nn.Parameter(torch.empty(num_features, **like)) if self.affine else None
        self.bias = nn.Parameter(torch.empty(num_features, **like)) if self.affine else None
        tracked = self.track_running_stats
        self.register_buffer("running_mean", torch.zeros(num_features, **like) if tracked else None)
        self.register_buffer("running_var", torch.ones(num_features, **like) if tracked else None)
        count = torch.tensor(0, dtype=torch.long, device=device) if tracked else None
        self.register_buffer("num_batches_tracked", count)
        self.running_mean: Tensor | None
        self.running_var: Tensor | None
        self.num_batches_tracked: Tensor | None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weight 1, bias 0, running statistics of the standard normal distribution."""
        if self.weight is not None and self.bias is not None:
            nn.init.ones_(self.weight)
            nn.init.zeros_(self.bias)
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.running_mean.zero_()
            self.running_var.fill_(1)
            self.num_batches_tracked.zero_()

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """(N, C, H, W) to (N, C, H + 2 pad, W + 2 pad)."""
        return ops.norm_act(x, residual=residual, pad=self.pad, pad_mode=self.pad_mode, **self.begin())

    def begin(self) -> dict[str, Any]:
        """Count the batch, in training with running statistics, and return what the op is told about the norm."""
        momentum = 0.0 if self.momentum is None else self.momentum
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(self.stat_groups)
            if self.momentum is None:
                momentum = 1.0 / float(self.num_batches_tracked)
        return {
            "weight": self.weight,
            "bias": self.bias,
            "norm": self.norm,
            "running_mean": self.running_mean,
            "running_var": self.running_var,
            "training": self.training,
            "momentum": momentum,
            "eps": self.eps,
            "act": self.act,
            "slope": self.slope,
            "stat_groups": self.stat_groups,
        }

    @property
    def hides_constants(self) -> bool:
        """Whether a constant added to a channel is taken away again: then a bias in front has no effect."""
        return self.norm == "instance" and not self.track_running_stats

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], *args: Any
    ) -> None:
        # Checkpoints from before num_batches_tracked existed count from zero.
        key = prefix + "num_batches_tracked"
        if (
            self.num_batches_tracked is not None
            and key not in state_dict
            and local_metadata.get("version") in (None, 1)
        ):
            state_dict[key] = torch.zeros_like(self.num_batches_tracked)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)

    def extra_repr(self) -> str:
        """The options that are in force."""
        parts = [f"{self.num_features}, norm={self.norm}, act={self.act}"]
        if self.act == "leaky_relu":
            parts.append(f"slope={self.slope}")
        if self.pad:
            parts.append(f"pad={self.pad}, pad_mode={self.pad_mode}")
        if self.norm != "none":
            parts.append(f"affine={self.affine}, track_running_stats={self.track_running_stats}")
        return ", ".join(parts)


@contextlib.contextmanager
def separate_statistics(net: nn.Module, groups: int) -> Iterator[None]:
    """Within this context batch norm in ``net`` takes statistics of each of ``groups`` equal parts of a batch.

    ``net(torch.cat((fake, real)))`` is then ``net(fake)`` and ``net(real)`` in one go, running statistics included:
    they are updated part by part, in this order.

    Args:
        net: its NormAct layers are meant; batch norm of torch's own knows no groups.
        groups: must divide the samples of every batch.

    Raises:
        TypeError: ``net`` is no Module, or ``groups`` no int.
        ValueError: ``groups`` is less than 1, or running statistics of ``net`` are cumulative averages
            (``momentum=None``), which count batches.
    """
    if not isinstance(net, nn.Module):
        raise TypeError(f"net must be a torch.nn.Module, got {type(net).__name__}")
    if not isinstance(groups, int):
        raise TypeError(f"groups must be an int, got {type(groups).__name__}")
    if groups < 1:
        raise ValueError(f"groups must be at least 1, got {groups}")
    norms = [layer for layer in net.modules() if isinstance(layer, NormAct) and layer.norm == "batch"]
    if groups > 1 and any(norm.track_running_stats and norm.momentum is None for norm in norms):
        raise ValueError("net must not have momentum None, the cumulative average, for statistics of several groups")
    try:
        for norm in norms:
            norm.stat_groups = groups
        yield
    finally:
        for norm in norms:
            norm.stat_groups = 1
