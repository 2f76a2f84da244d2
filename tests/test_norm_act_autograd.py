"""Derivatives of ``norm_act`` of first, second and third order, and what they keep in memory."""

from __future__ import annotations

import pytest
import torch
from norm_act_case import ACTIVATIONS, INPUTS, NORMS, Case, eager_layers, ours, random_inputs
from op_testing import HALF_DTYPES, doubled, leaf, saved_tensors

from torchp2p.ops import norm_act
from torchp2p.reference import norm_act as reference

OP = "norm_act"
pytestmark = pytest.mark.interpreted(one_in=0)  # hundreds of calls in a test
SMALL = (2, 2, 3, 4)

DERIVED_CASES = [
    *(Case(norm, act, shape=SMALL) for norm in NORMS for act in ACTIVATIONS),
    *(Case("instance", act, 1, "reflect", affine=True, residual=True, shape=SMALL) for act in ACTIVATIONS),
    *(Case("batch", act, 2, "replicate", affine=True, residual=True, given=True, shape=SMALL) for act in ACTIVATIONS),
    Case("batch", "tanh", 1, affine=True, residual=True, shape=(4, 2, 2, 3), stat_groups=2),
    Case("instance", "tanh", 1, "zeros", affine=True, given=True, shape=SMALL),
    Case("none", "tanh", 1, "zeros", affine=True, residual=True, shape=SMALL),
]
derived_cases = pytest.mark.parametrize("case", DERIVED_CASES, ids=str)


def function_of(case: Case, inputs, backend: str | None):
    """(function, its differentiable arguments) of a case; float64 values keep clear of the activations' kink."""
    names = [name for name in INPUTS if getattr(inputs, name) is not None]

    def function(*tensors):
        given = dict(zip(names, tensors, strict=True))
        return norm_act(
            given.pop("x"), norm=case.norm, running_mean=inputs.mean, running_var=inputs.var,
            training=not case.given, act=case.act, slope=case.slope, pad=case.pad, pad_mode=case.pad_mode,
            stat_groups=case.stat_groups, backend=backend, **given,
        )  # fmt: skip

    return function, tuple(leaf(getattr(inputs, name)) for name in names)


@derived_cases
def test_the_gradient_is_the_derivative(case, backend, device):
    function, tensors = function_of(case, random_inputs(case, torch.float64, device), backend)
    assert torch.autograd.gradcheck(function, tensors)


@derived_cases
def test_the_double_gradient_is_the_derivative_of_the_gradient(case, backend, device):
    function, tensors = function_of(case, random_inputs(case, torch.float64, device), backend)
    assert torch.autograd.gradgradcheck(function, tensors)


@pytest.mark.parametrize("norm", NORMS)
def test_the_third_derivative_is_right(norm, backend, device):
    case = Case(norm, "tanh", 1, affine=True, residual=True, shape=SMALL)
    inputs = random_inputs(case, torch.float64, device)
    function, tensors = function_of(case, inputs, backend)
    directions = [torch.randn_like(t) for t in tensors]

    def third_derivative(y):
        value = (y * inputs.grad_y).sum()
        for _ in range(3):
            grads = torch.autograd.grad(value, tensors, create_graph=True)
            value = sum((g * d).sum() for g, d in zip(grads, directions, strict=True))
        return torch.stack([value, *(g.square().sum() for g in torch.autograd.grad(value, tensors))])

    expected = third_derivative(reference.norm_act(*tensors, None, None, *case.options)[0])
    torch.testing.assert_close(third_derivative(function(*tensors)), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, *HALF_DTYPES], ids=str)
