"""``norm_act``: normalise, affine, add a residual, activate, and write the result already padded.

One pass over memory for what eager PyTorch does in up to five; it saves x and the per-plane statistics,
nothing else. Source: spec sections 2.1, 2.4, 2.5 (the layers), 11.2 R10 and R11 (the fusion).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torchp2p.ops import _check, _norm_act_native
from torchp2p.ops._dispatch import choose
from torchp2p.ops._library import LIBRARY, differentiate, implementation, register, with_own_memory
from torchp2p.ops._norm_act_options import (
    ACTIVATIONS,
    NORMS,
    PAD_MODES,
    Options,
    empty_gradients,
    empty_outputs,
)
from torchp2p.reference import norm_act as reference


def norm_act(
    x: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    norm: str = "instance",
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    training: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    act: str = "leaky_relu",
    slope: float = 0.2,
    residual: Tensor | None = None,
    pad: int = 0,
    pad_mode: str = "reflect",
    stat_groups: int = 1,
    backend: str | None = None,
) -> Tensor:
    """Compute ``pad(act(norm(x) * weight + bias + residual))`` in one fused operation.

    Args:
        x: (N, C, H, W), float32, bfloat16, float16 or float64; contiguous or channels_last, or a view of
            such. The result and the gradient of x take the same layout.
        weight, bias: (C,), dtype of x or float32.
        norm: ``instance`` (statistics per sample and channel over H*W), ``batch`` (per channel over
            N*H*W) or ``none``. Biased variance, float32 statistics or better, whatever the dtype of x.
        running_mean, running_var: (C,). With ``training`` they are updated with ``momentum`` (unbiased
            variance; for instance norm the average over samples) and the statistics of x are used;
            without, they are used in place of the statistics of x.
        act: ``leaky_relu`` (with ``slope``), ``relu``, ``none`` or ``tanh``.
        residual: shape and dtype of x, added before the activation.
        pad: border in pixels on every side, filled as ``pad_mode`` says: ``reflect`` (needs pad < H and
            pad < W), ``replicate`` or ``zeros``.
        stat_groups: with batch norm, the number of equal groups of consecutive samples that have statistics of
            their own, as if each were a batch (real and fake images in one batch, say); running statistics
            are updated group by group.
        backend: ``native``, ``triton``, ``compile``, ``reference``, or None for the first that can run.

    Returns:
        (N, C, H + 2 pad, W + 2 pad), dtype and layout of x. Differentiable twice.

    Under autocast the op follows the dtype of x; statistics and affine arithmetic stay in float32.

    Raises:
        TypeError: an argument of the wrong type, or a dtype that is not supported.
        ValueError: shapes that do not fit, an unknown name, a pad that is too large, or only one value
            per channel to take statistics of.
        BackendUnavailableError: the backend asked for cannot run; the message says why.
    """
    options = Options(norm, eps, act, slope, pad, pad_mode, stat_groups)
    check_arguments(x, weight, bias, residual, running_mean, running_var, training, options)
    return apply(x, weight, bias, residual, running_mean, running_var, training, momentum, options, backend)


def apply(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    options: Options,
    backend: str | None,
    taken: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """norm_act of arguments that have been checked; ``taken`` are the statistics of x (G, C), if they are known."""
    given = taken or given_statistics(options.norm, running_mean, running_var, training)
    y, mean, var = _OP(x, weight, bias, residual, *given, *options, choose("norm_act", x, backend))
    mean, var = taken or (mean, var)
    if training and options.norm != "none":
        update_running(x, options.norm, mean, var, running_mean, running_var, momentum)
    result: Tensor = y
    return result


def given_statistics(
    norm: str, running_mean: Tensor | None, running_var: Tensor | None, training: bool
) -> tuple[Tensor | None, Tensor | None]:
    """The statistics to normalise with, or None for those of x itself."""
    return (None, None) if norm == "none" or training else (running_mean, running_var)


def update_running(
    x: Tensor,
    norm: str,
    mean: Tensor,
    var: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    momentum: float,
) -> None:
    """Running statistics, if there are any, after a batch with statistics ``mean`` and ``var`` (G, C), by groups."""
    if running_mean is None or running_var is None or x.numel() == 0:  # no values say nothing about the statistics
        return
    with torch.no_grad():
        count = x.shape[2] * x.shape[3] * x.shape[0] // len(mean)
        if norm == "instance":
            mean, var = mean.mean(0, keepdim=True), var.mean(0, keepdim=True)
        for group_mean, group_var in zip(mean.to(running_mean.dtype), var.to(running_var.dtype), strict=True):
            running_mean.lerp_(group_mean, momentum)
            running_var.lerp_(group_var * (count / max(count - 1, 1)), momentum)


def check_arguments(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    options: Options,
    name: str = "x",
    prefix: str = "",
) -> None:
    """Everything that could make a kernel read or write where it must not, in the user's words.

    The user calls x ``name``, and weight and bias by their names with ``prefix`` before them.
    """
    norm = options.norm
    _check.image_batch(name, x)
    _check.one_of("norm", norm, NORMS)
    _check.one_of("act", options.act, ACTIVATIONS)
    _check.one_of("pad_mode", options.pad_mode, PAD_MODES)
    _check_pad(name, x, options.pad, options.pad_mode)
    _check.per_channel(f"{prefix}weight", weight, x, name)
    _check.per_channel(f"{prefix}bias", bias, x, name)
    if (running_mean is None) != (running_var is None):
        raise ValueError("running_mean and running_var must be given together, got only one of them")
    _check.per_channel("running_mean", running_mean, x, name)
    _check.per_channel("running_var", running_var, x, name)
    _check.same_as("residual", residual, x, name)
    check_groups(name, x, norm, options.stat_groups)
    if norm != "none" and (training or running_mean is None):
        _check_values(name, x, norm, options.stat_groups)


def check_groups(name: str, x: Tensor, norm: str, stat_groups: int) -> None:
    """Raise unless the samples of x, which the user calls ``name``, make that many groups."""
    if not isinstance(stat_groups, int):
        raise TypeError(f"stat_groups must be an int, got {type(stat_groups).__name__}")
    if stat_groups == 1:
        return
    if norm != "batch":
        raise ValueError(f"stat_groups belongs to norm 'batch', got {stat_groups} with norm {norm!r}")
    if stat_groups < 1 or x.shape[0] % stat_groups:
        raise ValueError(f"stat_groups must divide the {x.shape[0]} samples of {name}, got {stat_groups}")


def _check_values(name: str, x: Tensor, norm: str, stat_groups: int) -> None:
    count = x.shape[2] * x.shape[3] * (x.shape[0] // stat_groups if norm == "batch" else 1)
    if count == 1:
        raise ValueError(
            f"{norm} statistics need more than one value per channel, got {name} of shape {tuple(x.shape)}"
            + (f" in {stat_groups} groups" if stat_groups > 1 else "")
        )


def _check_pad(name: str, x: Tensor, pad: int, pad_mode: str) -> None:
    if not isinstance(pad, int):
        raise TypeError(f"pad must be an int, got {type(pad).__name__}")
    if pad == 0:
        return
    if pad < 0:
        raise ValueError(f"pad must not be negative, got {pad}")
    height, width = x.shape[2], x.shape[3]
    if pad_mode == "reflect" and (pad >= height or pad >= width):
        raise ValueError(
            f"pad must be smaller than height and width for pad_mode 'reflect', got pad={pad} "
            f"with {name} of shape {tuple(x.shape)}"
        )
    if pad_mode == "replicate" and (height == 0 or width == 0):
        raise ValueError(f"pad_mode 'replicate' needs a pixel to repeat, got {name} of shape {tuple(x.shape)}")


# --- schema and implementations ------------------------------------------------------------------------

LIBRARY.define(
    "norm_act(Tensor x, Tensor? weight, Tensor? bias, Tensor? residual, Tensor? given_mean, "
    "Tensor? given_var, str norm, float eps, str act, float slope, int pad, str pad_mode, int stat_groups, "
    "str backend) -> (Tensor y, Tensor mean, Tensor var)"
)
LIBRARY.define(
    "norm_act_backward(Tensor grad_y, Tensor x, Tensor? weight, Tensor? bias, Tensor? residual, "
    "Tensor? mean, Tensor? var, str norm, float eps, str act, float slope, int pad, str pad_mode, "
    "int stat_groups, bool residual_grad, str backend) "
    "-> (Tensor grad_x, Tensor grad_weight, Tensor grad_bias, Tensor grad_residual)"
)


def run_forward(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    given_mean: Tensor | None,
    given_var: Tensor | None,
    *rest: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """The op below autograd: y, mean, var; ``rest`` is the fields of Options and the backend."""
    options, backend = Options(*rest[:-1]), rest[-1]
    tensors = (x, weight, bias, residual, given_mean, given_var)
    if backend == "native" and x.numel():
        return _norm_act_native.forward(*tensors, options)
    function = implementation(reference.norm_act, backend if x.numel() else "reference")
    y, mean, var = with_own_memory(function(*tensors, *options), tensors)
    return y, mean, var


def run_backward(
    grad_y: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    *rest: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Its gradients, empty where there is nothing; ``rest`` is Options, whether the residual needs one, backend."""
    options, residual_grad, backend = Options(*rest[:-2]), rest[-2], rest[-1]
    tensors = (grad_y, x, weight, bias, residual, mean, var)
    if backend == "native" and x.numel():
        return _norm_act_native.backward(*tensors, options, residual_grad)
    function = implementation(reference.norm_act_backward, backend if x.numel() else "reference")
    grad_x, grad_weight, grad_bias, grad_residual = with_own_memory(
        function(*tensors, *options, residual_grad), tensors
    )
    return grad_x, grad_weight, grad_bias, grad_residual


