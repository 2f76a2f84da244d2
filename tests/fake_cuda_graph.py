"""A CUDA graph on the CPU: what is captured is recorded op by op, has no effect, and is computed by every replay.

As on a device a replay reads and writes the tensors of the capture and knows no Python: a number that the host chose
while capturing is the same in every replay, and an op that would wait for the device ends the capture.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from torchp2p.models import inputs
from torchp2p.train import capturable

WAITING = ("_local_scalar_dense", "nonzero", "_unique2", "is_nonzero")


class FakeGraph:
    """``torch.cuda.CUDAGraph``."""

    def __init__(self) -> None:
        self.ops: list[tuple[Any, tuple[Any, ...], dict[str, Any], list[Tensor]]] = []
        self.replays = 0

    def replay(self) -> None:
        self.replays += 1
        with torch.no_grad():
            for op, args, kwargs, recorded in self.ops:
                for old, new in zip(recorded, tensors_in(op(*args, **kwargs)), strict=True):
                    if old.data_ptr() != new.data_ptr():  # else it is a view, or was written in place
                        old.copy_(new)


class FakeStream:
    """``torch.cuda.Stream``: everything is done in the order in which it is asked for."""

    def wait_stream(self, other: FakeStream) -> None:
        assert isinstance(other, FakeStream)


class _Recorder(TorchDispatchMode):
    def __init__(self, graph: FakeGraph) -> None:
        super().__init__()
        self.graph = graph
        self.before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        if op.__name__.split(".")[0] in WAITING:
            raise RuntimeError(f"{op} waits for the device, which nothing can in a capture")
        kwargs = kwargs or {}
        for tensor in tensors_in((args, kwargs)):
            storage = tensor.untyped_storage()
            self.before.setdefault(storage.data_ptr(), (storage, storage.clone()))
        result = op(*args, **kwargs)
        kept_args, kept_kwargs = tree_map_only(Tensor, Tensor.detach, (args, kwargs))
        self.graph.ops.append((op, kept_args, kept_kwargs, [tensor.detach() for tensor in tensors_in(result)]))
        for tensor in tensors_in(result):  # made here: there is nothing to go back to
            storage = tensor.untyped_storage()
            self.before.setdefault(storage.data_ptr(), (storage, storage))
        return result


class FakeCuda:
    """What was asked of CUDA.

    Attributes:
        graphs: that were captured, in order.
        pools: the memory that each was captured to.
        capturing: whether one is being captured.
    """

    def __init__(self) -> None:
        self.graphs: list[FakeGraph] = []
        self.pools: list[object] = []
        self.capturing = False
        self.current = FakeStream()

    @contextlib.contextmanager
    def graph(self, graph: FakeGraph, pool: object, stream: FakeStream, capture_error_mode: str) -> Iterator[None]:
        assert capture_error_mode == "thread_local"
        assert stream is self.current, "torch warms up and captures on one stream"
        generator, recorder = torch.get_rng_state(), _Recorder(graph)
        self.capturing = True
        try:
            with recorder:
                yield
            self.graphs.append(graph)
            self.pools.append(pool)
        finally:
            self.capturing = False
            torch.set_rng_state(generator)
            for storage, before in recorder.before.values():
                if storage is not before:
                    storage.copy_(before)

    @contextlib.contextmanager
    def stream(self, stream: FakeStream) -> Iterator[None]:
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before


def tensors_in(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def install(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    """From now on, for the time of a test, the CPU has graphs."""
    fake = FakeCuda()
    monkeypatch.setattr(torch.cuda, "CUDAGraph", FakeGraph)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: FakeStream())
    monkeypatch.setattr(torch.cuda, "stream", fake.stream)
    monkeypatch.setattr(torch.cuda, "graph", fake.graph)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: fake.current)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", object)
    monkeypatch.setattr(capturable, "DEVICES", ("cpu",))
    monkeypatch.setattr(inputs, "captured", lambda label: fake.capturing)
    return fake
