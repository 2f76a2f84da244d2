"""``gan_loss``: PatchGAN loss reduction over any number of maps, value and gradient in one read of each.

Source: spec sections 4.1, 4.2 (the losses and their gradients), 3.3 (lists of scales and of features).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Union

import torch
from torch import Tensor

from torchp2p.ops import _check, _native
from torchp2p.ops._dispatch import choose
from torchp2p.ops._library import LIBRARY, differentiate, implementation, register
from torchp2p.reference import gan_loss as reference
from torchp2p.reference.norm_act import statistics_dtype

MODES = ("vanilla", "lsgan", "hinge", "wgan")

Predictions = Union[Tensor, Sequence[Union[Tensor, Sequence[Tensor]]]]
"""One map, a list of maps (scales), or a list of feature lists whose last entry is the map."""


def gan_loss(
    predictions: Predictions,
    target_is_real: bool,
    mode: str = "lsgan",
    *,
    for_discriminator: bool = True,
    backend: str | None = None,
) -> Tensor:
    """Mean loss of each discriminator map, summed over maps.

    Args:
        predictions: a map (any shape, usually (N, 1, H, W)), a list of maps, or a list of feature lists
            whose last entry is the map; raw outputs, no sigmoid. float32, bfloat16, float16 or float64,
            all of one dtype and device.
        target_is_real: the side that the discriminator should take (or, for the generator, is to be led to).
        mode: ``vanilla`` (binary cross-entropy with logits, stable for any value), ``lsgan`` (squared
            distance to 1 or 0), ``hinge``, ``wgan``.
        for_discriminator: matters for ``hinge`` only, whose generator loss is -mean (target real).
        backend: ``native``, ``triton``, ``compile``, ``reference``, or None for the first that can run.

    Returns:
        A scalar, float32 (float64 for float64 maps), summed in float64 natively. Differentiable twice.

    Autocast has no effect: the reduction is never done in less than float32.

    Raises:
        TypeError: not tensors, a dtype that is not supported, or a target that is not a bool.
        ValueError: no map, an empty map, mixed dtypes or devices, an unknown mode, or a hinge generator
            loss with target fake.
        BackendUnavailableError: the backend asked for cannot run; the message says why.
    """
    _check.one_of("mode", mode, MODES)
    for name, value in (("target_is_real", target_is_real), ("for_discriminator", for_discriminator)):
        if not isinstance(value, bool):
            raise TypeError(f"{name} must be True or False, got {type(value).__name__}")
    if mode == "hinge" and not for_discriminator and not target_is_real:
        raise ValueError("hinge has no generator loss towards fake: target_is_real must be True, got False")
    maps = final_maps(predictions)
    first = maps[0]
    for index, prediction in enumerate(maps):
        name = "predictions" if len(maps) == 1 else f"predictions[{index}]"
        _check.floating_tensor(name, prediction)
        if prediction.numel() == 0:
            raise ValueError(f"{name} must not be empty, got shape {tuple(prediction.shape)}")
        if prediction.dtype != first.dtype or prediction.device != first.device:
            raise ValueError(
                f"{name} must be {first.dtype} on {first.device} like the first map, "
                f"got {prediction.dtype} on {prediction.device}"
            )
    chosen = choose("gan_loss", first, backend)
    with_slopes = torch.is_grad_enabled() and any(prediction.requires_grad for prediction in maps)
    loss, _ = _OP(maps, target_is_real, mode, for_discriminator, with_slopes, chosen)
    result: Tensor = loss
    return result


def final_maps(predictions: Predictions) -> list[Tensor]:
    """The maps that count: the last entry of every feature list.

    Raises:
        TypeError: something that is neither a Tensor nor a list or tuple of those.
        ValueError: an empty list.
    """
    if isinstance(predictions, Tensor):
        return [predictions]
    if not isinstance(predictions, (list, tuple)):
        raise TypeError(f"predictions must be a Tensor or a list of them, got {type(predictions).__name__}")
    if not predictions:
        raise ValueError("predictions must hold at least one map, got an empty list")
    return [final_maps(scale)[0] if isinstance(scale, Tensor) else _last(scale) for scale in predictions]


def _last(features: Any) -> Tensor:
    if not isinstance(features, (list, tuple)):
        raise TypeError(f"predictions must hold Tensors or lists of them, got {type(features).__name__}")
    if not features:
        raise ValueError("predictions must not hold an empty feature list")
    last: Tensor = features[-1]
    return last


# --- schema and implementations ------------------------------------------------------------------------

LIBRARY.define(
    "gan_loss(Tensor[] maps, bool target_is_real, str mode, bool for_discriminator, bool with_slopes, "
    "str backend) -> (Tensor loss, Tensor[] slopes)"
)
LIBRARY.define(
    "gan_loss_backward(Tensor grad, Tensor[] maps, Tensor[] slopes, bool target_is_real, str mode, "
    "bool for_discriminator) -> Tensor[]"
)

_LINEAR = 3


def _mode_code(mode: str, for_discriminator: bool) -> int:
    """Codes of csrc/include/torchp2p/gan_loss.h: the hinge generator loss is linear, as wgan is."""
    if mode == "wgan" or (mode == "hinge" and not for_discriminator):
        return _LINEAR
    return MODES.index(mode)


def _forward(
    maps: list[Tensor],
    target_is_real: bool,
    mode: str,
    for_discriminator: bool,
    with_slopes: bool,
    backend: str,
) -> tuple[Tensor, list[Tensor]]:
    if backend == "native":
        return _native_forward(maps, target_is_real, mode, for_discriminator, with_slopes)
    function = implementation(reference.gan_loss_with_slopes, backend)
    loss, slopes = function(maps, target_is_real, mode, for_discriminator, with_slopes)
    if not with_slopes:
        return loss, []
    return loss, [s.contiguous(memory_format=_layout(p)) for s, p in zip(slopes, maps, strict=True)]


def _native_forward(
    maps: list[Tensor], target_is_real: bool, mode: str, for_discriminator: bool, with_slopes: bool
) -> tuple[Tensor, list[Tensor]]:
    # Values and slopes must lie in the same order; a view with gaps is copied (maps are small).
    dense = [p.contiguous(memory_format=_layout(p)) for p in maps]
    slopes = [_slope_like(p) for p in dense] if with_slopes else []
    loss = _empty_loss(maps)
    entries = [(p.data_ptr(), slopes[i].data_ptr() if with_slopes else 0, p.numel()) for i, p in enumerate(dense)]
    place = _native.place(dense[0])
    size = _native.C.gan_loss_scratch([p.numel() for p in dense]) if place[0] >= 0 else 0
    scratch = _native.scratch(dense[0], size)
    status = _native.C.gan_loss(
        entries, _native.DTYPE_CODES[maps[0].dtype], _mode_code(mode, for_discriminator), target_is_real,
        loss.data_ptr(), _native.address(scratch), *place,
    )  # fmt: skip
    _native.raise_for_status(status, "gan_loss", f"{len(maps)} maps")
    return loss, slopes


def _empty_loss(maps: list[Tensor]) -> Tensor:
    return maps[0].new_empty((), dtype=statistics_dtype(maps[0].dtype))


def _layout(p: Tensor) -> torch.memory_format:
    if p.is_contiguous() or p.dim() != 4 or not p.is_contiguous(memory_format=torch.channels_last):
        return torch.contiguous_format
    return torch.channels_last


def _slope_like(p: Tensor) -> Tensor:
    return torch.empty_like(p, dtype=statistics_dtype(p.dtype), memory_format=_layout(p))


def _forward_fake(
    maps: list[Tensor],
    target_is_real: bool,
    mode: str,
    for_discriminator: bool,
    with_slopes: bool,
    backend: str,
) -> tuple[Tensor, list[Tensor]]:
    return _empty_loss(maps), [_slope_like(p) for p in maps] if with_slopes else []


def _backward(
    grad: Tensor,
    maps: list[Tensor],
    slopes: list[Tensor],
    target_is_real: bool,
    mode: str,
    for_discriminator: bool,
) -> list[Tensor]:
    """The slopes were taken with the value: what is left is to scale them."""
    if not slopes:
        slopes = reference.gan_loss_slopes(maps, target_is_real, mode, for_discriminator)
        slopes = [s.contiguous(memory_format=_layout(p)) for s, p in zip(slopes, maps, strict=True)]
    return [(slope * grad).to(p.dtype) for slope, p in zip(slopes, maps, strict=True)]


def _backward_fake(grad: Tensor, maps: list[Tensor], slopes: list[Tensor], *options: object) -> list[Tensor]:
    return [torch.empty_like(p, memory_format=_layout(p)) for p in maps]


# --- gradient and double gradient -----------------------------------------------------------------------


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, list[Tensor]]) -> None:
    maps, target_is_real, mode, for_discriminator, _, _ = inputs
    _, slopes = output
    ctx.mark_non_differentiable(*slopes)
    ctx.set_materialize_grads(False)
    ctx.count = len(maps)
    ctx.save_for_backward(*maps, *slopes)
    ctx.options = (target_is_real, mode, for_discriminator)


def _gradient(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Any, ...]:
    if grad is None:
        return ([None] * ctx.count, *(None,) * 5)
    maps, slopes = list(ctx.saved_tensors[: ctx.count]), list(ctx.saved_tensors[ctx.count :])
    grads = _OP_BACKWARD(grad, maps, slopes, *ctx.options)
    return (grads, *(None,) * 5)


def _setup_context_backward(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    grad, maps, _, *options = inputs
    ctx.save_for_backward(grad, *maps)
    ctx.options = options
    ctx.slope_count = len(inputs[2])


def _double_gradient(ctx: Any, grads: list[Tensor | None]) -> tuple[Any, ...]:
    """The slopes move with the maps: differentiate the reference's formula for them."""

    def gradients(grad: Tensor, *maps: Tensor) -> tuple[Tensor, ...]:
        slopes = reference.gan_loss_slopes(maps, *ctx.options)
        return tuple((s * grad).to(p.dtype) for s, p in zip(slopes, maps, strict=True))

    grad, *maps = ctx.saved_tensors
    needs = (ctx.needs_input_grad[0], *_map_needs(ctx, maps))
    grad_grad, *map_grads = differentiate(gradients, (grad, *maps), needs, tuple(grads))
    return grad_grad, map_grads, [None] * ctx.slope_count, None, None, None


def _map_needs(ctx: Any, maps: list[Tensor]) -> tuple[bool, ...]:
    needs = ctx.needs_input_grad[1]
    return tuple(needs) if isinstance(needs, (list, tuple)) else (bool(needs),) * len(maps)


_OP = register("gan_loss", _forward, _forward_fake, _setup_context, _gradient)
_OP_BACKWARD = register("gan_loss_backward", _backward, _backward_fake, _setup_context_backward, _double_gradient)
