"""The compiled module, if it is there, and the reason if it is not. Importing it never compiles anything."""

from __future__ import annotations

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
    if device_type != "cpu":
        return f"torchp2p._C has no kernels for {device_type} tensors"
    return ""


def address(tensor: torch.Tensor | None) -> int:
    """The address that a params struct holds for ``tensor``; 0 for none."""
    return 0 if tensor is None else tensor.data_ptr()


def raise_for_status(status: int, op: str, detail: str) -> None:
    """Turn a non-zero status of a native entry point into the exception that says which call failed."""
    if status:
        raise RuntimeError(f"torchp2p native {op} failed with status {C.status_name(status)} on {detail}")
