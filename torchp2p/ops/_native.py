"""The compiled module, if it is there, and the reason if it is not. Importing it never compiles anything."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch  # first: the compiled module shares the OpenMP runtime that torch has loaded

C: Any = None
REASON = ""
"""Why there is no compiled module; empty where there is one."""

try:
    from torchp2p import _C as _loaded

    C = _loaded
except ImportError as error:
    if "_C" in str(error) and "cannot import name" in str(error):
        REASON = "torchp2p was installed without its compiled module (pure Python install)"
    else:
        REASON = f"the compiled module torchp2p._C does not load: {error}"

DTYPE_CODES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2, torch.float64: 3}
"""Codes of ``csrc/include/torchp2p/dtype.h``."""

ID_DTYPES = frozenset(
    (
        torch.bool,
        torch.uint8,
        torch.int8,
        torch.uint16,
        torch.int16,
        torch.uint32,
        torch.int32,
        torch.uint64,
        torch.int64,
    )
)
"""What ids of instances or labels may be. Kernels tell them apart by their bits and take any."""


def unavailable(device_type: str, dtype: torch.dtype) -> str:
    """Why native code cannot run on such tensors; empty if it can."""
    if C is None:
        return REASON
    if dtype not in DTYPE_CODES and dtype not in ID_DTYPES:
        return f"native kernels take float32, bfloat16, float16, float64 and integer ids, not {dtype}"
    if device_type == "cuda":
        return cuda_unavailable()
    if device_type != "cpu":
        return f"torchp2p._C has no kernels for {device_type} tensors"
    return ""


def cuda_unavailable() -> str:
    """Why the CUDA kernels cannot run on torch's current CUDA device; empty if they can."""
    if C is None:
        return REASON
    if not hasattr(C, "cuda_unavailable"):
        return "torchp2p._C was built without CUDA"
    return _cuda_unavailable_on(torch.cuda.current_device() if torch.cuda.is_available() else 0)


@cache
def _cuda_unavailable_on(device: int) -> str:
    reason: str = C.cuda_unavailable(device)
    return reason


def multiplies_bfloat16() -> bool:
    """Whether this CPU has an instruction for products of pairs of bfloat16 numbers, and the kernels use it."""
    return bool(C is not None and C.cpu_multiplies_bfloat16())


# torch.compile cannot trace what C answers, and need not: it never changes.
multiplies_bfloat16._dynamo_marked_constant = True  # type: ignore[attr-defined]


def place(tensor: torch.Tensor) -> tuple[int, int]:
    """With what the native calls of all ops end: the CUDA device (-1: the CPU) and torch's current stream there."""
    if tensor.is_cuda:
        device: int = tensor.device.index
        return device, torch.cuda.current_stream(device).cuda_stream
    return -1, 0


def scratch(tensor: torch.Tensor, size: int) -> torch.Tensor | None:
    """``size`` bytes beside ``tensor`` for a kernel's own use; None for 0."""
    return torch.empty(size, dtype=torch.uint8, device=tensor.device) if size else None


def address(tensor: torch.Tensor | None) -> int:
    """The address that a params struct holds for ``tensor``; 0 for none."""
    return 0 if tensor is None else tensor.data_ptr()


def raise_for_status(status: int, op: str, detail: str) -> None:
    """Turn a non-zero status of a native entry point into the exception that says which call failed."""
    if status:
        name = C.status_name(status)
        words = f": {C.cuda_error()}" if name == "CUDA error" else ""
        raise RuntimeError(f"torchp2p native {op} failed with status {name} on {detail}{words}")
