"""The machine a measurement is made on: its name, the commit under test, how its allocator behaves."""

from __future__ import annotations

import platform
import re
import subprocess
import time
from pathlib import Path

import torch

from torchp2p.memory import memory_tuning_unavailable, tune_cpu_memory

ALLOCATORS = ("default", "keep")


def cpu_name(threads: int) -> str:
    """The processor, and with how many threads it is measured."""
    return f"{processor_name()}, {threads} thread{'' if threads == 1 else 's'}"


def gpu_name() -> str:
    """The current CUDA device.

    Raises:
        RuntimeError: torch sees none.
    """
    if not torch.cuda.is_available():
        raise RuntimeError("device cuda was asked for, but this torch sees no CUDA device")
    return torch.cuda.get_device_name()


def clock_of_gpu() -> float:
    """Seconds, once the current CUDA device has done what it was given."""
    torch.cuda.synchronize()
    return time.perf_counter()


def processor_name() -> str:
    """The processor's model name."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE)
        if found:
            return found[1].strip()
    return platform.processor() or platform.machine()


def slug(name: str) -> str:
    """``name`` as a file name: lower case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def commit() -> str:
    """The short hash of the checked-out commit, with ``-dirty`` where tracked files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    root = Path(__file__).resolve().parent.parent
    try:
        return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def use_allocator(name: str) -> None:
    """Choose what glibc does with large freed buffers, for everything in this process.

    ``default`` leaves it alone: they go back to the system, and every new one is page-faulted in again.
    ``keep`` holds on to them, which is what a long training run wants.

    Raises:
        ValueError: an unknown name.
        OSError: ``keep`` where it cannot be had.
    """
    if name not in ALLOCATORS:
        raise ValueError(f"allocator must be one of {', '.join(ALLOCATORS)}, got {name!r}")
    if name == "default":
        return
    if not tune_cpu_memory():
        raise OSError(f"allocator 'keep' cannot be had: {memory_tuning_unavailable()}")
