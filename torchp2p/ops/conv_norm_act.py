"""``conv_norm_act``: a convolution and the normalise-activate after it, as links of a chain.

A block can hand on its raw output instead of its activation (``defer=True``): the next block normalises,
activates and pads it on the way into its own convolution, and makes it again in the backward pass. A chain of
blocks then stores one tensor a convolution, its raw output, and no activation at all. The fused convolution on
GPUs works on the same contract, with the activation made in the load of the convolution and the statistics in
the epilogue of the one before.

Source: spec sections 2.4 to 2.7 (the blocks), 11.2 R10 to R12 (the fusion, and the bias without effect).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from torchp2p.ops import _check
from torchp2p.ops._dispatch import BackendUnavailableError, choose
from torchp2p.ops._library import LIBRARY, differentiate, register
from torchp2p.ops.norm_act import (
    NORMS,
    PAD_MODES,
    Options,
    apply,
    check_arguments,
    empty_gradients,
    empty_outputs,
    given_statistics,
    run_backward,
    run_forward,
    update_running,
)
from torchp2p.reference import conv_norm_act as reference
from torchp2p.reference.conv_norm_act import Convolution

ALGORITHMS = ("vendor",)
_PLANNED = {
    "winograd": "the Winograd convolution is not built yet",
    "fused": "the fused convolution needs a Triton kernel that is not built yet",
}


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

    def tensor(self, pad: int = 0, pad_mode: str = "reflect", backend: str | None = None) -> Tensor:
        """The activation itself, padded if asked: one :func:`torchp2p.ops.norm_act`, which says what it raises.

        Where there is nothing to compute it is ``raw``.
        """
        options = self.options(pad, pad_mode)
        self.check(options)
        if _stands_for_itself(options, self.raw, self.norm_weight, self.norm_bias, self.residual):
            return self.raw
        return apply(
            self.raw, self.norm_weight, self.norm_bias, self.residual, *self.take_running(), self.training,
            self.momentum, options, backend,
        )  # fmt: skip

    def options(self, pad: int = 0, pad_mode: str = "reflect") -> Options:
        """What norm_act is told besides tensors."""
        return Options(self.norm, self.eps, self.act, self.slope, pad, pad_mode, self.stat_groups)

    def check(self, options: Options | None = None) -> None:
        """Raise what norm_act would raise."""
        check_arguments(
            self.raw, self.norm_weight, self.norm_bias, self.residual, self.running_mean, self.running_var,
            self.training, options or self.options(), name="raw", prefix="norm_",
        )  # fmt: skip

    def take_running(self) -> tuple[Tensor | None, Tensor | None]:
        """The running statistics; in training they are given away, so that one batch counts once."""
        running = self.running_mean, self.running_var
        if self.training:
            self.running_mean = self.running_var = None
        return running


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
        algorithm: of the convolution: ``vendor`` (oneDNN, cuDNN), or None for the fastest that is there.
        backend: of everything but the convolution.

    Returns:
        (N, O, H', W') in the layout that the convolution gives, or a Deferred of it. Differentiable twice.

    Under autocast the convolution runs in the autocast dtype, as torch's own does, and the normalisation
    follows it with float32 statistics.

    Raises:
        TypeError, ValueError: arguments that do not fit; see also norm_act.
        BackendUnavailableError: the algorithm or the backend asked for cannot run; the message says why.
    """
    _check_algorithm(algorithm)
    _check.one_of("norm", norm, NORMS)
    source = _source(x)
    conv = Convolution(_pair("stride", stride), padding, pad_mode, transposed, _pair("output_padding", output_padding))
    raw, added, weight, bias, residual = _autocast(source.raw, source.residual, weight, bias, residual)
    _check_convolution(raw, weight, bias, conv)
    if norm == "instance" and running_mean is None:
        bias = None
    raw = _convolve(replace(source, raw=raw, residual=added), weight, bias, conv, backend)
    source.take_running()
    result = Deferred(
        raw, norm, norm_weight, norm_bias, running_mean, running_var, training, momentum, eps, act, slope, residual,
        stat_groups,
    )  # fmt: skip
    if not defer:
        return result.tensor(backend=backend)
    result.check()
    return result


