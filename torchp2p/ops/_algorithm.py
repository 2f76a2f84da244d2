"""Which convolution a block uses: the one asked for, or the one that was measured to be faster.

The fused convolution is taken unasked only where a row of ``_tuning`` says so; where there is none, both are measured,
once, on the tensors at hand, unless ``TORCHP2P_TUNE=0`` says no. Nothing is measured while a CUDA graph is captured or
torch.compile traces, nor on the CPU, where the interpreter that runs the fused convolution is only for tests. There
the other algorithms are taken for shapes that are known to be faster so: a rule, for two runs must be alike.
"""

from __future__ import annotations

import contextlib
import statistics
import warnings
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from torchp2p.ops import _conv_fused, _gemm_convolution, _phased_convolution, _tuning, _winograd
from torchp2p.ops._conv_fused import Tensors
from torchp2p.ops._dispatch import BackendUnavailableError, choose, strict
from torchp2p.ops.norm_act import Options
from torchp2p.reference.conv_norm_act import Convolution

ALGORITHMS = ("vendor", "winograd", "gemm", "phased", "fused")
DEVICES = ("cuda",)
"""The types of device on which it is worth asking which is faster."""

_WARM_UP, _REPETITIONS = 2, 5

# A plain global, as the backend asked for is one: torch.compile guards on it.
_preferred: str | None = None


@contextlib.contextmanager
def algorithm(name: str | None) -> Iterator[None]:
    """Within this context conv_norm_act convolves by ``name`` wherever that can run and no call asks for another.

    ``vendor`` keeps to the library that torch convolves with. None is for the rule of each call: the fastest that is
    known to be as exact as the vendor's.

    Raises:
        ValueError: ``name`` is no algorithm.
    """
    global _preferred
    require_algorithm(name)
    before, _preferred = _preferred, name
    try:
        yield
    finally:
        _preferred = before


def choose_algorithm(
    asked: str | None,
    tensors: Tensors,
    options: Options,
    weight: Tensor,
    conv: Convolution,
    groups: int,
) -> str:
    """One of ``ALGORITHMS``.

    Args:
        asked: by the user, or None.
        tensors, options: what stands before the convolution.
        groups: how many of statistics are wanted of its output.

    Raises:
        ValueError: the asked name is no algorithm.
        BackendUnavailableError: the algorithm asked for cannot run; the message says why.
    """
    x = tensors[0]
    if asked is not None:
        _require(asked, x, weight, conv)
        return asked if x.shape[0] else "vendor"  # no samples are nothing to fuse
    if _preferred is not None and not _why_not(_preferred, x, weight, conv):
        return _preferred if x.shape[0] else "vendor"
    if x.device.type not in DEVICES:
        return _rule(x, weight, conv) if x.device.type == "cpu" and x.shape[0] else "vendor"
    if torch.compiler.is_compiling() or x.numel() == 0:
        return "vendor"
    if _conv_fused.unavailable(x.device.type, x.dtype):
        return "vendor"
    row = _conv_fused.row_of(tensors, options, weight, conv)
    if row is None and _tuning.enabled() and not torch.cuda.is_current_stream_capturing():
        row = tune(tensors, options, weight, conv, groups, _milliseconds)
    return "vendor" if row is None else str(row["algorithm"])


def reads_float32_weight(asked: str | None, x: Tensor, weight: Tensor, conv: Convolution) -> bool:
    """Whether x, of bfloat16, will be convolved by an algorithm that takes the float32 weight as it is."""
    if x.device.type != "cpu" or x.dtype != torch.bfloat16 or weight.dtype != torch.float32 or not x.shape[0]:
        return False
    if asked is None:
        asked = _preferred if _preferred and not _why_not(_preferred, x, weight, conv) else _rule(x, weight, conv)
    return asked == "winograd"


