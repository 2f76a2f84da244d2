"""``feature_matching_loss``: weighted mean absolute differences of any number of tensor pairs, in one pass.

Source: spec sections 4.3 (L1), 4.4 (feature matching), 4.5 (VGG), 3.3 (lists of scales), 11.2 (R13).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Union

import torch
from torch import Tensor

from torchp2p.ops import _check, _native
from torchp2p.ops._dispatch import choose
from torchp2p.ops._library import LIBRARY, implementation, register
from torchp2p.reference import feature_matching_loss as reference
from torchp2p.reference.norm_act import statistics_dtype

Features = Union[Tensor, "Sequence[Features]"]
"""A tensor, or a list of features: of layers, or of scales of layers."""


def feature_matching_loss(
    fake: Features,
    real: Features,
    weights: Sequence[float] | None = None,
    *,
    backend: str | None = None,
) -> Tensor:
    """Sum over tensor pairs of weight * mean |fake - real|.

    With one pair this is L1, with feature lists it is feature matching or the VGG loss. Every tensor of the lists
    counts; :class:`torchp2p.nn.FeatureMatchingLoss` leaves the discriminator's final maps out, and weighs the rest.

    Args:
        fake, real: a tensor, or a list of tensors, nested to any depth ([scale][layer]) and alike in both. The
            two of a pair have one shape (nothing is broadcast; it must not be empty), and all tensors one dtype,
            float32, bfloat16, float16 or float64, and one device. Any strides.
        weights: one number for every pair, in the order in which the lists are read; None for 1 each.
        backend: ``native``, ``triton``, ``compile``, ``reference``, or None for the first that can run.

    Returns:
        A scalar, float32 (float64 for float64 tensors), natively summed in float64.

    ``real`` is taken as a constant: it gets no gradient even where it requires one, and is not kept for the
    backward. The gradient of ``fake`` is weight * sign(fake - real) / numel, with 0 where they are equal or one
    is nan, and lies in memory as ``fake`` does; for it the forward keeps the signs, natively and with Triton two bits
    each.
    Differentiable twice; second derivatives with respect to ``fake`` are 0.

    A pair whose tensors lie in different orders (contiguous and channels_last, say) costs a copy of ``real``;
    slices and crops natively do not, with Triton they do.

    Autocast has no effect: the reduction is never done in less than float32.

    Raises:
        TypeError: not tensors or lists of them, a dtype that is not supported, mixed dtypes, or weights that
            are not numbers.
        ValueError: lists or shapes that differ, an empty list or tensor, mixed devices, or a wrong number of
            weights.
        BackendUnavailableError: the backend asked for cannot run; the message says why.
    """
    pairs = _pairs(fake, real, "")
    fakes, reals = [f for f, _ in pairs], [r.detach() if r.requires_grad else r for _, r in pairs]
    factors = _factors(weights, len(pairs))
    chosen = choose("feature_matching_loss", fakes[0], backend)
    recorded = torch.is_grad_enabled()
    wanted = [recorded and f.requires_grad for f in fakes]
    loss, _ = _OP(fakes, reals, factors, wanted, chosen)
    result: Tensor = loss
    return result


def _pairs(fake: Any, real: Any, place: str) -> list[tuple[Tensor, Tensor]]:
    """The tensor pairs of equally nested lists. ``place`` says where in them this is: ``[0][2]``."""
    if isinstance(fake, Tensor) or isinstance(real, Tensor):
        return [_pair(fake, real, place)]
    for name, value in (("fake", fake), ("real", real)):
        if not isinstance(value, (list, tuple)):
            raise TypeError(f"{name}{place} must be a Tensor or a list of them, got {type(value).__name__}")
    if len(fake) != len(real):
        raise ValueError(
            f"real{place} must have as many entries as fake{place}, which has {len(fake)}, got {len(real)}"
        )
    if not fake:
        raise ValueError(f"fake{place} must hold at least one tensor, got an empty list")
    found: list[tuple[Tensor, Tensor]] = []
    for index, (f, r) in enumerate(zip(fake, real, strict=True)):
        found += _pairs(f, r, f"{place}[{index}]")
        _check_like(found[0][0], found[-1][0], f"fake{place}[{index}]")
    return found


def _pair(fake: Any, real: Any, place: str) -> tuple[Tensor, Tensor]:
    _check.floating_tensor(f"fake{place}", fake)
    _check.floating_tensor(f"real{place}", real)
    _check.same_as(f"real{place}", real, fake, of=f"fake{place}")
    if fake.numel() == 0:
        raise ValueError(f"fake{place} must not be empty, got shape {tuple(fake.shape)}")
    return fake, real


def _check_like(first: Tensor, other: Tensor, name: str) -> None:
    if other.dtype != first.dtype:
        raise TypeError(f"{name} must be {first.dtype} like the tensors before it, got {other.dtype}")
    _check.same_device(name, other, first, of="the tensors before it")


def _factors(weights: Sequence[float] | None, count: int) -> list[float]:
    if weights is None:
        return [1.0] * count
    if not isinstance(weights, (list, tuple)):
        raise TypeError(f"weights must be a list of numbers or None, got {type(weights).__name__}")
    if len(weights) != count:
        raise ValueError(f"weights must have one number for each of the {count} tensor pairs, got {len(weights)}")
    for index, weight in enumerate(weights):
        if not isinstance(weight, (int, float)):
            raise TypeError(f"weights[{index}] must be a number, got {type(weight).__name__}")
    return [float(weight) for weight in weights]


# --- schema and implementations ------------------------------------------------------------------------

# Signs are empty where no gradient is wanted. How they lie is a matter of the backend: see _signs_like.
LIBRARY.define(
    "feature_matching_loss(Tensor[] fake, Tensor[] real, float[] weights, bool[] wanted, str backend) "
    "-> (Tensor loss, Tensor[] signs)"
)
LIBRARY.define(
    "feature_matching_loss_backward(Tensor grad, Tensor[] fake, Tensor[] signs, float[] weights, str backend) "
    "-> Tensor[]"
)


def _forward(
    fake: list[Tensor], real: list[Tensor], weights: list[float], wanted: list[bool], backend: str
) -> tuple[Tensor, list[Tensor]]:
    if backend == "native":
        signs = [_signs_like(f, keep, backend) for f, keep in zip(fake, wanted, strict=True)]
        return _native_forward(fake, real, signs, weights), signs
    result: tuple[Tensor, list[Tensor]] = implementation(reference.feature_matching_loss_with_signs, backend)(
        fake, real, weights, wanted
    )
    return result


def _forward_fake(
    fake: list[Tensor], real: list[Tensor], weights: list[float], wanted: list[bool], backend: str
) -> tuple[Tensor, list[Tensor]]:
    return _empty_loss(fake), [_signs_like(f, keep, backend) for f, keep in zip(fake, wanted, strict=True)]


def _backward(
    grad: Tensor, fake: list[Tensor], signs: list[Tensor], weights: list[float], backend: str
) -> list[Tensor]:
    grads = _backward_fake(grad, fake, signs, weights, backend)
    places = [i for i, kept in enumerate(signs) if kept.numel()]
    if backend == "native":
        _native_backward(grad, [(signs[i], grads[i], weights[i]) for i in places])
        return grads
    chosen = ([fake[i] for i in places], [signs[i] for i in places], [weights[i] for i in places])
    found = implementation(reference.feature_matching_gradients, backend)(grad, *chosen)
    for i, value in zip(places, found, strict=True):
        grads[i] = value
    return grads


def _backward_fake(
    grad: Tensor, fake: list[Tensor], signs: list[Tensor], weights: list[float], backend: str
) -> list[Tensor]:
    return [torch.empty_like(f) if kept.numel() else f.new_empty(0) for f, kept in zip(fake, signs, strict=True)]


def _empty_loss(fake: list[Tensor]) -> Tensor:
    return fake[0].new_empty((), dtype=statistics_dtype(fake[0].dtype))


def _signs_like(fake: Tensor, wanted: bool, backend: str) -> Tensor:
    """Memory for the signs of one pair: packed for kernels, elsewhere an int8 each, in the layout of the gradient."""
    if not wanted:
        return fake.new_empty(0, dtype=torch.int8)
    if backend == "native":
        return fake.new_empty(
            (fake.numel() + 255) // 256 * 64, dtype=torch.int8
        )  # feature_sign_bytes of the C++ header
    if backend == "triton":
        return fake.new_empty((fake.numel() + 7) // 8 * 2, dtype=torch.int8)  # of kernels/feature_matching_loss.py
    return torch.empty_like(fake, dtype=torch.int8)


# --- native --------------------------------------------------------------------------------------------

_Integers = tuple[int, ...]


def _native_forward(fake: list[Tensor], real: list[Tensor], signs: list[Tensor], weights: list[float]) -> Tensor:
    loss = _empty_loss(fake)
    entries, copies = [], []  # copies live until the call is over
    for f, r, kept, weight in zip(fake, real, signs, weights, strict=True):
        used, walk = _walk(f, r)
        copies.append(used)
        address = kept.data_ptr() if kept.numel() else 0
        entries.append((f.data_ptr(), used.data_ptr(), address, *walk, weight))
    place = _native.place(fake[0])
    size = _native.C.feature_matching_loss_scratch([f.numel() for f in fake]) if place[0] >= 0 else 0
    scratch = _native.scratch(fake[0], size)
    status = _native.C.feature_matching_loss_forward(
        entries, _native.DTYPE_CODES[fake[0].dtype], loss.data_ptr(), _native.address(scratch), *place
    )
    _native.raise_for_status(status, "feature_matching_loss_forward", f"{len(fake)} pairs")
    return loss


def _native_backward(grad: Tensor, entries: list[tuple[Tensor, Tensor, float]]) -> None:
    grad_loss = grad.to(statistics_dtype(entries[0][1].dtype))
    status = _native.C.feature_matching_loss_backward(
        [(signs.data_ptr(), out.data_ptr(), out.numel(), weight) for signs, out, weight in entries],
        _native.DTYPE_CODES[entries[0][1].dtype], grad_loss.data_ptr(), *_native.place(grad),
    )  # fmt: skip
    _native.raise_for_status(status, "feature_matching_loss_backward", f"{len(entries)} gradients")


def _walk(fake: Tensor, real: Tensor) -> tuple[Tensor, tuple[_Integers, _Integers, _Integers, _Integers]]:
    """How the kernel takes a pair: the real tensor to use, then shape, order and the strides of both.

    The order is that of the gradient, which is dense and in the order of ``fake`` (as torch.empty_like makes it).
    """
    alike = fake.is_contiguous() and real.is_contiguous()
    if alike or (fake.stride() == real.stride() and fake.is_contiguous(memory_format=torch.channels_last)):
        return real, ((fake.numel(),), (1,), (1,), (1,))
    order = torch.empty_like(fake, device="meta").stride()
    if not _in_order(real, order):  # taken in this order, every value of it would cost a cache line
        real = torch.empty_strided(real.shape, order, dtype=real.dtype, device=real.device).copy_(real)
    return real, (fake.shape, order, fake.stride(), real.stride())


def _in_order(tensor: Tensor, order: _Integers) -> bool:
    """Whether going through ``tensor`` in this order never jumps back; dimensions with stride 0 do not count."""
    dims = [d for d in range(tensor.dim()) if tensor.shape[d] > 1 and tensor.stride(d) > 0]
    strides = [tensor.stride(d) for d in sorted(dims, key=lambda d: -order[d])]
    return all(slow >= fast for slow, fast in pairwise(strides))


# --- gradient and double gradient -----------------------------------------------------------------------


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, list[Tensor]]) -> None:
    fake, _, ctx.weights, _, ctx.backend = inputs
    _, signs = output
    ctx.mark_non_differentiable(*signs)
    ctx.set_materialize_grads(False)
    ctx.count = len(fake)
    ctx.save_for_backward(*fake, *signs)


def _gradient(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Any, ...]:
    nothing: list[Tensor | None] = [None] * ctx.count
    if grad is None:
        return nothing, nothing, None, None, None
    fake, signs = list(ctx.saved_tensors[: ctx.count]), list(ctx.saved_tensors[ctx.count :])
    grads = _OP_BACKWARD(grad, fake, signs, ctx.weights, ctx.backend)
    wanted = [found if kept.numel() else None for found, kept in zip(grads, signs, strict=True)]
    return wanted, nothing, None, None, None


def _setup_context_backward(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    grad, fake, signs, ctx.weights, ctx.backend = inputs
    ctx.set_materialize_grads(False)
    ctx.count = len(fake)
    ctx.save_for_backward(grad, *fake, *signs)


def _double_gradient(ctx: Any, grads: list[Tensor | None]) -> tuple[Any, ...]:
    """The gradients are signs times ``grad``: linear in it, and not moved by fake."""
    grad, *rest = ctx.saved_tensors
    fake, kept = rest[: ctx.count], rest[ctx.count :]
    with torch.no_grad():  # with these weights the gradients are the bare signs
        sizes = [float(f.numel()) for f in fake]
        signs = _OP_BACKWARD(torch.ones_like(grad), fake, kept, sizes, ctx.backend)
    terms = [
        (g.to(grad.dtype) * sign.to(grad.dtype)).sum() * (weight / size)
        for g, sign, weight, size in zip(grads, signs, ctx.weights, sizes, strict=True)
        if g is not None and sign.numel()
    ]
    grad_grad = torch.stack(terms).sum() if terms else None
    return grad_grad, [None] * ctx.count, [None] * ctx.count, None, None


_OP = register("feature_matching_loss", _forward, _forward_fake, _setup_context, _gradient)
_OP_BACKWARD = register(
    "feature_matching_loss_backward", _backward, _backward_fake, _setup_context_backward, _double_gradient
)
