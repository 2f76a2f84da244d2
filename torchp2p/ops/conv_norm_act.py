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
from torchp2p.ops._library import LIBRARY, compiled, differentiate, register, with_own_memory
from torchp2p.ops.norm_act import (
    ACTIVATIONS,
    NORMS,
    PAD_MODES,
    Options,
    norm_act,
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


@dataclass(frozen=True)
class Deferred:
    """An activation that has not been computed: ``act(norm(raw) * weight + bias + residual)``.

    Attributes:
        raw: (N, C, H, W), the output of a convolution, or any tensor (with the defaults it stands for itself).
        norm, weight, bias, eps, act, slope, stat_groups: as in :func:`torchp2p.ops.norm_act`.
        running_mean, running_var, training, momentum: likewise; updated when the activation is first computed.
        residual: (N, C, H, W) to add before the activation, or None.
    """

    raw: Tensor
    norm: str = "none"
    weight: Tensor | None = None
    bias: Tensor | None = None
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
        """The activation itself, padded if asked: one :func:`torchp2p.ops.norm_act`."""
        return norm_act(
            self.raw,
            self.weight,
            self.bias,
            norm=self.norm,
            running_mean=self.running_mean,
            running_var=self.running_var,
            training=self.training,
            momentum=self.momentum,
            eps=self.eps,
            act=self.act,
            slope=self.slope,
            residual=self.residual,
            pad=pad,
            pad_mode=pad_mode,
            stat_groups=self.stat_groups,
            backend=backend,
        )

    def takes_statistics(self) -> bool:
        """Whether mean and variance are those of ``raw`` itself."""
        return self.norm != "none" and (self.training or self.running_mean is None)


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
    if algorithm is not None and algorithm not in ALGORITHMS:
        if algorithm in _PLANNED:
            raise BackendUnavailableError(f"conv_norm_act: algorithm {algorithm!r} cannot run: {_PLANNED[algorithm]}")
        raise ValueError(f"algorithm must be one of {', '.join((*ALGORITHMS, *_PLANNED))} or None, got {algorithm!r}")
    source = x if isinstance(x, Deferred) else Deferred(x)
    convolution = Convolution(
        _pair("stride", stride), padding, pad_mode, transposed, _pair("output_padding", output_padding)
    )
    _check_convolution(source.raw, weight, bias, convolution)
    _check.one_of("norm", norm, NORMS)
    _check.one_of("act", act, ACTIVATIONS)
    if norm == "instance" and running_mean is None:
        bias = None
    raw = _convolve(source, weight, bias, convolution, backend)
    result = Deferred(
        raw, norm, norm_weight, norm_bias, running_mean, running_var, training, momentum, eps, act, slope, residual,
        stat_groups,
    )  # fmt: skip
    return result if defer else result.tensor(backend=backend)


def _convolve(
    source: Deferred, weight: Tensor, bias: Tensor | None, convolution: Convolution, backend: str | None
) -> Tensor:
    """The next raw output; running statistics of the activation before it are updated on the way."""
    device_type = source.raw.device.type
    if torch.is_autocast_enabled(device_type):
        dtype = torch.get_autocast_dtype(device_type)
        source = replace(source, raw=source.raw.to(dtype), residual=_to(source.residual, dtype))
        weight, bias = weight.to(dtype), _to(bias, dtype)
    x = source.raw
    given = (
        (None, None)
        if source.norm == "none" or source.takes_statistics()
        else (source.running_mean, source.running_var)
    )
    raw, mean, var = torch.ops.torchp2p.conv_norm_act(
        x, source.weight, source.bias, source.residual, *given,
        source.norm, source.eps, source.act, source.slope, source.stat_groups,
        weight, bias, *convolution, choose("conv_norm_act", x, backend),
    )  # fmt: skip
    running_mean, running_var = source.running_mean, source.running_var
    if running_mean is not None and running_var is not None and source.training and source.norm != "none":
        update_running(x, source.norm, mean, var, running_mean, running_var, source.momentum)
    result: Tensor = raw
    return result


def _to(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if tensor is None else tensor.to(dtype)


def _pair(name: str, value: Any) -> list[int]:
    pair = [value, value] if isinstance(value, int) else list(value) if isinstance(value, (tuple, list)) else []
    if len(pair) != 2 or not all(isinstance(each, int) for each in pair):
        raise TypeError(f"{name} must be an int or a pair of ints, got {value!r}")
    return pair


def _check_convolution(x: Tensor, weight: Tensor, bias: Tensor | None, convolution: Convolution) -> None:
    _check.image_batch("x", x)
    _check.image_batch("weight", weight)
    _check.one_of("pad_mode", convolution.pad_mode, PAD_MODES)
    if convolution.transposed and convolution.pad_mode != "zeros":
        raise ValueError(f"pad_mode must be 'zeros' for a transposed convolution, got {convolution.pad_mode!r}")
    if min(convolution.stride) < 1:
        raise ValueError(f"stride must be at least 1, got {tuple(convolution.stride)}")
    if not isinstance(convolution.padding, int):
        raise TypeError(f"padding must be an int, got {type(convolution.padding).__name__}")
    if convolution.padding < 0:
        raise ValueError(f"padding must not be negative, got {convolution.padding}")
    inputs, outputs = weight.shape[:2] if convolution.transposed else (weight.shape[1], weight.shape[0])
    if x.shape[1] != inputs:
        raise ValueError(f"x must have the {inputs} input channels of weight, got shape {tuple(x.shape)}")
    autocast = torch.is_autocast_enabled(x.device.type)
    if weight.dtype != x.dtype and not autocast:
        raise TypeError(f"weight must be {x.dtype} like x, got {weight.dtype}")
    _check.same_device("weight", weight, x)
    if bias is not None:
        if bias.dim() != 1 or bias.shape[0] != outputs:
            raise ValueError(f"bias must have shape ({outputs},), got {tuple(bias.shape)}")
        if bias.dtype != weight.dtype and not autocast:
            raise TypeError(f"bias must be {weight.dtype} like weight, got {bias.dtype}")
        _check.same_device("bias", bias, x)
    border = convolution.border
    if convolution.pad_mode == "reflect" and (border >= x.shape[2] or border >= x.shape[3]):
        raise ValueError(
            f"padding must be smaller than height and width for pad_mode 'reflect', got {border} "
            f"with x of shape {tuple(x.shape)}"
        )
    size = [x.shape[2] + 2 * convolution.padding, x.shape[3] + 2 * convolution.padding]
    if not convolution.transposed and (size[0] < weight.shape[2] or size[1] < weight.shape[3]):
        raise ValueError(f"padded input of {size} is smaller than the kernel {list(weight.shape[2:])}")


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
    f"conv_norm_act_backward(Tensor grad, {_SOURCE}, Tensor weight, bool has_bias, {_CONVOLUTION}, "
    "bool input_grad, bool residual_grad, str backend) "
    "-> (Tensor grad_x, Tensor grad_in_weight, Tensor grad_in_bias, Tensor grad_residual, Tensor grad_weight, "
    "Tensor grad_bias)"
)


def _options(conv: Convolution, norm: str, eps: float, act: str, slope: float, stat_groups: int) -> Options:
    """How norm_act makes what the convolution reads."""
    return Options(norm, eps, act, slope, conv.border, conv.pad_mode if conv.border else "reflect", stat_groups)


def _stands_for_itself(tensors: tuple[Tensor | None, ...], options: Options) -> bool:
    return options.norm == "none" and options.act == "none" and options.pad == 0 and tensors[1:4] == (None, None, None)


def _forward(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
    *rest, backend = args
    if backend != "native":
        function = compiled(reference.conv_norm_act) if backend == "compile" else reference.conv_norm_act
        raw, mean, var = with_own_memory(function(*rest), rest)
        return raw, mean, var
    tensors, source, (weight, bias), conv = rest[:6], rest[6:11], rest[11:13], Convolution(*rest[13:])
    options = _options(conv, *source)
    if _stands_for_itself(tuple(tensors), options):
        empty = tensors[0].new_empty(0)
        return reference.convolve(tensors[0], weight, bias, conv), empty, empty.clone()
    h, mean, var = run_forward(*tensors, *options, backend)
    return reference.convolve(h, weight, bias, conv), mean, var


def _backward(*args: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    *rest, backend = args
    if backend != "native":
        function = reference.conv_norm_act_backward
        gradients = with_own_memory((compiled(function) if backend == "compile" else function)(*rest), rest)
        return tuple(gradients)  # type: ignore[return-value]
    grad, tensors, source, (weight, has_bias) = rest[0], rest[1:7], rest[7:12], rest[12:14]
    conv, (input_grad, residual_grad) = Convolution(*rest[14:19]), rest[19:]
    options = _options(conv, *source)
    itself = _stands_for_itself(tuple(tensors), options)
    h = tensors[0] if itself else run_forward(*tensors, *options, backend)[0]
    grad_h, grad_weight, grad_bias = reference.convolve_backward(
        grad, h, weight, has_bias, conv, (input_grad, True, has_bias)
    )
    empty = tensors[0].new_empty(0)
    before = (empty, empty, empty, empty)
    if itself and grad_h is not None:
        before = (grad_h, empty, empty, empty)
    elif grad_h is not None:
        before = run_backward(grad_h, *tensors, *options, residual_grad, backend)
    outputs = (*before, grad_weight, empty if grad_bias is None else grad_bias)
    return tuple(with_own_memory(outputs, ()))  # type: ignore[return-value, arg-type]


def _forward_fake(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
    x, given_mean = args[0], args[4]
    norm, stat_groups, weight, bias, conv = args[6], args[10], args[11], args[12], Convolution(*args[13:18])
    n, c, h, w = x.shape
    padded = x
    if conv.border:
        layout = reference.norm_act_reference.memory_format_of(x)
        shape = (n, c, h + 2 * conv.border, w + 2 * conv.border)
        padded = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout)
    raw = reference.convolve(padded, weight, bias, conv)
    taken = norm != "none" and given_mean is None
    stats = (x.shape[0] if norm == "instance" else stat_groups, c) if taken else (0,)
    mean = x.new_empty(stats, dtype=reference.norm_act_reference.statistics_dtype(x.dtype))
    return raw, mean, torch.empty_like(mean)


def _backward_fake(*args: Any) -> tuple[Tensor, ...]:
    x, in_weight, in_bias, weight, has_bias = args[1], args[2], args[3], args[12], args[13]
    input_grad, residual_grad = args[19], args[20]
    conv = Convolution(*args[14:19])
    layout = reference.norm_act_reference.memory_format_of(x)
    like_x = torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=layout)
    empty = x.new_empty(0)
    outputs = weight.shape[1] if conv.transposed else weight.shape[0]
    return (
        like_x if input_grad else empty,
        torch.empty_like(in_weight) if in_weight is not None and input_grad else x.new_empty(0),
        torch.empty_like(in_bias) if in_bias is not None and input_grad else x.new_empty(0),
        torch.empty_like(like_x) if residual_grad and input_grad else x.new_empty(0),
        torch.empty_like(weight),
        weight.new_empty(outputs) if has_bias else x.new_empty(0),
    )


# --- gradient and double gradient -----------------------------------------------------------------------


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, in_weight, in_bias, residual, mean, var = inputs[:6]
    weight, bias = inputs[11:13]
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)
    if inputs[6] != "none" and mean is None:
        _, mean, var = output
    ctx.save_for_backward(x, in_weight, in_bias, residual, mean, var, weight)
    ctx.source, ctx.convolution, ctx.backend = inputs[6:11], inputs[13:18], inputs[18]
    ctx.has_bias = bias is not None


def _gradient(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 19
    *tensors, weight = ctx.saved_tensors
    needs = ctx.needs_input_grad
    before = any(needs[:4])
    gradients = torch.ops.torchp2p.conv_norm_act_backward(
        grad, *tensors, *ctx.source, weight, ctx.has_bias, *ctx.convolution, before, needs[3], ctx.backend
    )
    wanted = [found if needed else None for found, needed in zip(gradients[:4], needs[:4], strict=True)]
    weight_grads = [found if needed else None for found, needed in zip(gradients[4:], needs[11:13], strict=True)]
    return (*wanted, *(None,) * 7, *weight_grads, *(None,) * 6)


def _setup_context_backward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:7], inputs[12])
    ctx.source, ctx.rest = inputs[7:12], inputs[13:21]


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
    return (*found, *(None,) * 7, weight_grad, *(None,) * 9)


register("conv_norm_act", _forward, _forward_fake, _setup_context, _gradient)
register("conv_norm_act_backward", _backward, _backward_fake, _setup_context_backward, _double_gradient)
