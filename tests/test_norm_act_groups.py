"""Batch norm by groups: every group of samples is normalised as if it were a batch of its own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from norm_act_case import Case, eager, ours, random_inputs
from op_testing import DTYPES, assert_as_exact_as_eager, channels_last, contiguous, leaf
from torch import nn

from torchp2p.nn import NormAct, separate_statistics
from torchp2p.ops import norm_act

OP = "norm_act"
pytestmark = pytest.mark.interpreted(one_in=12)
GROUPED = Case("batch", affine=True, residual=True, pad=1, shape=(6, 3, 9, 11))
either_layout = pytest.mark.parametrize("layout", [contiguous, channels_last], ids=lambda f: f.__name__)


def separately(case, inputs, groups, call):
    """``call`` on every group as a batch, put together: images side by side, gradients of vectors summed."""
    parts = []
    for place in range(groups):
        part = slice(place * len(inputs.x) // groups, (place + 1) * len(inputs.x) // groups)
        residual = None if inputs.residual is None else inputs.residual[part]
        images = {"x": inputs.x[part], "residual": residual, "grad_y": inputs.grad_y[part]}
        parts.append(call(replace(case, stat_groups=1), replace(inputs, **images)))
    return {
        name: sum(part[name] for part in parts) if value.dim() == 1 else torch.cat([part[name] for part in parts])
        for name, value in parts[0].items()
    }


@either_layout
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("groups", [2, 3, 6])
def test_result_and_gradients_are_those_of_separate_batches(groups, dtype, layout, backend, device):
    case = replace(GROUPED, stat_groups=groups)
    inputs = random_inputs(case, dtype, device)
    exact = random_like(inputs, torch.float64)
    inputs = replace(inputs, x=layout(inputs.x), residual=layout(inputs.residual), grad_y=layout(inputs.grad_y))
    found, in_eager = ours(case, inputs, backend), separately(case, inputs, groups, eager)
    for name, value in separately(case, exact, groups, eager).items():
        magnitude = exact.grad_y.abs().sum().item() if value.dim() == 1 else None
        assert_as_exact_as_eager(name, found[name], in_eager[name], value, magnitude)


def random_like(inputs, dtype):
    """The same values in another dtype."""
    return replace(inputs, **{
        name: None if getattr(inputs, name) is None else getattr(inputs, name).to(dtype)
        for name in ("x", "weight", "bias", "residual", "mean", "var", "grad_y")
    })  # fmt: skip


def test_as_many_groups_as_samples_are_instance_norm(backend, device):
    x, grad = (torch.randn(4, 3, 5, 6, dtype=torch.float64, device=device) for _ in range(2))
    x.requires_grad_()
    one, other = (norm_act(x, backend=backend, **options) for options in ({"norm": "batch", "stat_groups": 4}, {}))
    torch.testing.assert_close(one, other)
    torch.testing.assert_close(*(torch.autograd.grad(y, x, grad) for y in (one, other)))


@pytest.mark.parametrize("momentum", [0.1, 1.0])
def test_running_statistics_see_the_groups_one_after_the_other(momentum, backend, device):
    x = torch.randn(6, 3, 5, 7, dtype=torch.float64, device=device) + torch.arange(6.0).view(-1, 1, 1, 1)
    running, expected = ((torch.zeros(3).double().to(device), torch.ones(3).double().to(device)) for _ in range(2))
    norm_act(
        x, norm="batch", running_mean=running[0], running_var=running[1], momentum=momentum, stat_groups=3,
        backend=backend,
    )  # fmt: skip
    for part in x.chunk(3):
        torch.nn.functional.batch_norm(part, *expected, training=True, momentum=momentum)
    torch.testing.assert_close(running, expected)


def test_given_statistics_are_the_same_for_every_group(backend, device):
    x = torch.randn(4, 3, 5, 6, device=device)
    given = {"running_mean": torch.randn(3, device=device), "running_var": torch.rand(3, device=device) + 0.5}
    options = {"norm": "batch", "training": False, "backend": backend, **given}
    assert torch.equal(norm_act(x, stat_groups=2, **options), norm_act(x, **options))


def test_no_samples_have_any_number_of_groups(backend, device):
    x = torch.empty(0, 3, 4, 5, device=device, requires_grad=True)
    y = norm_act(x, norm="batch", stat_groups=3, pad=1, backend=backend)
    assert y.shape == (0, 3, 6, 7)
    y.sum().backward()
    assert x.grad.shape == x.shape


@pytest.mark.interpreted(one_in=0)  # hundreds of calls
@pytest.mark.parametrize("act", ["tanh", "leaky_relu"])
def test_gradient_and_double_gradient_are_derivatives(act, backend, device):
    case = Case("batch", act, 1, affine=True, residual=True, shape=(4, 2, 3, 4), stat_groups=2)
    inputs = random_inputs(case, torch.float64, device)

    def function(x, weight, bias, residual):
        return norm_act(
            x, weight, bias, norm="batch", act=act, residual=residual, pad=1, stat_groups=2, backend=backend
        )

    tensors = tuple(leaf(t) for t in (inputs.x, inputs.weight, inputs.bias, inputs.residual))
    assert torch.autograd.gradcheck(function, tensors)
    assert torch.autograd.gradgradcheck(function, tensors)


X = torch.zeros(4, 3, 5, 6)
BAD = {
    "groups do not divide": ({"stat_groups": 3}, ValueError, "stat_groups must divide the 4 samples of x, got 3"),
    "no groups": ({"stat_groups": 0}, ValueError, "stat_groups must divide the 4 samples of x, got 0"),
    "a negative number": ({"stat_groups": -2}, ValueError, "stat_groups must divide the 4 samples of x, got -2"),
    "a float": ({"stat_groups": 2.0}, TypeError, "stat_groups must be an int, got float"),
    "with instance norm": ({"norm": "instance", "stat_groups": 2}, ValueError, "stat_groups belongs to norm 'batch'"),
    "without norm": ({"norm": "none", "stat_groups": 2}, ValueError, "stat_groups belongs to norm 'batch'"),
    "one value each": (
        {"x": X[:, :, :1, :1], "stat_groups": 4}, ValueError,
        r"batch statistics need more than one value per channel, got x of shape \(4, 3, 1, 1\) in 4 groups",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "error", "words"), BAD.values(), ids=BAD.keys())
def test_bad_groups_are_named_with_what_was_expected_and_what_came(arguments, error, words):
    with pytest.raises(error, match=words):
        norm_act(**{"x": X, "norm": "batch", **arguments})


# --- the module ------------------------------------------------------------------------------------------------------


def network(**options):
    """Two norms, with something else around them."""
    layers = nn.Conv2d(3, 4, 3), NormAct(4, norm="batch", **options), nn.Sequential(NormAct(4, norm="instance"))
    return nn.Sequential(*layers).double()


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_with_separate_statistics_one_batch_is_as_many_as_it_has_groups(groups):
    x = torch.randn(4, 3, 8, 9).double()
    at_once, one_by_one = network(), network()
    one_by_one.load_state_dict(at_once.state_dict())
    with separate_statistics(at_once, groups):
        y = at_once(x)
    torch.testing.assert_close(y, torch.cat([one_by_one(part) for part in x.chunk(groups)]))
    for mine, theirs in zip(at_once.buffers(), one_by_one.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs)  # running statistics and the number of batches


def test_separate_statistics_are_of_one_network_and_end_with_the_context():
    x = torch.randn(4, 3, 8, 9).double()
    net, other = network(), network()
    together, others = net(x), other(x)
    with pytest.raises(KeyError), separate_statistics(net, 2):
        raise KeyError
    with separate_statistics(net, 2):
        assert not torch.allclose(net(x), together)
        torch.testing.assert_close(other(x), others)
    torch.testing.assert_close(net(x), together)


def test_in_eval_mode_there_is_nothing_to_separate():
    net = network().eval()
    x = torch.randn(4, 3, 8, 9).double()
    with separate_statistics(net, 2):
        y = net(x)
    assert torch.equal(y, net(x))


def test_a_cumulative_average_counts_batches_and_is_refused():
    message = "^net must not have momentum None, the cumulative average, for statistics of several groups"
    net = network(momentum=None)
    with pytest.raises(ValueError, match=message), separate_statistics(net, 2):
        pass
    with separate_statistics(net, 1):
        net(torch.randn(2, 3, 8, 9).double())


@pytest.mark.parametrize(
    ("groups", "error", "sentence"),
    [
        (0, ValueError, "groups must be at least 1, got 0"),
        (-1, ValueError, "groups must be at least 1, got -1"),
        ("x", TypeError, "groups must be an int, got str"),
    ],
)
def test_a_number_of_groups_that_is_none_is_refused(groups, error, sentence):
    net = NormAct(3, norm="batch")
    with pytest.raises(error, match=f"^{sentence}$"), separate_statistics(net, groups):
        pass
    assert net.stat_groups == 1
