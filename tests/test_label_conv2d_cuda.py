"""What ``label_conv2d`` does on CUDA and nowhere else: it waits for the device to learn of an id out of range."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

import pytest
import torch
from cuda_on_cpu import build, harness

from torchp2p.ops import label_conv2d

pytestmark = pytest.mark.skipif(bool(build.unavailable()), reason=build.unavailable())
OP = importlib.import_module("torchp2p.ops.label_conv2d")  # the package has the function by this name

LABELS = torch.tensor([[0, 1, 9], [2, -1, 1]]).view(1, 1, 2, 3)  # of three classes
WEIGHT = torch.arange(1.0, 7.0).view(2, 3, 1, 1)


@pytest.fixture
def native(cuda_on_cpu: harness.Native) -> Iterator[harness.Native]:
    with harness.installed(cuda_on_cpu):
        yield cuda_on_cpu


def test_the_first_id_out_of_range_raises(native):
    with pytest.raises(ValueError, match=r"got 9 at \(n, y, x\) = \(0, 0, 2\)"):
        label_conv2d(LABELS, WEIGHT, backend="native")


def test_while_a_graph_is_captured_nobody_waits_and_an_id_out_of_range_adds_nothing(native, monkeypatch):
    monkeypatch.setattr(OP, "_is_capturing", lambda x: True)
    found = label_conv2d(LABELS, WEIGHT, backend="native")
    assert torch.equal(found, label_conv2d(LABELS, WEIGHT, ignore_out_of_range=True, backend="reference"))


def test_who_ignores_ids_out_of_range_asks_for_no_place_to_note_them(native, monkeypatch):
    noted = []
    monkeypatch.setattr(OP, "_is_capturing", noted.append)
    label_conv2d(LABELS, WEIGHT, ignore_out_of_range=True, backend="native")
    assert not noted
