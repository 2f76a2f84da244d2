"""Compiles kernels ahead of time for GPUs that need not be there, and reads what ptxas made of them.

A kernel file lists its launches as ``examples() -> Iterable[Example]``: calls of its own host functions on tensors
without memory. So what is compiled here is what would be launched, argument by argument. Not in a process with
``TRITON_INTERPRET=1``, where kernels are Python functions.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend
from triton.runtime.jit import create_function_from_signature

from torchp2p.kernels._launch import Example, Launch, recorded

ARCHITECTURES = (80, 90)
"""The compute capabilities that the package is tuned for: A100 and H100."""

SHARED_MEMORY = {80: 163 * 1024, 90: 227 * 1024}
"""The most that one block may have, in bytes."""


class Resources(NamedTuple):
    """What one compiled kernel takes: registers a thread, bytes of shared memory a block, bytes spilled a thread."""

    registers: int
    shared: int
    spilled: int


class Compilation(NamedTuple):
    """A launch as the compiler sees it: two launches with equal keys share one compilation."""

    source: ASTSource
    target: GPUTarget
    options: dict[str, Any]
    key: str


def ops() -> list[str]:
    """The kernel files that list examples, by the names of their ops."""
    package = importlib.import_module("torchp2p.kernels")
    names = [info.name for info in pkgutil.iter_modules(package.__path__) if not info.name.startswith("_")]
    return sorted(name for name in names if hasattr(_module(name), "examples"))


def examples_of(op: str) -> list[Example]:
    """The calls that stand for all launches of ``op``."""
    return list(_module(op).examples())


def launches_of(example: Example) -> list[Launch]:
    """What a call launches; nothing runs."""
    launches: list[Launch]
    with recorded() as launches:
        example.call()
    return launches


def compilation_of(launch: Launch, architecture: int) -> Compilation:
    """What Triton would compile for a launch on a GPU of compute capability ``architecture``, 90 say."""
    kernel, target = launch.kernel, GPUTarget("cuda", architecture, 32)
    backend = make_backend(target)
    bind = create_function_from_signature(kernel.signature, kernel.params, backend)
    bound, specialization, options = bind(*launch.arguments, **launch.options)
    parsed, signature, constexprs, attributes = kernel._pack_args(
        backend, launch.options, bound, specialization, options
    )
    source = ASTSource(kernel, signature, constexprs, attributes)
    return Compilation(source, target, parsed.__dict__, f"{kernel.__name__} {specialization} {options}")


def compiled_resources(compilation: Compilation) -> Resources:
    """Compile, and ask the toolkit that comes with Triton what the machine code takes."""
    compiled = triton.compile(compilation.source, target=compilation.target, options=compilation.options)
    usage = _resource_usage(compiled.asm["cubin"])
    return Resources(usage["REG"], compiled.metadata.shared, usage["STACK"] + usage["LOCAL"])


def _resource_usage(cubin: bytes) -> dict[str, int]:
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run([tool, "-res-usage", file.name], check=True, capture_output=True, text=True).stdout
    return {name: int(value) for name, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", text)}


def _module(op: str) -> Any:
    return importlib.import_module(f"torchp2p.kernels.{op}")


def each_compilation(op: str, architectures: tuple[int, ...] = ARCHITECTURES) -> Iterator[tuple[Example, Compilation]]:
    """Every compilation that the examples of ``op`` ask for, once, with the first example that does."""
    seen: set[tuple[int, str]] = set()
    for example in examples_of(op):
        for launch in launches_of(example):
            for architecture in architectures:
                compilation = compilation_of(launch, architecture)
                if (architecture, compilation.key) not in seen:
                    seen.add((architecture, compilation.key))
                    yield example, compilation
