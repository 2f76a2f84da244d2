"""Runs the CUDA kernels of ``torchp2p._C`` on CPU tensors: every buffer between guard zones, every call twice.

The second time blocks, warps and lanes run in another order, and what nobody has written holds other bytes; results
that differ show a missing barrier, a read of memory that was never written, or a sum in no fixed order.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.machinery
import importlib.util
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from torchp2p.ops import _native

IN_ORDER, SHUFFLED = 0, 1


class GridFault(AssertionError):
    """A kernel did what it must not, and no launch error says so already."""


class Grid:
    """The grid in a compiled library: memory between guard zones, the order of the threads, the device."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        self._lend = self._library.cuda_on_cpu_lend
        self._lend.argtypes, self._lend.restype = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t), ctypes.c_void_p
        self._take_back = self._library.cuda_on_cpu_take_back
        self._take_back.argtypes = (ctypes.c_void_p, ctypes.c_void_p)
        self._same = self._library.cuda_on_cpu_same
        self._same.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)

    def set_device(self, multiprocessors: int = 4, shared_per_block: int = 99 * 1024) -> None:
        """Give the device limits of its own, so that small images meet them."""
        self._library.cuda_on_cpu_set_device(multiprocessors, shared_per_block)

    def run(self, call: Callable[..., Any], spans: dict[int, int], scratch: set[int]) -> Any:
        """``call(where)`` in both orders, ``where(address)`` being a guarded copy of the span at an address.

        ``spans`` gives the bytes at each address, ``scratch`` those whose contents do not matter before or after.

        Raises:
            GridFault: something was written beside a span, or the two orders gave different results.
        """
        copies, others = (self._copies(spans, scratch, order) for order in (IN_ORDER, SHUFFLED))
        differing: list[int] = []
        self._library.cuda_on_cpu_set_shuffled(IN_ORDER)
        result = call(copies.get)
        if not _status(result):
            self._library.cuda_on_cpu_set_shuffled(SHUFFLED)
            if call(others.get) != result:
                differing.append(0)
            same = [self._same(copies[address], others[address], size) for address, size in spans.items()]
            differing += [
                size for (address, size), equal in zip(spans.items(), same, strict=True)
                if not equal and address not in scratch
            ]  # fmt: skip
        intact = [self._take_back(copy, address) for address, copy in copies.items()]
        intact += [self._take_back(copy, None) for copy in others.values()]
        if not all(intact):
            raise GridFault("something was written beside a buffer")
        if differing:
            raise GridFault(
                f"a result of {differing[0]} bytes differs with the order of the threads: a barrier is missing, "
                "memory is read that was never written, or a sum has no fixed order"
            )
        return result

    def _copies(self, spans: dict[int, int], scratch: set[int], order: int) -> dict[int, int]:
        self._library.cuda_on_cpu_set_shuffled(order)  # which poisons scratch memory differently
        return {
            address: self._lend(None if address in scratch else address, address, size)
            for address, size in spans.items()
        }


def _status(result: Any) -> Any:
    """The status that a call returned, alone or with more."""
    return result[0] if isinstance(result, tuple) else result


class Native:
    """Stands in for ``torchp2p._C``; ``_native.place`` sends every call to the one device of the grid."""

    def __init__(self, module: ModuleType, grid: Grid) -> None:
        self.module, self.grid = module, grid
        self.noted: list[tuple[weakref.ref[torch.Tensor], int, int]] = []
        self.scratch: set[int] = set()

    def note(self, tensor: torch.Tensor, address: int) -> None:
        """The kernels may touch the elements of this tensor."""
        last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
        bytes_there = (last + 1) * tensor.element_size() if tensor.numel() else 0
        if bytes_there:
            self.noted.append((weakref.ref(tensor), address, bytes_there))

    def take_spans(self) -> dict[int, int]:
        """The bytes at each address noted since the last call, of the tensors that are still there."""
        spans: dict[int, int] = {}
        for tensor, address, size in self.noted:
            if tensor() is not None:
                spans[address] = max(size, spans.get(address, 0))
        self.noted.clear()
        return spans

    def __getattr__(self, name: str) -> Any:
        function = getattr(self.module, name)
        if name.startswith(("cuda_", "status_", "cpu_")) or name.endswith("_scratch"):
            return function

        def run(*args: Any) -> Any:
            spans, scratch = self.take_spans(), set(self.scratch)
            self.scratch.clear()
            used = {address: size for address, size in spans.items() if _holds(args, address)}
            return self.grid.run(lambda where: function(*_translated(args, where)), used, scratch)

        return run


def _holds(value: Any, address: int) -> bool:
    if isinstance(value, (tuple, list)):
        return any(_holds(item, address) for item in value)
    return type(value) is int and value == address


def _translated(value: Any, where: Callable[[int], int | None]) -> Any:
    if type(value) in (tuple, list):
        return type(value)(_translated(item, where) for item in value)
    return (where(value) or value) if type(value) is int else value


def load(library: Path) -> Native:
    """The module that ``build.build_module`` built."""
    loader = importlib.machinery.ExtensionFileLoader("_C", str(library))
    spec = importlib.util.spec_from_loader("_C", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return Native(module, Grid(library))


@contextlib.contextmanager
def installed(native: Native) -> Iterator[None]:
    """Within it the native backend runs the CUDA kernels, on CPU tensors."""
    plain_address, plain_scratch = torch.Tensor.data_ptr, _native.scratch

    def data_ptr(tensor: torch.Tensor) -> int:
        address: int = plain_address(tensor)
        native.note(tensor, address)
        return address

    def scratch(tensor: torch.Tensor, size: int) -> torch.Tensor | None:
        memory = plain_scratch(tensor, size)
        if memory is not None:
            native.scratch.add(plain_address(memory))
        return memory

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_native, "C", native)
        patch.setattr(_native, "place", lambda tensor: (0, 0))
        patch.setattr(_native, "scratch", scratch)
        patch.setattr(torch.Tensor, "data_ptr", data_ptr)
        yield