def _convolve(source: Deferred, weight: Tensor, bias: Tensor | None, conv: Convolution, backend: str | None) -> Tensor:
    """The next raw output; running statistics of the activation before it are updated on the way."""
    x, norm = source.raw, source.norm
    running_mean, running_var = source.running_mean, source.running_var
    raw, mean, var = _OP(
        x, source.norm_weight, source.norm_bias, source.residual,
        *given_statistics(norm, running_mean, running_var, source.training),
        norm, source.eps, source.act, source.slope, source.stat_groups,
        weight, bias, *conv, choose("norm_act", x, backend),
    )  # fmt: skip
    if source.training and norm != "none":
        update_running(x, norm, mean, var, running_mean, running_var, source.momentum)
    result: Tensor = raw
    return result


def _source(x: Any) -> Deferred:
    """What the convolution reads."""
    if isinstance(x, Deferred):
        x.check()
        return x
    _check.image_batch("x", x)
    return Deferred(x)


def _autocast(x: Tensor, *others: Any) -> tuple[Any, ...]:
    """Tensors as torch's own convolutions take them: in the autocast dtype where that is on, but for float64."""
    device_type = x.device.type
    if device_type == "meta" or not torch.is_autocast_enabled(device_type):
        return (x, *others)
    dtype = torch.get_autocast_dtype(device_type)
    return tuple(
        each.to(dtype)
        if isinstance(each, Tensor) and each.is_floating_point() and each.dtype != torch.float64
        else each
        for each in (x, *others)
    )


def _pair(name: str, value: Any) -> list[int]:
    pair = [value, value] if isinstance(value, int) else list(value) if isinstance(value, (tuple, list)) else []
    if len(pair) != 2 or not all(isinstance(each, int) for each in pair):
        raise TypeError(f"{name} must be an int or a pair of ints, got {value!r}")
    return pair


def _check_algorithm(algorithm: str | None) -> None:
    if algorithm in _PLANNED:
        raise BackendUnavailableError(f"conv_norm_act: algorithm {algorithm!r} cannot run: {_PLANNED[algorithm]}")
    if algorithm is not None and algorithm not in ALGORITHMS:
        raise ValueError(f"algorithm must be one of {', '.join((*ALGORITHMS, *_PLANNED))} or None, got {algorithm!r}")


def _check_convolution(x: Tensor, weight: Tensor, bias: Tensor | None, conv: Convolution) -> None:
    _check.same_kind("weight", weight, x)
    if weight.dim() != 4 or weight.numel() == 0:
        raise ValueError(f"weight must have four dimensions and no empty one, got shape {tuple(weight.shape)}")
    inputs, outputs = (weight.shape[0], weight.shape[1]) if conv.transposed else (weight.shape[1], weight.shape[0])
    if x.shape[1] != inputs:
        raise ValueError(f"x must have the {inputs} input channels of weight, got shape {tuple(x.shape)}")
    if bias is not None:
        _check.same_kind("bias", bias, x)
        if bias.shape != (outputs,):
            raise ValueError(f"bias must have shape ({outputs},), got {tuple(bias.shape)}")
    _check_geometry(conv)
    _check_sizes(x, weight, conv)


