"""The machine a measurement is made on: its name, the commit under test, how its allocator behaves."""

from __future__ import annotations

import contextlib
import math
import os
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
        ValueError: torch sees none.
    """
    if not torch.cuda.is_available():
        raise ValueError("device cuda was asked for, but this torch sees no CUDA device")
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


def results_folder() -> Path:
    """Where rows go: beside the benchmarks in a checkout, in the current directory where they are installed."""
    here = Path(__file__).resolve().parent / "results"
    return here if here.is_dir() else Path("benchmark_results")


def slug(name: str) -> str:
    """``name`` as a file name: lower case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def commit() -> str:
    """The short hash of the checked-out commit, with ``-dirty`` where tracked files differ, but for results."""
    root = Path(__file__).resolve().parent.parent

    def git(*arguments: str) -> str:
        return subprocess.run(("git", *arguments), cwd=root, check=True, capture_output=True, text=True).stdout.strip()

    try:
        changed = git(
            "status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results", ":!docs/plots"
        )
        return git("rev-parse", "--short", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def resident_bytes() -> int:
    """Memory of this process that is in RAM; 0 where the system does not say."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0


def available_bytes() -> float:
    """Memory that may be taken without swapping; infinite where the system does not say."""
    meminfo = Path("/proc/meminfo")
    found = re.search(r"^MemAvailable:\s*(\d+) kB", meminfo.read_text(), re.MULTILINE) if meminfo.exists() else None
    return 1024 * int(found[1]) if found else math.inf


def memory_in_use(device: torch.device) -> int:
    """Bytes of this process in RAM, or of its tensors on a CUDA device."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else resident_bytes()


def forget_peak(device: torch.device) -> None:
    """The peak memory of this process is from now on that of what follows, where the system can be told so."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


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
