"""``instance_avg_pool``: the mean over the pixels of each instance, written back to those pixels.

Source: spec sections 7.1 (the operator and its gradient), 11.2 R16 (what the original loop costs).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torchp2p.ops import _check, _native
from torchp2p.ops._dispatch import choose
from torchp2p.ops._library import LIBRARY, compiled, register
from torchp2p.reference import instance_avg_pool as reference
from torchp2p.reference.norm_act import memory_format_of


def instance_avg_pool(x: Tensor, ids: Tensor, *, backend: str | None = None) -> Tensor:
    """Replace every pixel by the mean of x over the pixels of its sample that have the same id.

    Args:
        x: (N, C, H, W), float32, bfloat16, float16 or float64; contiguous or channels_last, or a view of
            such. The result and the gradient of x take the same layout.
        ids: (N, 1, H, W) or (N, H, W), any integer dtype or bool, any values. Equal ids in different samples
            have nothing to do with each other.
        backend: ``native``, ``triton``, ``compile``, ``reference``, or None for the first that can run.

    Returns:
        Shape, dtype and layout of x. Sums are taken in float64, whatever the dtype of x. Differentiable any
        number of times: the operator is linear, symmetric and idempotent, so its gradient is itself. A nan or
        an infinity reaches the pixels of its own sample, channel and id, and no others.

    Autocast has no effect: the op follows the dtype of x.

    Raises:
        TypeError: an argument that is no Tensor, a dtype of x that is not supported, or ids that are not
            integers.
        ValueError: shapes or devices that do not fit.
        BackendUnavailableError: the backend asked for cannot run; the message says why.
    """
    _check.image_batch("x", x)
    ids = _check.id_map("ids", ids)
    if ids.shape[0] != x.shape[0] or ids.shape[2:] != x.shape[2:]:
        raise ValueError(
            f"ids must have the samples, height and width of x {tuple(x.shape)}, got shape {tuple(ids.shape)}"
        )
    _check.same_device("ids", ids, x)
    chosen = choose("instance_avg_pool", x, backend)
    result: Tensor = _OP(x, ids, memory_format_of(x) == torch.channels_last, chosen)
    return result


# --- schema and implementations ------------------------------------------------------------------------

# The layout of the result is an argument, because as its own gradient the op must give that of x, not of grad_y.
LIBRARY.define("instance_avg_pool(Tensor x, Tensor ids, bool channels_last, str backend) -> Tensor")


def _forward(x: Tensor, ids: Tensor, channels_last: bool, backend: str) -> Tensor:
    if x.numel() == 0:
        return _empty(x, channels_last)
    if backend != "native":
        function = compiled(reference.instance_avg_pool) if backend == "compile" else reference.instance_avg_pool
        pooled: Tensor = function(x, ids, channels_last)
        return pooled
    y = _empty(x, channels_last)
    place, dtype = _native.place(x), _native.DTYPE_CODES[x.dtype]
    scratch = _native.scratch(x, _native.C.instance_avg_pool_scratch(x.shape, dtype) if place[0] >= 0 else 0)
    status = _native.C.instance_avg_pool(
        x.data_ptr(), ids.data_ptr(), y.data_ptr(), _native.address(scratch), x.shape, x.stride(), ids.stride(),
        dtype, ids.element_size(), channels_last, *place,
    )  # fmt: skip
    _native.raise_for_status(status, "instance_avg_pool", f"x of shape {tuple(x.shape)}")
    return y


def _empty(x: Tensor, channels_last: bool) -> Tensor:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=layout)


def _fake(x: Tensor, ids: Tensor, channels_last: bool, backend: str) -> Tensor:
    return _empty(x, channels_last)


# --- gradient -------------------------------------------------------------------------------------------


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    # Not the runs of ids that the forward found: to find them again costs less than to read a map of ranks back.
    _, ids, *ctx.options = inputs
    ctx.save_for_backward(ids)


def _gradient(ctx: Any, grad_y: Tensor) -> tuple[Tensor, None, None, None]:
    (ids,) = ctx.saved_tensors
    return _OP(grad_y, ids, *ctx.options), None, None, None


_OP = register("instance_avg_pool", _forward, _fake, _setup_context, _gradient)