def _check_geometry(conv: Convolution) -> None:
    if not isinstance(conv.padding, int):
        raise TypeError(f"padding must be an int, got {type(conv.padding).__name__}")
    if conv.padding < 0:
        raise ValueError(f"padding must not be negative, got {conv.padding}")
    if min(conv.stride) < 1:
        raise ValueError(f"stride must be at least 1, got {tuple(conv.stride)}")
    _check.one_of("pad_mode", conv.pad_mode, PAD_MODES)
    if conv.transposed and conv.pad_mode != "zeros":
        raise ValueError(f"pad_mode must be 'zeros' for a transposed convolution, got {conv.pad_mode!r}")
    if not conv.transposed and any(conv.output_padding):
        raise ValueError(f"output_padding belongs to a transposed convolution, got {tuple(conv.output_padding)}")
    if not all(0 <= more < step for more, step in zip(conv.output_padding, conv.stride, strict=True)):
        raise ValueError(f"output_padding must be less than stride, got {tuple(conv.output_padding)}")


def _check_sizes(x: Tensor, weight: Tensor, conv: Convolution) -> None:
    height, width = x.shape[2], x.shape[3]
    if conv.pad_mode == "reflect" and conv.padding and (conv.padding >= height or conv.padding >= width):
        raise ValueError(
            f"padding must be smaller than height and width for pad_mode 'reflect', got {conv.padding} "
            f"with x of shape {tuple(x.shape)}"
        )
    if height == 0 or width == 0:
        raise ValueError(f"x must have pixels, got shape {tuple(x.shape)}")
    if min(conv.output_size(dim, x.shape[2 + dim], weight.shape[2 + dim]) for dim in (0, 1)) < 1:
        raise ValueError(
            f"x with its padding must hold the kernel, got x of shape {tuple(x.shape)}, padding {conv.padding} and "
            f"weight of shape {tuple(weight.shape)}"
        )


# --- schema and implementations ------------------------------------------------------------------------

_SOURCE = (
    "Tensor x, Tensor? in_weight, Tensor? in_bias, Tensor? residual, Tensor? mean, Tensor? var, "
    "str norm, float eps, str act, float slope, int stat_groups"
)
_CONVOLUTION = "int[] stride, int padding, str pad_mode, bool transposed, int[] output_padding"
LIBRARY.define(
    f"conv_norm_act({_SOURCE}, Tensor weight, Tensor? bias, {_CONVOLUTION}, str backend) "
    "-> (Tensor raw, Tensor mean, Tensor var)"
)
LIBRARY.define(
    f"conv_norm_act_backward(Tensor grad, {_SOURCE}, Tensor weight, {_CONVOLUTION}, "
    "bool input_grad, bool residual_grad, bool weight_grad, bool bias_grad, str backend) "
    "-> (Tensor grad_x, Tensor grad_in_weight, Tensor grad_in_bias, Tensor grad_residual, Tensor grad_weight, "
    "Tensor grad_bias)"
)


