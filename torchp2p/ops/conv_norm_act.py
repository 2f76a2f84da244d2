"""``conv_norm_act``: a convolution and the normalise-activate after it, as links of a chain.

A block can hand on its raw output instead of its activation (``defer=True``): the next block normalises,
activates and pads it on the way into its own convolution, and makes it again in the backward pass. A chain of
blocks then stores one tensor a convolution, its raw output, and no activation at all. The fused convolution on
GPUs makes the activation in its load, and takes the statistics of its raw output in its epilogue: it hands on both.

Source: spec sections 2.4 to 2.7 (the blocks), 11.2 R10 to R12 (the fusion, and the bias without effect).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from torchp2p.ops import _check, _conv_fused, _gemm_convolution, _phased_convolution, _winograd
from torchp2p.ops._algorithm import choose_algorithm, reads_float32_weight
from torchp2p.ops._convolution import check_convolution, check_kinds, pair
from torchp2p.ops._deferred import Deferred, stands_for_itself
from torchp2p.ops._dispatch import choose
from torchp2p.ops._library import LIBRARY, differentiate, needed_gradients, register
from torchp2p.ops.norm_act import (
    NORMS,
    Options,
    check_groups,
    empty_gradients,
    empty_outputs,
    given_statistics,
    run_backward,
    run_forward,
    update_running,
)
from torchp2p.reference import conv_norm_act as reference
from torchp2p.reference.conv_norm_act import Convolution


def conv_norm_act(
    x: Tensor | Deferred,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int | tuple[int, int] = 1,
    padding: int = 0,
    pad_mode: str = "zeros",
    transposed: bool = False,
    output_padding: int | tuple[int, int] = 0,
    norm_weight: Tensor | None = None,
    norm_bias: Tensor | None = None,
    norm: str = "instance",
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    training: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    act: str = "leaky_relu",
    slope: float = 0.2,
    residual: Tensor | None = None,
    stat_groups: int = 1,
    defer: bool = False,
    algorithm: str | None = None,
    backend: str | None = None,
) -> Tensor | Deferred:
    """A convolution (or transposed convolution) followed by :func:`torchp2p.ops.norm_act`.

    What is kept for the backward pass is the input (or the raw output and statistics that a Deferred input
    stands for) and this block's raw output: no padded, no normalised and no activated tensor.

    Args:
        x: (N, C, H, W), or what the block before handed on with ``defer=True``.
        weight: (O, C, kh, kw); (C, O, kh, kw) when ``transposed``.
        bias: (O,). In front of an instance norm without running statistics it has no effect and no
            gradient, and is skipped.
        stride: pixels.
        padding, pad_mode: pixels on every side of the input: ``zeros``, ``reflect`` or ``replicate``. A
            transposed convolution takes zeros only.
        transposed, output_padding: as torch's ConvTranspose2d.
        norm_weight, norm_bias, norm, running_mean, running_var, training, momentum, eps, act, slope, residual,
            stat_groups: as in norm_act, about the convolution's output.
        defer: return a Deferred instead of computing the activation.
        algorithm: of the convolution: ``vendor`` (oneDNN, cuDNN), ``fused`` (Triton: reads the activation as it makes
            it, and hands on the statistics of what it writes), ``winograd`` (CPU, 3x3 and 4x4 of stride 1 and 2,
            float32, float64 and bfloat16: fewer multiplications, error at most twice the vendor's), ``gemm`` (one
            matrix product over the windows of the image: for few pixels and large weights), ``phased`` (stride 1,
            results of even size: to few channels, such as those of an image), or None for the one that was found to
            be faster.
        backend: of everything but the convolution.

    Returns:
        (N, O, H', W') in the layout that the convolution gives, or a Deferred of it. Differentiable twice.

    Under autocast the convolution runs in the autocast dtype, as torch's own does, and the normalisation
    follows it with float32 statistics. ``winograd`` in bfloat16 then takes the weight as it is and rounds it once,
    among its frequencies; the weight's gradient is float32.

    Raises:
        TypeError, ValueError: arguments that do not fit; see also norm_act.
        BackendUnavailableError: the algorithm or the backend asked for cannot run; the message says why.
    """
    _check.one_of("norm", norm, NORMS)
    source = _source(x)
    conv = Convolution(pair("stride", stride), padding, pad_mode, transposed, pair("output_padding", output_padding))
    raw, added, residual = _autocast(source.raw, source.residual, residual)
    check_convolution(raw, weight, bias, conv)
    as_it_is = _is_autocast(raw) and reads_float32_weight(algorithm, raw, weight, conv)
    if not as_it_is:
        _, weight, bias = _autocast(raw, weight, bias)
    check_kinds(raw, weight, bias, float32_weight=as_it_is)
    check_groups("raw", raw, norm, stat_groups)
    if norm == "instance" and running_mean is None:
        bias = None
    groups = reference.norm_act_reference.groups_of(raw, norm, stat_groups)
    if norm == "none" or (running_mean is not None and not training):
        groups = 0
    before = replace(source, raw=raw, residual=added)
    if raw is not source.raw:  # rounded, it has other statistics
        before.mean = before.var = None
    raw, mean, var = _convolve(before, weight, bias, conv, groups, algorithm, backend)
    source.take_running()
    result = Deferred(
        raw, norm, norm_weight, norm_bias, running_mean, running_var, training, momentum, eps, act, slope, residual,
        stat_groups, mean, var,
    )  # fmt: skip
    if not defer:
        return result.tensor(backend=backend)
    result.check()
    return result


def _convolve(
    source: Deferred,
    weight: Tensor,
    bias: Tensor | None,
    conv: Convolution,
    groups: int,
    algorithm: str | None,
    backend: str | None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The next raw output and, where the algorithm takes them, its statistics by ``groups``.

    Running statistics of the activation before it are updated on the way.
    """
    x, norm, taken = source.raw, source.norm, source.taken
    running_mean, running_var = source.running_mean, source.running_var
    given = taken or given_statistics(norm, running_mean, running_var, source.training)
    tensors = (x, source.norm_weight, source.norm_bias, source.residual, *given)
    options = (norm, source.eps, source.act, source.slope, source.stat_groups)
    algorithm = choose_algorithm(algorithm, tensors, _options(conv, *options), weight, conv, groups)
    groups = groups if algorithm == "fused" else 0
    raw, mean, var, *of_raw = _OP(
        *tensors, *options, weight, bias, *conv, groups, algorithm, choose("norm_act", x, backend)
    )
    mean, var = taken or (mean, var)
    if source.training and norm != "none":
        update_running(x, norm, mean, var, running_mean, running_var, source.momentum)
    return (raw, *of_raw) if groups else (raw, None, None)


