"""What the tests of all ops share: how exact is exact enough, and the ways a tensor can lie in memory.

Every op is held against its definition in float64 (the oracle). The bound comes from eager PyTorch on the same
values in the same dtype: our error may be twice eager's, plus one unit in the last place of the largest value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from torchp2p.ops._dispatch import why_not
from torchp2p.reference.norm_act import statistics_dtype

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
HALF_DTYPES = (torch.bfloat16, torch.float16)


def backends_on(device: str, op: str) -> list[str]:
    """The backends to test on a device: native must be there on the CPU, others where they can run.

    ``compile`` takes seconds a case, so the few tests of it ask for it by name.
    """
    required = ["native"] if device == "cpu" else []
    able = [name for name in ("native", "triton", "reference") if not why_not(op, name, device, torch.float32)]
    return required + [name for name in able if name not in required]


# --- exactness -------------------------------------------------------------------------------------------


def largest_error(value: Tensor, oracle: Tensor) -> float:
    """Largest absolute difference; infinite if a nan or an infinity stands where the oracle has a number."""
    assert value.shape == oracle.shape, f"shape {tuple(value.shape)}, expected {tuple(oracle.shape)}"
    if value.numel() == 0:
        return 0.0
    difference = (value.double() - oracle.double()).abs()
    return float("inf") if difference.isnan().any() else difference.max().item()


def assert_as_exact_as_eager(
    name: str, ours: Tensor, eager: Tensor, oracle: Tensor, magnitude: float | None = None
) -> None:
    """Our error is at most twice eager's in the same dtype, plus one ULP of the scale of the result.

    Where eager was lucky a handful of roundings in the accumulator's dtype is allowed besides: relative to
    ``magnitude``, for a sum that of its terms (the sum of their absolute values), else to the scale.
    """
    assert ours.dtype == eager.dtype, f"{name} is {ours.dtype}, eager's is {eager.dtype}"
    scale = oracle.abs().max().item() if oracle.numel() else 0.0
    unit, small_unit = torch.finfo(ours.dtype).eps, torch.finfo(statistics_dtype(ours.dtype)).eps
    allowance = unit * scale + small_unit * (4 * scale if magnitude is None else magnitude)
    error, eager_error = largest_error(ours, oracle), largest_error(eager, oracle)
    assert error <= 2 * eager_error + allowance, (
        f"{name}: error {error:.3e}, eager's in {ours.dtype} {eager_error:.3e}, scale {scale:.3e}"
    )


def assert_same_vector(name: str, ours: Tensor, oracle: Tensor) -> None:
    """As a whole vector: relative L2 distance, direction, and no drift to one side (a biased gradient)."""
    # Rounded to the dtype once, after some roundings in the accumulator's dtype, which may all go one way.
    unit, small_unit = torch.finfo(ours.dtype).eps, torch.finfo(statistics_dtype(ours.dtype)).eps
    found, wanted = ours.double().flatten(), oracle.double().flatten()
    norm = wanted.norm().item()
    if norm == 0:
        assert found.norm().item() <= unit, f"{name} must be zero"
        return
    distance = (found - wanted).norm().item() / norm
    cosine = torch.dot(found, wanted).item() / (norm * found.norm().item() or 1.0)
    bias = abs((found - wanted).mean().item()) / wanted.abs().mean().item()
    assert distance <= unit + 4 * small_unit, f"{name}: relative L2 distance {distance:.3e} in {ours.dtype}"
    assert cosine >= 1 - (unit + 4 * small_unit) ** 2 - 1e-12, f"{name}: cosine {cosine} in {ours.dtype}"
    # Independent roundings average out as the root of their number; a quarter of a unit in common does not pass.
    most = unit * max(0.25, 4 / len(wanted) ** 0.5) + small_unit
    assert bias <= most, f"{name}: signed bias {bias:.3e} in {ours.dtype}"


def ulps_from(value: Tensor, oracle: Tensor) -> Tensor:
    """Distance in units in the last place of ``value.dtype`` at each oracle value (subnormals count as one unit)."""
    info = torch.finfo(value.dtype)
    magnitude = oracle.abs().clamp(min=info.tiny).double()
    unit = torch.exp2(torch.floor(torch.log2(magnitude))) * info.eps
    return (value.double() - oracle).abs() / unit


# --- layouts ---------------------------------------------------------------------------------------------

AROUND = 100  # what stands around a window; it fits every dtype


def contiguous(x: Tensor) -> Tensor:
    return x.contiguous()


def channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def cropped(x: Tensor) -> Tensor:
    """A window in height and width of a larger tensor, with something else around it."""
    n, c, h, w = x.shape
    around = torch.full((n, c, h + 3, w + 5), AROUND, dtype=x.dtype, device=x.device)
    window = around[:, :, 1 : 1 + h, 2 : 2 + w]
    return window.copy_(x)


def cropped_channels_last(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    around = channels_last(torch.full((n, c, h + 3, w + 5), AROUND, dtype=x.dtype, device=x.device))
    window = around[:, :, 1 : 1 + h, 2 : 2 + w]
    return window.copy_(x)


def channel_slice(x: Tensor) -> Tensor:
    """Some channels of a tensor that has more: what the gradient of torch.cat hands out."""
    n, c, h, w = x.shape
    more = torch.full((n, c + 4, h, w), AROUND, dtype=x.dtype, device=x.device)
    return more[:, 1 : 1 + c].copy_(x)


def channel_slice_channels_last(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    more = channels_last(torch.full((n, c + 4, h, w), AROUND, dtype=x.dtype, device=x.device))
    return more[:, 1 : 1 + c].copy_(x)


def transposed(x: Tensor) -> Tensor:
    """Height and width swapped in memory."""
    return x.transpose(2, 3).contiguous().transpose(2, 3)


def every_second(x: Tensor) -> Tensor:
    """Every second row and column of a larger tensor."""
    n, c, h, w = x.shape
    larger = torch.full((n, c, 2 * h, 2 * w), AROUND, dtype=x.dtype, device=x.device)
    return larger[:, :, ::2, ::2].copy_(x)


def misaligned(x: Tensor) -> Tensor:
    """Contiguous, one element after the start of its storage."""
    storage = torch.empty(x.numel() + 1, dtype=x.dtype, device=x.device)
    return storage[1:].view(x.shape).copy_(x)


def expanded(x: Tensor) -> Tensor:
    """Stride 0: the first sample and the first column, repeated. Other values than those of ``x``."""
    return x[:1, :, :, :1].expand(x.shape)


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    layout.__name__: layout
    for layout in (
        contiguous,
        channels_last,
        cropped,
        cropped_channels_last,
        channel_slice,
        channel_slice_channels_last,
        transposed,
        every_second,
        misaligned,
        expanded,
    )
}


def leaf(x: Tensor | None) -> Tensor | None:
    """A leaf that takes gradients and shares the memory, hence the strides, of ``x``."""
    return None if x is None else x.detach().requires_grad_()


def doubled(tensors: Iterable[Tensor | None]) -> list[Tensor | None]:
    """The same values in float64."""
    return [None if t is None else t.detach().double() for t in tensors]


def is_dense_in_the_layout_of(y: Tensor, x: Tensor) -> bool:
    """Whether ``y`` is dense, channels_last where ``x`` (not also contiguous) is that, else contiguous."""
    if x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous():
        return y.is_contiguous(memory_format=torch.channels_last)
    return y.is_contiguous()


# --- what an op did --------------------------------------------------------------------------------------


def recorded_calls(function: Callable[[], object]) -> list[str]:
    """Names of the torch operators that ran while ``function`` did, those inside our own ops included."""
    with torch.autograd.profiler.profile() as profile:
        function()
    return [event.name for event in profile.function_events]


def saved_tensors(function: Callable[[], Tensor]) -> list[Tensor]:
    """The tensors that ``function`` left for its backward, each storage once."""
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.numel():
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        function()
    return list(kept.values())
