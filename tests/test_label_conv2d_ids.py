"""``label_conv2d`` where an id is no label: refused with its place, or a column of zeros for who asks."""

from __future__ import annotations

import pytest
import torch
from label_conv2d_case import Case, dense_convolution, ours, random_inputs
from op_testing import recorded_calls

from torchp2p.ops import _label_range, label_conv2d

OP = "label_conv2d"
ON_THE_GRID = True
LARGE = Case((4, 4), (2, 2), (2, 2), "zeros", classes=35, dense=4, out=64, ignore=True)


@pytest.mark.interpreted(one_in=0)
@pytest.mark.parametrize("case", [Case(ignore=True), LARGE], ids=str)
def test_ignored_ids_are_columns_of_zeros(case, backend, device):
    inputs = random_inputs(case, torch.float64, device)
    assert ((inputs.labels < 0) | (inputs.labels >= case.classes)).any()
    expected = dense_convolution(case, inputs.labels, inputs.weight, inputs.bias, inputs.dense)
    torch.testing.assert_close(ours(case, inputs, backend)["y"], expected)


def test_where_every_id_is_ignored_the_bias_is_left(backend, device):
    labels = torch.full((1, 1, 5, 6), 255, dtype=torch.uint8, device=device)
    weight, bias = torch.randn(4, 3, 3, 3, device=device, requires_grad=True), torch.randn(4, device=device)
    y = label_conv2d(labels, weight, bias, ignore_out_of_range=True, backend=backend)
    assert torch.equal(y, bias.view(1, 4, 1, 1).expand_as(y))
    assert not torch.autograd.grad(y.sum(), weight)[0].any()


@pytest.mark.parametrize(
    ("dtype", "id_"),
    [(torch.uint8, 255), (torch.uint8, 5), (torch.int8, -1), (torch.int32, -5), (torch.int64, 2**40), (torch.int64, 5)],
)
def test_the_first_id_out_of_range_is_named_with_its_place(dtype, id_, backend, device):
    labels = torch.zeros(2, 1, 4, 6, dtype=dtype, device=device)
    labels[1, 0, 2, 3] = labels[1, 0, 2, 5] = labels[1, 0, 3, 0] = id_
    message = rf"labels must be ids in 0\.\.4.*got {id_} at \(n, y, x\) = \(1, 2, 3\)"
    with pytest.raises(ValueError, match=message):
        label_conv2d(labels, torch.randn(3, 5, 3, 3, device=device), backend=backend)


def test_in_a_graph_that_is_captured_ids_are_checked_without_waiting_for_the_device(monkeypatch, device):
    monkeypatch.setattr(_label_range, "captured", lambda x: True)
    labels, weight = torch.zeros(1, 1, 4, 4, dtype=torch.uint8, device=device), torch.randn(3, 5, 3, 3, device=device)
    calls = recorded_calls(lambda: label_conv2d(labels, weight, backend="reference"))
    assert "aten::_assert_async" in calls
    assert "aten::nonzero" not in calls
    if device.type == "cpu":  # where the assertion fails at once; on a GPU it would end the process's use of it
        with pytest.raises(RuntimeError, match=r"labels must be ids in 0\.\.4"):
            label_conv2d(labels + 5, weight, backend="reference")