def test_a_gradient_penalty_is_that_of_torchs_own_layers(dtype, backend, device):
    case = Case("instance", "tanh", affine=True, shape=(2, 3, 6, 7))
    inputs = random_inputs(case, dtype, device)

    def penalty(forward, x):
        x = leaf(x)
        (slope,) = torch.autograd.grad(forward(x), x, inputs.grad_y.to(x.dtype), create_graph=True)
        return torch.autograd.grad(slope.double().square().sum(), x)[0]

    x, weight, bias = doubled((inputs.x, inputs.weight, inputs.bias))
    found = penalty(lambda x: norm_act(x, inputs.weight, inputs.bias, act="tanh", backend=backend), inputs.x)
    expected = penalty(lambda x: eager_layers(case, x, weight, bias, None, None, None), x)
    distance = (found.double() - expected).norm() / expected.norm()
    assert distance < 4 * torch.finfo(dtype).eps


@pytest.mark.parametrize("wanted", INPUTS)
def test_only_the_gradients_that_are_asked_for_are_given(wanted, backend, device):
    case = Case("batch", pad=1, affine=True, residual=True)
    inputs = random_inputs(case, torch.float32, device)
    all_grads = ours(case, inputs, backend)
    tensors = {name: getattr(inputs, name) for name in INPUTS}
    tensors[wanted].requires_grad_()
    y = norm_act(tensors.pop("x"), norm="batch", pad=1, backend=backend, **tensors)
    y.backward(inputs.grad_y)
    for name in INPUTS:
        grad = getattr(inputs, name).grad
        assert (grad is None) == (name != wanted)
    assert torch.equal(getattr(inputs, wanted).grad, all_grads[f"grad_{wanted}"])


def test_a_graph_may_be_walked_twice(backend, device):
    x = torch.randn(2, 3, 5, 6, device=device, requires_grad=True)
    y, grad = norm_act(x, pad=1, backend=backend), torch.randn(2, 3, 7, 8, device=device)
    first = torch.autograd.grad(y, x, grad, retain_graph=True)[0]
    assert torch.equal(torch.autograd.grad(y, x, grad)[0], first)


# --- what is kept for the backward -----------------------------------------------------------------------


@pytest.mark.parametrize("act", ACTIVATIONS)
@pytest.mark.parametrize("pad", [0, 1])
def test_the_input_and_the_statistics_are_saved_and_nothing_else(pad, act, backend, device):
    x = torch.randn(2, 3, 32, 40, device=device, dtype=torch.bfloat16, requires_grad=True)
    kept = saved_tensors(lambda: norm_act(x, act=act, pad=pad, backend=backend))
    assert sorted(t.numel() for t in kept) == [6, 6, x.numel()]
    assert any(t.data_ptr() == x.data_ptr() for t in kept)
    assert sum(t.numel() * t.element_size() for t in kept) == x.numel() * 2 + 2 * 6 * 4


@pytest.mark.parametrize(("act", "kept_size"), [("none", 0), ("relu", 1)])
def test_the_residual_is_saved_only_where_the_activation_depends_on_it(act, kept_size, backend, device):
    x, residual = (torch.randn(2, 3, 8, 8, device=device, requires_grad=True) for _ in range(2))
    kept = saved_tensors(lambda: norm_act(x, residual=residual, act=act, backend=backend))
    assert sum(t.data_ptr() == residual.data_ptr() for t in kept) == kept_size


@pytest.mark.parametrize("changed", ["x", "weight", "residual"])
def test_changing_a_saved_tensor_before_the_backward_raises(changed, backend, device):
    tensors = {
        "x": torch.randn(2, 3, 4, 5, device=device),
        "weight": torch.randn(3, device=device),
        "residual": torch.randn(2, 3, 4, 5, device=device),
    }
    y = norm_act(tensors["x"].requires_grad_(), tensors["weight"], residual=tensors["residual"], backend=backend)
    with torch.no_grad():
        tensors[changed].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_nothing_is_saved_where_no_gradient_is_wanted(context, backend, device):
    x = torch.randn(2, 3, 4, 5, device=device, requires_grad=True)
    expected = norm_act(x, backend=backend).detach()
    with context():
        y = norm_act(x, backend=backend)
        assert saved_tensors(lambda: norm_act(x, backend=backend)) == []
    assert not y.requires_grad
    assert torch.equal(y, expected)
