"""What a block of a chain hands on instead of its activation: how to make it from the block's raw output."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from torchp2p.ops import _check
from torchp2p.ops.norm_act import Options, apply, check_arguments
from torchp2p.reference.norm_act import groups_of, statistics_dtype


@dataclass
class Deferred:
    """An activation that has not been computed: ``act(norm(raw) * norm_weight + norm_bias + residual)``.

    It may be read any number of times; every reader computes it anew.

    Attributes:
        raw: (N, C, H, W), the output of a convolution, or any tensor (with the defaults it stands for itself).
        norm, eps, act, slope, stat_groups: as in :func:`torchp2p.ops.norm_act`; norm_weight and norm_bias are its
            weight and bias.
        running_mean, running_var, training, momentum: likewise. In training the first reader updates the running
            statistics; from then on they are None.
        residual: (N, C, H, W) to add before the activation, or None.
        mean, var: (G, C), float32 statistics of raw (biased variance) that its convolution took in passing, or None;
            G is the number of samples, or ``stat_groups`` with batch norm. They spare the reader a pass over raw, and
            are no part of the derivative by themselves: they move with raw.
    """

    raw: Tensor
    norm: str = "none"
    norm_weight: Tensor | None = None
    norm_bias: Tensor | None = None
    running_mean: Tensor | None = None
    running_var: Tensor | None = None
    training: bool = True
    momentum: float = 0.1
    eps: float = 1e-5
    act: str = "none"
    slope: float = 0.2
    residual: Tensor | None = None
    stat_groups: int = 1
    mean: Tensor | None = None
    var: Tensor | None = None

    def tensor(self, pad: int = 0, pad_mode: str = "reflect", backend: str | None = None) -> Tensor:
        """The activation itself, padded if asked: one :func:`torchp2p.ops.norm_act`, which says what it raises.

        Where there is nothing to compute it is ``raw``.
        """
        options = self.options(pad, pad_mode)
        self.check(options)
        if stands_for_itself(options, self.norm_weight, self.norm_bias, self.residual):
            return self.raw
        return apply(
            self.raw, self.norm_weight, self.norm_bias, self.residual, *self.take_running(), self.training,
            self.momentum, options, backend, self.taken,
        )  # fmt: skip

    def options(self, pad: int = 0, pad_mode: str = "reflect") -> Options:
        """What norm_act is told besides tensors."""
        return Options(self.norm, self.eps, self.act, self.slope, pad, pad_mode, self.stat_groups)

    @property
    def taken(self) -> tuple[Tensor, Tensor] | None:
        """Mean and variance of raw, where it is to be normalised with its own and they are known."""
        if self.mean is None or self.var is None or self.norm == "none":
            return None
        own = self.training or self.running_mean is None
        return (self.mean, self.var) if own else None

    def check(self, options: Options | None = None) -> None:
        """Raise what norm_act would raise, and ValueError where mean and var are not those of raw."""
        check_arguments(
            self.raw, self.norm_weight, self.norm_bias, self.residual, self.running_mean, self.running_var,
            self.training, options or self.options(), name="raw", prefix="norm_",
        )  # fmt: skip
        for name, value in zip(("mean", "var"), self.taken or (), strict=False):
            _check_statistics(name, value, self)

    def take_running(self) -> tuple[Tensor | None, Tensor | None]:
        """The running statistics; in training they are given away, so that one batch counts once."""
        running = self.running_mean, self.running_var
        if self.training:
            self.running_mean = self.running_var = None
        return running


def _check_statistics(name: str, value: Tensor, deferred: Deferred) -> None:
    raw = deferred.raw
    shape = (groups_of(raw, deferred.norm, deferred.stat_groups), raw.shape[1])
    if value.shape != shape or value.dtype != statistics_dtype(raw.dtype):
        raise ValueError(
            f"{name} must be {statistics_dtype(raw.dtype)} of shape {shape} for raw of shape {tuple(raw.shape)}, "
            f"got {value.dtype} of shape {tuple(value.shape)}"
        )
    _check.same_device(name, value, raw, "raw")


def stands_for_itself(
    options: Options, norm_weight: Tensor | None, norm_bias: Tensor | None, residual: Tensor | None
) -> bool:
    """Whether the activation is raw, untouched."""
    plain = options.norm == "none" and options.act == "none" and options.pad == 0
    return plain and norm_weight is None and norm_bias is None and residual is None