def _forward_fake(
    x: Tensor, weight: Any, bias: Any, residual: Any, given_mean: Tensor | None, given_var: Any, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return empty_outputs(x, given_mean, Options(*rest[:-1]))


def _backward_fake(
    grad_y: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return empty_gradients(x, weight, bias, rest[-2])


# --- gradient and double gradient -----------------------------------------------------------------------


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, weight, bias, residual, given_mean, given_var, *rest = inputs
    _, mean, var = output
    ctx.mark_non_differentiable(mean, var)
    ctx.set_materialize_grads(False)
    ctx.options, ctx.backend = Options(*rest[:-1]), rest[-1]
    if ctx.options.norm == "none" or given_mean is not None:
        mean, var = given_mean, given_var
    # The residual decides which side of the activation's kink a value lies on, and nothing else.
    kept_residual = None if ctx.options.act == "none" else residual
    ctx.save_for_backward(x, weight, bias, kept_residual, mean, var)


def _gradient(ctx: Any, grad_y: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
    if grad_y is None:
        return (None,) * 14
    x, weight, bias, residual, mean, var = ctx.saved_tensors
    needs_residual = ctx.needs_input_grad[3]
    # Then the residual's gradient is grad_y itself.
    passes_through = ctx.options.act == "none" and ctx.options.pad == 0
    grad_x, grad_weight, grad_bias, grad_residual = _OP_BACKWARD(
        grad_y, x, weight, bias, residual, mean, var, *ctx.options, needs_residual and not passes_through,
        ctx.backend,
    )  # fmt: skip
    return (
        grad_x if ctx.needs_input_grad[0] else None,
        grad_weight if weight is not None and ctx.needs_input_grad[1] else None,
        grad_bias if bias is not None and ctx.needs_input_grad[2] else None,
        (grad_y if passes_through else grad_residual) if needs_residual else None,
        *(None,) * 10,
    )


def _setup_context_backward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:7])
    ctx.options = inputs[7:15]  # with residual_grad


def _double_gradient(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    """Through the reference: statistics of x are taken again there, so they move with x."""
    grad_y, x, weight, bias, residual, mean, var = ctx.saved_tensors

    def gradients(
        grad_y: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None, residual: Tensor | None
    ) -> tuple[Tensor, ...]:
        return reference.norm_act_backward(grad_y, x, weight, bias, residual, mean, var, *ctx.options)

    inputs = (grad_y, x, weight, bias, residual)
    return (*differentiate(gradients, inputs, ctx.needs_input_grad[:5], grads), *(None,) * 11)


_OP = register("norm_act", run_forward, _forward_fake, _setup_context, _gradient)
_OP_BACKWARD = register("norm_act_backward", run_backward, _backward_fake, _setup_context_backward, _double_gradient)
