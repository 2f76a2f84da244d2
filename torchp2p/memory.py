"""Freed CPU memory stays with the process, so that large tensors are not page-faulted in anew every time.

glibc gives every large freed buffer back to the system and asks for a fresh one at the next allocation; each
of its pages then costs a fault and a cleared page. A training step allocates gigabytes of such buffers, the
same ones again and again. What this saves is measured by ``benchmarks/bench_allocator.py``.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any

# mallopt parameters of glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_KEEP = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1))
"""Buffers of no size are mapped on their own, and the heap never shrinks (-1 becomes the largest size)."""

_OFF = ("0", "false", "off")


def tune_cpu_memory() -> bool:
    """Tell glibc to keep large freed buffers for the next allocation, for everything in this process.

    Results do not change, only the time that allocating takes. The process holds on to the most memory it has
    ever used, until it ends. The trainer calls this by itself when it trains on the CPU; call it once, at any
    time, in a trainer of your own. ``TORCHP2P_TUNE_MEMORY=0`` in the environment turns it into nothing, and so
    does a system without glibc.

    Returns:
        Whether freed memory is now kept; ``memory_tuning_unavailable`` says why not.
    """
    if memory_tuning_unavailable():
        return False
    mallopt = _mallopt()
    return all(mallopt(parameter, value) for parameter, value in _KEEP)


def memory_tuning_unavailable() -> str:
    """Why ``tune_cpu_memory`` does nothing here; empty if it works."""
    if os.environ.get("TORCHP2P_TUNE_MEMORY", "").lower() in _OFF:
        return "TORCHP2P_TUNE_MEMORY turns it off"
    if _mallopt() is None:
        return "the C library has no mallopt"
    return ""


def _mallopt() -> Any:
    return getattr(ctypes.CDLL(None), "mallopt", None)