def _source(x: Any) -> Deferred:
    """What the convolution reads."""
    if isinstance(x, Deferred):
        x.check()
        return x
    _check.image_batch("x", x)
    return Deferred(x)


def _autocast(x: Tensor, *others: Any) -> tuple[Any, ...]:
    """Tensors as torch's own convolutions take them: in the autocast dtype where that is on, but for float64."""
    if not _is_autocast(x):
        return (x, *others)
    dtype = torch.get_autocast_dtype(x.device.type)
    return tuple(
        each.to(dtype)
        if isinstance(each, Tensor) and each.is_floating_point() and each.dtype != torch.float64
        else each
        for each in (x, *others)
    )


def _is_autocast(x: Tensor) -> bool:
    return x.device.type != "meta" and torch.is_autocast_enabled(x.device.type)


# --- schema and implementations ------------------------------------------------------------------------

_SOURCE = (
    "Tensor x, Tensor? in_weight, Tensor? in_bias, Tensor? residual, Tensor? mean, Tensor? var, "
    "str norm, float eps, str act, float slope, int stat_groups"
)
_CONVOLUTION = "int[] stride, int padding, str pad_mode, bool transposed, int[] output_padding"
# groups: how many of statistics of raw to take; none are 0.
LIBRARY.define(
    f"conv_norm_act({_SOURCE}, Tensor weight, Tensor? bias, {_CONVOLUTION}, SymInt groups, str algorithm, str backend) "
    "-> (Tensor raw, Tensor mean, Tensor var, Tensor raw_mean, Tensor raw_var)"
)
LIBRARY.define(
    f"conv_norm_act_backward(Tensor grad, {_SOURCE}, Tensor weight, {_CONVOLUTION}, "
    "bool input_grad, bool residual_grad, bool weight_grad, bool bias_grad, str algorithm, str backend) "
    "-> (Tensor grad_x, Tensor grad_in_weight, Tensor grad_in_bias, Tensor grad_residual, Tensor grad_weight, "
    "Tensor grad_bias)"
)


