"""What ``label_conv2d`` does on CUDA and nowhere else: it waits for the device to learn of an id out of range."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from cuda_on_cpu import build, harness
from op_testing import recorded_calls

from torchp2p.ops import _label_conv2d_native, label_conv2d

pytestmark = pytest.mark.skipif(bool(build.unavailable()), reason=build.unavailable())

LABELS = torch.tensor([[0, 1, 9], [2, -1, 1]]).view(1, 1, 2, 3)  # of three classes
WEIGHT = torch.arange(1.0, 7.0).view(2, 3, 1, 1)


@pytest.fixture
def native(cuda_on_cpu: harness.Native) -> Iterator[harness.Native]:
    with harness.installed(cuda_on_cpu):
        yield cuda_on_cpu


def test_the_first_id_out_of_range_raises(native):
    with pytest.raises(ValueError, match=r"got 9 at \(n, y, x\) = \(0, 0, 2\)"):
        label_conv2d(LABELS, WEIGHT, backend="native")


def test_while_a_graph_is_captured_nobody_waits_and_the_graph_gets_an_assertion(native, monkeypatch):
    monkeypatch.setattr(_label_conv2d_native, "captured", lambda x: True)
    right = LABELS.clamp(0, 2)
    calls = recorded_calls(lambda: label_conv2d(right, WEIGHT, backend="native"))
    assert "aten::_assert_async" in calls
    with pytest.raises(RuntimeError, match=r"labels must be ids in 0\.\.2"):
        label_conv2d(LABELS, WEIGHT, backend="native")


def test_who_ignores_ids_out_of_range_asks_for_no_place_to_note_them(native, monkeypatch):
    noted = []
    monkeypatch.setattr(_label_conv2d_native, "captured", noted.append)
    label_conv2d(LABELS, WEIGHT, ignore_out_of_range=True, backend="native")
    assert not noted