def _forward(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
    tensors, (weight, bias), conv, backend = args[:6], args[11:13], Convolution(*args[13:18]), args[18]
    options = _options(conv, *args[6:11])
    if _stands_for_itself(options, *tensors):
        acc = reference.norm_act_reference.statistics_dtype(tensors[0].dtype)
        h, mean, var = tensors[0], *_nothing(tensors[0], 2, acc)
    else:
        h, mean, var = run_forward(*tensors, *options, backend)
    return reference.convolve(h, weight, bias, conv), mean, var


def _backward(*args: Any) -> tuple[Tensor, ...]:
    grad, tensors, weight, conv = args[0], args[1:7], args[12], Convolution(*args[13:18])
    input_grad, residual_grad, weight_grad, bias_grad, backend = args[18:]
    options = _options(conv, *args[7:12])
    itself = _stands_for_itself(options, *tensors)
    if itself:
        h = tensors[0]
    elif weight_grad:
        h, _, _ = run_forward(*tensors, *options, backend)
    else:  # its values are not read
        h, _, _ = empty_outputs(tensors[0], tensors[4], options)
    grad_h, *grads_after = reference.convolve_backward(grad, h, weight, conv, (input_grad, weight_grad, bias_grad))
    if input_grad and not itself:
        return (*run_backward(grad_h, *tensors, *options, residual_grad, backend), *grads_after)
    return (grad_h, *_nothing(grad, 3), *grads_after)


def _options(conv: Convolution, norm: str, eps: float, act: str, slope: float, stat_groups: int) -> Options:
    """How norm_act makes what the convolution reads."""
    return Options(norm, eps, act, slope, conv.border, conv.pad_mode, stat_groups)


def _stands_for_itself(
    options: Options, x: Tensor, in_weight: Tensor | None, in_bias: Tensor | None, residual: Tensor | None, *_: Any
) -> bool:
    """Whether the convolution reads x as it is."""
    plain = options.norm == "none" and options.act == "none" and options.pad == 0
    return plain and in_weight is None and in_bias is None and residual is None


def _nothing(like: Tensor, count: int, dtype: torch.dtype | None = None) -> tuple[Tensor, ...]:
    return tuple(like.new_empty(0, dtype=dtype) for _ in range(count))


def _forward_fake(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
    (weight, bias), conv = args[11:13], Convolution(*args[13:18])
    options = _options(conv, *args[6:11])
    h, mean, var = empty_outputs(args[0], args[4], options)
    if _stands_for_itself(options, *args[:6]):
        h = args[0]
    return reference.convolve(h, weight, bias, conv), mean, var


def _backward_fake(*args: Any) -> tuple[Tensor, ...]:
    (grad, x, in_weight, in_bias), weight, conv = args[:4], args[12], Convolution(*args[13:18])
    input_grad, residual_grad, weight_grad, bias_grad = args[18:22]
    h, _, _ = empty_outputs(x, None, _options(conv, *args[7:12]))
    _, *grads_after = reference.convolve_backward(grad, h, weight, conv, (False, weight_grad, bias_grad))
    grads_before = empty_gradients(x, in_weight, in_bias, residual_grad) if input_grad else _nothing(x, 4)
    return (*grads_before, *grads_after)


# --- gradient and double gradient -----------------------------------------------------------------------


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, in_weight, in_bias, residual, mean, var = inputs[:6]
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)
    if inputs[6] != "none" and mean is None:
        _, mean, var = output
    ctx.save_for_backward(x, in_weight, in_bias, residual, mean, var, inputs[11])
    ctx.source, ctx.convolution, ctx.backend = inputs[6:11], inputs[13:18], inputs[18]


def _gradient(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 19
    *tensors, weight = ctx.saved_tensors
    before, after = ctx.needs_input_grad[:4], ctx.needs_input_grad[11:13]
    gradients = _OP_BACKWARD(
        grad, *tensors, *ctx.source, weight, *ctx.convolution, any(before), before[3], *after, ctx.backend
    )
    found = [each if needed else None for each, needed in zip(gradients, (*before, *after), strict=True)]
    return (*found[:4], *(None,) * 7, *found[4:], *(None,) * 6)


def _setup_context_backward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:7], inputs[12])
    ctx.source, ctx.rest = inputs[7:12], inputs[13:22]


def _double_gradient(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    """Through the reference: statistics of x are taken again there, so they move with x."""
    grad, x, in_weight, in_bias, residual, mean, var, weight = ctx.saved_tensors

    def gradients(grad: Tensor, x: Tensor, in_weight: Any, in_bias: Any, residual: Any, weight: Tensor) -> Any:
        return reference.conv_norm_act_backward(
            grad, x, in_weight, in_bias, residual, mean, var, *ctx.source, weight, *ctx.rest
        )

    inputs = (grad, x, in_weight, in_bias, residual, weight)
    needs = (*ctx.needs_input_grad[:5], ctx.needs_input_grad[12])
    *found, weight_grad = differentiate(gradients, inputs, needs, grads)
    return (*found, *(None,) * 7, weight_grad, *(None,) * 10)


_OP = register("conv_norm_act", _forward, _forward_fake, _setup_context, _gradient)
_OP_BACKWARD = register("conv_norm_act_backward", _backward, _backward_fake, _setup_context_backward, _double_gradient)
