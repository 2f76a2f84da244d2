"""How Triton kernels start: where, or not at all but in a list."""

from __future__ import annotations

import contextlib

import pytest
import torch

_launch = pytest.importorskip("torchp2p.kernels._launch", reason="triton is not installed")


class Kernel:
    """What Triton gives for a kernel, as far as a launch uses it: it notes where and with what it starts."""

    def __init__(self):
        self.started = []
        self.where = None

    def __getitem__(self, grid):
        return lambda *arguments, **options: self.started.append((self.where, grid, len(arguments), options))


def test_a_kernel_starts_on_the_device_of_its_first_tensor_and_leaves_the_current_one(monkeypatch):
    kernel, x = Kernel(), torch.empty(3, device="meta")

    class Device:
        @staticmethod
        @contextlib.contextmanager
        def device_of(tensor):
            kernel.where = tensor.device
            yield
            kernel.where = None

    monkeypatch.setattr(torch, "get_device_module", lambda device: Device)
    _launch.launch(kernel, (7,), None, 5, x, BLOCK=4, num_warps=1)
    assert kernel.started == [(x.device, (7,), 3, {"BLOCK": 4, "num_warps": 1})]
    assert kernel.where is None


def test_launches_that_are_recorded_do_not_run():
    kernel, x = Kernel(), torch.empty(3)
    with _launch.recorded() as launches:
        _launch.launch(kernel, (2, 3), x, 1.5, BLOCK=8)
    assert launches == [(kernel, (2, 3), (x, 1.5), {"BLOCK": 8})]
    assert kernel.started == []
    _launch.launch(kernel, (2, 3), x)
    assert len(kernel.started) == len(launches) == 1