# Algorithms made of torch's operators: what has their convolve and convolve_backward.
_IN_TORCH: dict[str, Any] = {"vendor": reference, "gemm": _gemm_convolution, "phased": _phased_convolution}


def _forward(*args: Any) -> tuple[Tensor, ...]:
    tensors, (weight, bias), conv = args[:6], args[11:13], Convolution(*args[13:18])
    groups, algorithm, backend = args[18:]
    options = _options(conv, *args[6:11])
    if algorithm == "fused":
        return _conv_fused.forward(tensors, options, weight, bias, conv, groups)
    if stands_for_itself(options, *tensors[1:4]):
        acc = reference.norm_act_reference.statistics_dtype(tensors[0].dtype)
        h, mean, var = tensors[0], *_nothing(tensors[0], 2, acc)
    else:
        h, mean, var = run_forward(*tensors, *options, backend)
    if algorithm == "winograd":
        return _winograd.convolve(h, weight, bias, conv), mean, var, *_nothing(mean, 2)
    return _IN_TORCH[algorithm].convolve(h, weight, bias, conv), mean, var, *_nothing(mean, 2)


def _backward(*args: Any) -> tuple[Tensor, ...]:
    grad, tensors, weight, conv = args[0], args[1:7], args[12], Convolution(*args[13:18])
    input_grad, residual_grad, weight_grad, bias_grad, algorithm, backend = args[18:]
    options = _options(conv, *args[7:12])
    if algorithm == "fused":
        return _conv_fused.backward(grad, tensors, options, weight, conv, args[18:22], backend)
    itself = stands_for_itself(options, *tensors[1:4])
    if itself:
        h = tensors[0]
    elif weight_grad:
        h, _, _ = run_forward(*tensors, *options, backend)
    else:  # its values are not read
        h, _, _ = empty_outputs(tensors[0], tensors[4], options)
    needs = (input_grad, weight_grad, bias_grad)
    if algorithm == "winograd":
        grad_h, *grads_after = _winograd.convolve_backward(grad, h, weight, conv, needs)
    else:
        grad_h, *grads_after = _IN_TORCH[algorithm].convolve_backward(grad, h, weight, conv, needs)
    if input_grad and not itself:
        return (*run_backward(grad_h, *tensors, *options, residual_grad, backend), *grads_after)
    return (grad_h, *_nothing(grad, 3), *grads_after)


def _options(conv: Convolution, norm: str, eps: float, act: str, slope: float, stat_groups: int) -> Options:
    """How norm_act makes what the convolution reads."""
    return Options(norm, eps, act, slope, conv.border, conv.pad_mode, stat_groups)


def _nothing(like: Tensor, count: int, dtype: torch.dtype | None = None) -> tuple[Tensor, ...]:
    return tuple(like.new_empty(0, dtype=dtype) for _ in range(count))