def _rule(x: Tensor, weight: Tensor, conv: Convolution) -> str:
    """What is taken unasked on the CPU."""
    if _gemm_convolution.pays(x, weight, conv):
        return "gemm"
    if _phased_convolution.pays(x, weight, conv):
        return "phased"
    return "winograd" if _winograd.pays(x, weight, conv) else "vendor"


def tune(
    tensors: Tensors,
    options: Options,
    weight: Tensor,
    conv: Convolution,
    groups: int,
    time: Callable[[Callable[[], object]], float],
) -> _tuning.Row:
    """Measure both algorithms, forward and backward together, and remember which was faster.

    The fused one is given the statistics of x and takes those of its output; the vendor's takes those of x. Nobody has
    asked for the fused one, so whatever keeps it from running (memory, a GPU that Triton does not serve) is said and
    the vendor's stays; in strict mode it is raised.
    """
    device, key = tensors[0].device, _conv_fused.key_of(tensors, options, weight, conv)
    row: _tuning.Row = {"algorithm": "vendor"}
    try:
        with torch.no_grad(), torch.cuda.device_of(tensors[0]):
            row["tiles"] = _conv_fused.fastest_tiles(tensors, options, weight, conv, groups, time)
            _tuning.remember(device, key, row)
            took = {
                name: time(_both_ways(name, tensors, options, weight, conv, groups)) for name in ("vendor", "fused")
            }
        row |= {"algorithm": min(took, key=took.__getitem__), "milliseconds": took}
    except Exception as error:
        if strict():
            raise
        warnings.warn(f"conv_norm_act leaves {key} to the vendor's convolution: {error}", RuntimeWarning, stacklevel=2)
    _tuning.remember(device, key, row)
    return row


def _both_ways(
    algorithm: str, tensors: Tensors, options: Options, weight: Tensor, conv: Convolution, groups: int
) -> Callable[[], object]:
    """A call of the operator and of its backward."""
    x, residual = tensors[0], tensors[3]
    source = (options.norm, options.eps, options.act, options.slope, options.stat_groups)
    how = (algorithm, choose("norm_act", x, None))
    groups = groups if algorithm == "fused" else 0
    forward, backward = torch.ops.torchp2p.conv_norm_act, torch.ops.torchp2p.conv_norm_act_backward
    raw, mean, var, *_ = forward(*tensors, *source, weight, None, *conv, groups, *how)
    known = (*tensors[:4], mean, var) if mean.numel() else tensors
    given, grad = known if algorithm == "fused" else tensors, torch.ones_like(raw)

    def run() -> None:
        forward(*given, *source, weight, None, *conv, groups, *how)
        backward(grad, *known, *source, weight, *conv, True, residual is not None, True, False, *how)

    return run


def _require(asked: str, x: Tensor, weight: Tensor, conv: Convolution) -> None:
    require_algorithm(asked)
    reason = _why_not(asked, x, weight, conv)
    if reason:
        raise BackendUnavailableError(f"conv_norm_act: algorithm {asked!r} cannot run: {reason}")


def require_algorithm(name: str | None) -> None:
    """Raise ValueError unless ``name`` is an algorithm, or None for the rule."""
    if name is not None and name not in ALGORITHMS:
        raise ValueError(f"algorithm must be one of {', '.join(ALGORITHMS)} or None, got {name!r}")


def _why_not(name: str, x: Tensor, weight: Tensor, conv: Convolution) -> str:
    """Why the algorithm cannot run on such tensors; empty if it can."""
    if name == "winograd":
        return _winograd.unavailable(x, weight, conv)
    if name == "phased":
        return _phased_convolution.unavailable(x, weight, conv)
    return _conv_fused.unavailable(x.device.type, x.dtype) if name == "fused" else ""


def _milliseconds(function: Callable[[], object]) -> float:
    """What one call takes on the current CUDA stream: the median of a few."""
    for _ in range(_WARM_UP):
        function()
    took: list[float] = []
    for _ in range(_REPETITIONS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        function()
        end.record()
        end.synchronize()
        took.append(start.elapsed_time(end))
    return statistics.median(took)
