"""``label_conv2d``'s derivatives: what they are, what they cost, and where they flow."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from label_conv2d_case import INPUTS, Case, Inputs, oracle, ours, random_inputs
from op_testing import leaf, saved_tensors

from torchp2p.ops import label_conv2d

OP = "label_conv2d"

SMALL = Case(classes=2, dense=2, out=2, size=(2, 3, 4))
DERIVED = [
    *(replace(SMALL, pad_mode=mode) for mode in ("zeros", "reflect", "replicate")),
    replace(SMALL, kernel=(2, 3), stride=(2, 1), padding=(0, 2), pad_mode="zeros", labels="noise"),
    replace(SMALL, dense=0, bias=False),
    replace(SMALL, dense=0, ignore=True),
]
derived = pytest.mark.parametrize("case", DERIVED, ids=str)


def function_of(case: Case, inputs: Inputs, backend: str | None):
    """(function, its differentiable arguments) of a case."""
    names = [name for name in INPUTS if getattr(inputs, name) is not None]

    def function(*tensors):
        there = dict(zip(names, tensors, strict=True))
        return label_conv2d(inputs.labels, **there, **case.options, backend=backend)

    return function, tuple(leaf(getattr(inputs, name)) for name in names)


@pytest.mark.interpreted(one_in=0)
@derived
def test_the_gradient_is_the_derivative(case, backend, device):
    function, tensors = function_of(case, random_inputs(case, torch.float64, device), backend)
    assert torch.autograd.gradcheck(function, tensors)


@pytest.mark.interpreted(one_in=0)
@derived
def test_the_double_gradient_is_the_derivative_of_the_gradient(case, backend, device):
    function, tensors = function_of(case, random_inputs(case, torch.float64, device), backend)
    assert torch.autograd.gradgradcheck(function, tensors, fast_mode=True)


@pytest.mark.interpreted(one_in=4)
@pytest.mark.parametrize("wanted", INPUTS)
def test_only_the_gradients_that_are_asked_for_are_given(wanted, backend, device):
    case = Case(dense=2)
    inputs = random_inputs(case, torch.float32, device)
    all_grads = ours(case, inputs, backend)
    getattr(inputs, wanted).requires_grad_()
    function, _ = function_of(case, inputs, backend)
    function(inputs.weight, inputs.bias, inputs.dense).backward(inputs.grad_y)
    for name in INPUTS:
        assert (getattr(inputs, name).grad is None) == (name != wanted)
    torch.testing.assert_close(getattr(inputs, wanted).grad, all_grads[f"grad_{wanted}"], rtol=1e-5, atol=1e-5)


@pytest.mark.interpreted(one_in=0)
def test_labels_take_no_gradient_and_a_graph_may_be_walked_twice(backend, device):
    inputs = random_inputs(Case(), torch.float32, device)
    function, tensors = function_of(Case(), inputs, backend)
    y = function(*tensors)
    first = torch.autograd.grad(y, tensors, inputs.grad_y, retain_graph=True)
    for again, grad in zip(torch.autograd.grad(y, tensors, inputs.grad_y), first, strict=True):
        assert torch.equal(again, grad)
    assert inputs.labels.grad is None


def test_the_gradient_of_a_concatenation_flows_through(backend, device):
    case = Case(out=3, size=(2, 8, 8))
    inputs, skip = random_inputs(case, torch.float32, device), torch.randn(2, 5, 8, 8, device=device)
    grad = torch.randn(2, 8, 8, 8, device=device)
    function, tensors = function_of(case, inputs, backend)
    found = torch.autograd.grad(torch.cat([skip, function(*tensors)], 1), tensors, grad)
    expected = oracle(case, replace(inputs, grad_y=grad[:, 5:]))
    for name, value in zip(INPUTS, found, strict=True):
        torch.testing.assert_close(value.double(), expected[f"grad_{name}"], rtol=1e-5, atol=1e-4)


def test_a_network_before_the_dense_channels_is_trained_through(backend, device):
    case = Case(dense=3)
    inputs = random_inputs(case, torch.float32, device)
    encoder = torch.nn.Conv2d(3, 3, 1, device=device)
    y = label_conv2d(inputs.labels, inputs.weight, dense=encoder(inputs.dense), padding=1, backend=backend)
    y.square().mean().backward()
    assert encoder.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("changed", ["labels", "weight", "dense"])
def test_changing_a_saved_tensor_before_the_backward_raises(changed, backend, device):
    inputs = random_inputs(Case(), torch.float32, device)
    function, tensors = function_of(Case(), inputs, backend)
    y = function(*tensors)
    with torch.no_grad():
        (inputs.labels if changed == "labels" else tensors[INPUTS.index(changed)]).zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_the_inputs_are_saved_and_nothing_else(backend, device):
    case = Case(classes=35, out=64)
    inputs = random_inputs(case, torch.float32, device)
    function, tensors = function_of(case, inputs, backend)
    kept = {tensor.data_ptr() for tensor in saved_tensors(lambda: function(*tensors))}
    assert kept == {tensor.data_ptr() for tensor in (inputs.labels, *tensors)}


@pytest.mark.interpreted(one_in=2)
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_nothing_is_saved_where_no_gradient_is_wanted(context, backend, device):
    function, tensors = function_of(Case(), random_inputs(Case(), torch.float32, device), backend)
    expected = function(*tensors).detach()
    with context():
        y = function(*tensors)
        assert saved_tensors(lambda: function(*tensors)) == []
    assert not y.requires_grad
    assert torch.equal(y, expected)