def _forward_fake(*args: Any) -> tuple[Tensor, ...]:
    x, (weight, bias), conv = args[0], args[11:13], Convolution(*args[13:18])
    options, groups = _options(conv, *args[6:11]), args[18]
    h, mean, var = empty_outputs(x, args[4], options)
    if args[19] == "fused":
        raw = _conv_fused.empty_output(x, weight, conv)
        of_raw = (mean.new_empty((groups, raw.shape[1])) for _ in range(2)) if groups else _nothing(mean, 2)
        return raw, mean, var, *of_raw
    if stands_for_itself(options, *args[1:4]):
        h = x
    bias = None if bias is None else bias.to(h.dtype)
    return reference.convolve(h, weight.to(h.dtype), bias, conv), mean, var, *_nothing(mean, 2)


def _backward_fake(*args: Any) -> tuple[Tensor, ...]:
    (grad, x, in_weight, in_bias), weight, conv = args[:4], args[12], Convolution(*args[13:18])
    input_grad, residual_grad, weight_grad, bias_grad = args[18:22]
    h, _, _ = empty_outputs(x, None, _options(conv, *args[7:12]))
    like = weight.to(grad.dtype)
    _, *grads_after = reference.convolve_backward(grad, h, like, conv, (False, weight_grad, bias_grad))
    if weight_grad and args[22] != "vendor":
        grads_after[0] = torch.empty_like(weight)
    if bias_grad:
        grads_after[1] = grads_after[1].to(weight.dtype)
    grads_before = empty_gradients(x, in_weight, in_bias, residual_grad) if input_grad else _nothing(x, 4)
    return (*grads_before, *grads_after)


# --- gradient and double gradient -----------------------------------------------------------------------


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, in_weight, in_bias, residual, mean, var = inputs[:6]
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)
    if inputs[6] != "none" and mean is None:
        mean, var = output[1:3]
    ctx.save_for_backward(x, in_weight, in_bias, residual, mean, var, inputs[11])
    ctx.source, ctx.convolution, ctx.how = inputs[6:11], inputs[13:18], inputs[19:]


def _gradient(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 21
    *tensors, weight = ctx.saved_tensors
    needs = needed_gradients(ctx)
    before, after = needs[:4], needs[11:13]
    gradients = _OP_BACKWARD(
        grad, *tensors, *ctx.source, weight, *ctx.convolution, any(before), before[3], *after, *ctx.how
    )
    found = [each if needed else None for each, needed in zip(gradients, (*before, *after), strict=True)]
    return (*found[:4], *(None,) * 7, *found[4:], *(None,) * 8)


def _setup_context_backward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:7], inputs[12])
    ctx.source, ctx.rest = inputs[7:12], inputs[13:22]


def _double_gradient(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    """Through the reference: statistics of x are taken again there, so they move with x."""
    grad, x, in_weight, in_bias, residual, mean, var, weight = ctx.saved_tensors

    def gradients(grad: Tensor, x: Tensor, in_weight: Any, in_bias: Any, residual: Any, weight: Tensor) -> Any:
        *before, of_weight, of_bias = reference.conv_norm_act_backward(
            grad, x, in_weight, in_bias, residual, mean, var, *ctx.source, weight.to(x.dtype), *ctx.rest
        )
        return (*before, of_weight.to(weight.dtype), of_bias.to(weight.dtype))

    inputs = (grad, x, in_weight, in_bias, residual, weight)
    needs = (*ctx.needs_input_grad[:5], ctx.needs_input_grad[12])
    *found, weight_grad = differentiate(gradients, inputs, needs, grads)
    return (*found, *(None,) * 7, weight_grad, *(None,) * 11)


_OP = register("conv_norm_act", _forward, _forward_fake, _setup_context, _gradient)
_OP_BACKWARD = register("conv_norm_act_backward", _backward, _backward_fake, _setup_context_backward, _double_gradient)
