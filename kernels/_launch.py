"""The one way in which a kernel starts: on the device of its tensors, on the stream that torch uses there.

Rules for every kernel of this package, which keep it to few compilations and make it safe in CUDA graphs:

- Sizes and strides are run-time arguments, annotated ``tl.int32`` or ``tl.int64`` and named in
  ``do_not_specialize``, so no value of theirs compiles anything anew. What is worth a compilation (activation, pad
  mode, 32 or 64-bit offsets, whether rows are aligned) is a ``tl.constexpr`` with few values.
- Run-time floats are annotated ``tl.float64``: Triton would pass them as float32.
- A host function reads no tensor, waits for nothing and allocates with torch.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchp2p.kernels import _interpreter

if os.environ.get("TRITON_INTERPRET") == "1":
    _interpreter.repair()


class Launch(NamedTuple):
    """A kernel with what it was started on."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: tuple[Any, ...]
    options: dict[str, Any]


class Example(NamedTuple):
    """A call of a host function that stands for the launches of an op, for ``aot.py`` and its report.

    ``call`` takes no argument and works on tensors of device ``meta``, which have any size and no memory.
    ``moved`` is what its kernels read and write in bytes, ``least`` what any implementation has to.
    """

    label: str
    call: Callable[[], object]
    moved: int
    least: int


_recorded: list[Launch] | None = None


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:
    """``kernel[grid](*arguments, **options)``; ``options`` are its constexprs, ``num_warps`` and the like."""
    if _recorded is not None:
        _recorded.append(Launch(kernel, grid, arguments, options))
        return
    with _on_device_of(next(argument for argument in arguments if isinstance(argument, Tensor))):
        kernel[grid](*arguments, **options)


@contextlib.contextmanager
def recorded() -> Iterator[list[Launch]]:
    """Within this context launches are listed and nothing runs: what they write is left as it is."""
    global _recorded
    before, _recorded = _recorded, []
    try:
        yield _recorded
    finally:
        _recorded = before


def _on_device_of(x: Tensor) -> AbstractContextManager[Any]:
    """With several GPUs, a kernel runs on the current one, which need not be that of its tensors."""
    if x.device.type == "cpu":  # the interpreter
        return nullcontext()
    guard: AbstractContextManager[Any] = torch.get_device_module(x.device).device_of(x)
    return guard
