"""``torchp2p doctor``: what is installed, and which backend runs each op on each device, with the reasons."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil

import torch
from rich.console import Console
from rich.table import Table

import torchp2p
from torchp2p.cli.parsing import make_parser, parse
from torchp2p.memory import memory_tuning_unavailable
from torchp2p.ops import _native
from torchp2p.ops._dispatch import BACKENDS, first_available, why_not

CONTEXTS = ("algorithm", "backend")
OPS = tuple(name for name in torchp2p.ops.__all__ if name.islower() and name not in CONTEXTS)
_OPTIONAL = {
    "triton": "triton",
    "scikit-image": "color",
    "scikit-learn": "features",
    "tensorboard": "tensorboard",
    "onnxruntime": "export",
    "imageio-ffmpeg": "video",
}

_VARIABLES = (
    "TORCHP2P_BACKEND",
    "TORCHP2P_STRICT",
    "TORCHP2P_TUNE",
    "TORCHP2P_CPU_ISA",
    "TORCHP2P_TUNE_MEMORY",
    "TRITON_INTERPRET",
)


def run(arguments: list[str]) -> int:
    """Print the report."""
    parse(make_parser("doctor", "Show what runs where, and why not."), arguments)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(_packages())
    for device_type in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        _print_backends(console, device_type)
    console.print(_environment())
    return 0


def _packages() -> Table:
    table = Table(title="torchp2p", show_header=False)
    table.add_row("torchp2p", torchp2p.__version__)
    table.add_row("python", platform.python_version())
    table.add_row("torch", f"{torch.__version__}, {torch.get_num_threads()} threads")
    table.add_row("CUDA", _cuda())
    table.add_row("compiled module", f"CPU kernels for {_native.C.cpu_isa()}" if _native.C else _native.REASON)
    table.add_row("CUDA kernels", _native.cuda_unavailable() or f"run; compiled for {_native.C.cuda_architectures()}")
    compiler = os.environ.get("CXX") or next((name for name in ("g++", "clang++") if shutil.which(name)), None)
    table.add_row("C++ compiler", compiler or "none on the PATH (needed by torch.compile only)")
    unavailable = memory_tuning_unavailable()
    table.add_row("tune_cpu_memory", f"does nothing: {unavailable}" if unavailable else "works")
    for package, extra in _OPTIONAL.items():
        try:
            table.add_row(package, importlib.metadata.version(package))
        except importlib.metadata.PackageNotFoundError:
            table.add_row(package, f"not installed (pip install torchp2p[{extra}])")
    return table


def _cuda() -> str:
    if torch.version.cuda is None:
        return "this torch is built without CUDA"
    if not torch.cuda.is_available():
        return f"torch is built for CUDA {torch.version.cuda}, but sees no device"
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return f"{torch.version.cuda}: {', '.join(names)}"


def _print_backends(console: Console, device_type: str) -> None:
    """The table, and below it each reason once."""
    table = Table(title=f"float32 tensors on {device_type}: what runs when nothing is asked for, and why not the rest")
    table.add_column("op", no_wrap=True)
    for column in ("runs", *BACKENDS):
        table.add_column(column, overflow="fold")
    numbers: dict[str, int] = {}
    for op in OPS:
        reasons = [why_not(op, name, device_type, torch.float32) for name in BACKENDS]
        cells = [f"no ({numbers.setdefault(each, len(numbers) + 1)})" if each else "can run" for each in reasons]
        table.add_row(op, first_available(op, device_type, torch.float32)[0], *cells)
    console.print(table)
    for reason, number in numbers.items():
        console.print(f"({number}) {reason}")


def _environment() -> Table:
    table = Table(title="environment", show_header=False)
    for name in _VARIABLES:
        table.add_row(name, os.environ.get(name, "not set"))
    return table
