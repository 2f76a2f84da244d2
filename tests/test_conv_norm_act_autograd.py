"""Derivatives of ``conv_norm_act`` of every order, only those that are wanted, and what it keeps in memory for them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from conv_norm_act_case import GEOMETRIES, REFLECT, Case, Geometry, ours, random_inputs
from op_testing import saved_tensors
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.plain.pix2pix import PlainResidualBlock
from torchp2p.models.layers import ResidualBlock
from torchp2p.ops import Deferred, conv_norm_act
from torchp2p.reference import conv_norm_act as reference

OP = "conv_norm_act"
pytestmark = pytest.mark.interpreted(one_in=0)  # hundreds of calls in a test
SMALL = (2, 3, 4)

# --- the derivatives -------------------------------------------------------------------------------------

DERIVED = [
    Case(GEOMETRIES[0], "none", "tanh", bias=True, inputs=2, outputs=2),
    Case(REFLECT, "instance", "tanh", affine=True, residual=True, inputs=2, outputs=2),
    Case(Geometry(3, 2, 1, transposed=True, output_padding=1), "batch", "tanh", inputs=2, outputs=2),
    Case(REFLECT, "batch", "leaky_relu", affine=True, bias=True, running=True, training=False, inputs=2, outputs=2),
]


def function_of(case: Case, inputs, backend: str):
    """(function, its differentiable arguments): a block and the next, which reads it deferred."""
    leaves = {
        name: t.detach().requires_grad_()
        for name, t in inputs.tensors.items()
        if t is not None and "running" not in name
    }
    following = torch.randn(2, case.outputs, 1, 1, dtype=torch.float64, device=inputs.x.device, requires_grad=True)

    def function(x, weight, *others):
        tensors = inputs.tensors | dict(zip(leaves, others, strict=True))
        deferred = ours(case, x, tensors, defer=True, backend=backend)
        return conv_norm_act(deferred, weight, norm="none", act="none", backend=backend)

    return function, (inputs.x.requires_grad_(), following, *leaves.values())


@pytest.mark.parametrize("case", DERIVED, ids=str)
def test_the_gradient_is_the_derivative(case, backend, device):
    function, tensors = function_of(case, random_inputs(case, torch.float64, device, SMALL), backend)
    assert torch.autograd.gradcheck(function, tensors)


@pytest.mark.parametrize("case", DERIVED, ids=str)
def test_the_double_gradient_is_the_derivative_of_the_gradient(case, backend, device):
    function, tensors = function_of(case, random_inputs(case, torch.float64, device, SMALL), backend)
    assert torch.autograd.gradgradcheck(function, tensors)


def test_a_gradient_penalty_through_a_deferred_chain_is_that_of_the_plain_layers(backend, device):
    first, second, last = (torch.randn(4, n, 3, 3, dtype=torch.float64, device=device) for n in (3, 4, 4))
    for weight in (first, second, last):
        weight.requires_grad_()
    x = torch.randn(2, 3, 6, 7, dtype=torch.float64, device=device, requires_grad=True)

    def ours_of(x):
        h = conv_norm_act(x, first, padding=1, pad_mode="reflect", act="tanh", defer=True, backend=backend)
        h = conv_norm_act(h, second, padding=1, norm="batch", act="tanh", defer=True, backend=backend)
        return conv_norm_act(h, last, norm="none", act="none", backend=backend)

    def plain_of(x):
        h = torch.tanh(F.instance_norm(F.conv2d(F.pad(x, (1,) * 4, mode="reflect"), first)))
        h = torch.tanh(F.batch_norm(F.conv2d(h, second, padding=1), None, None, training=True))
        return F.conv2d(h, last)

    def penalty_gradients(forward):
        (slope,) = torch.autograd.grad(forward(x).square().sum(), x, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), (x, first, second, last))

    torch.testing.assert_close(penalty_gradients(ours_of), penalty_gradients(plain_of), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("case", DERIVED, ids=str)
def test_the_reference_is_the_operator_with_its_gradient(case, device):
    inputs = random_inputs(case, torch.float64, device, SMALL)
    x = torch.randn(2, case.inputs, 5, 6, dtype=torch.float64, device=device, requires_grad=True)
    residual, weight = torch.randn_like(x).requires_grad_(), inputs.tensors["weight"].requires_grad_()
    vector = torch.randn(case.inputs, dtype=torch.float64, device=device, requires_grad=True)
    options, geometry = ("instance", 1e-5, "tanh", 0.2, 1), case.geometry
    convolution = (
        [geometry.stride] * 2, geometry.padding, geometry.pad_mode, geometry.transposed, [geometry.output_padding] * 2
    )  # fmt: skip
    raw, mean, var = reference.conv_norm_act(
        x, vector, vector, residual, None, None, *options, weight, None, *convolution
    )
    grad = torch.randn_like(raw)
    found = reference.conv_norm_act_backward(
        grad, x, vector, vector, residual, mean, var, *options, weight, *convolution, True, True, True, False
    )
    assert found[5].numel() == 0
    deferred = Deferred(x, "instance", vector, vector, act="tanh", residual=residual)
    result = conv_norm_act(
        deferred, weight, norm="none", act="none", stride=geometry.stride, padding=geometry.padding,
        pad_mode=geometry.pad_mode, transposed=geometry.transposed, output_padding=geometry.output_padding,
    )  # fmt: skip
    torch.testing.assert_close(result, raw)
    expected = torch.autograd.grad(raw, (x, residual, weight), grad)
    torch.testing.assert_close((found[0], found[3], found[4]), expected)
    torch.testing.assert_close(found[1] + found[2], torch.autograd.grad(result, vector, grad)[0])


# --- only what is wanted ---------------------------------------------------------------------------------


def gradients_computed(function) -> list[list[bool]]:
    """For every convolution backward that ``function`` ran: whether input, weight and bias got a gradient."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as recorded:
        function()
    return [event.concrete_inputs[-1] for event in recorded.events() if event.name == "aten::convolution_backward"]


WANTED = {"x": [True, False, False], "weight": [False, True, False], "bias": [False, False, True]}


@pytest.mark.parametrize("deferred", [False, True], ids=["tensor", "deferred"])
@pytest.mark.parametrize("wanted", WANTED)
def test_only_the_gradients_that_are_wanted_are_computed(wanted, deferred, backend, device):
    tensors = {
        "x": torch.randn(2, 3, 6, 7, device=device),
        "weight": torch.randn(4, 3, 3, 3, device=device),
        "bias": torch.randn(4, device=device),
    }
    tensors[wanted].requires_grad_()
    source = Deferred(tensors["x"], norm="instance", act="relu") if deferred else tensors["x"]
    y = conv_norm_act(source, tensors["weight"], tensors["bias"], padding=1, norm="batch", backend=backend)
    assert gradients_computed(lambda: y.sum().backward()) == [WANTED[wanted]]
    assert {name for name, t in tensors.items() if t.grad is not None} == {wanted}


ASKED = {
    "backward": lambda loss, tensor: loss.backward(inputs=[tensor]),
    "grad": lambda loss, tensor: torch.autograd.grad(loss, tensor),
}


@pytest.mark.parametrize("way", ASKED)
@pytest.mark.parametrize("asked", WANTED)
def test_only_the_gradients_that_a_backward_pass_asks_for_are_computed(asked, way, backend, device):
    x = torch.randn(2, 3, 6, 7, device=device, requires_grad=True)
    weight = torch.randn(4, 3, 3, 3, device=device, requires_grad=True)
    bias = torch.randn(4, device=device, requires_grad=True)
    tensors = {"x": x, "weight": weight, "bias": bias}
    y = conv_norm_act(2 * x, weight, bias, padding=1, norm="none", backend=backend)
    assert gradients_computed(lambda: ASKED[way](y.sum(), tensors[asked])) == [WANTED[asked]]


PASSES = {
    "a weight used twice": lambda conv, x, w: torch.autograd.grad(conv(conv(x, w), w).square().sum(), [w]),
    "an input that is no leaf": lambda conv, x, w: (lambda h: torch.autograd.grad(conv(h, w).sum(), [h]))(2 * x),
    "a weight that is no leaf": lambda conv, x, w: (lambda v: torch.autograd.grad(conv(x, v).sum(), [v]))(2 * w),
    "what comes before the weight": lambda conv, x, w: torch.autograd.grad(conv(x, 2 * w).square().sum(), [w]),
    "both": lambda conv, x, w: torch.autograd.grad(conv(x, w).square().sum(), [x, w]),
}


@pytest.mark.parametrize("asked", PASSES)
def test_what_a_backward_pass_asks_for_is_the_gradient_of_the_plain_layer(asked, backend, device):
    x, w = (
        torch.randn(*shape, dtype=torch.float64, device=device, requires_grad=True)
        for shape in ((1, 4, 6, 6), (4, 4, 3, 3))
    )
    found = PASSES[asked](lambda x, w: conv_norm_act(x, w, padding=1, norm="none", act="none", backend=backend), x, w)
    expected = PASSES[asked](lambda x, w: F.conv2d(x, w, padding=1), x, w)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_a_frozen_block_still_passes_the_gradient_on(backend, device):
    x = torch.randn(2, 3, 6, 7, device=device, requires_grad=True)
    weight = torch.randn(4, 3, 3, 3, device=device)

    def gradient(weight):
        deferred = Deferred(x, norm="instance", act="relu")
        y = conv_norm_act(deferred, weight, padding=1, pad_mode="reflect", backend=backend)
        return torch.autograd.grad(y.square().sum(), x)[0]

    assert torch.equal(gradient(weight), gradient(weight.clone().requires_grad_()))


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_nothing_is_saved_where_no_gradient_is_wanted(context, backend, device):
    case = Case(REFLECT, "batch", affine=True, running=True, training=False)
    inputs = random_inputs(case, torch.float32, device)
    inputs.x.requires_grad_()
    expected = ours(case, inputs.x, inputs.tensors, backend=backend).detach()
    with context():
        block = []
        assert saved_tensors(lambda: block.append(ours(case, inputs.x, inputs.tensors, backend=backend))) == []
    assert not block[0].requires_grad
    assert torch.equal(block[0], expected)


# --- what is kept ----------------------------------------------------------------------------------------

BLOCKS, CHANNELS = 6, 16


def chains() -> tuple[torch.nn.Sequential, torch.nn.Sequential]:
    """Six residual blocks in plain modules, and ours with the same parameters."""
    plain = torch.nn.Sequential(*(PlainResidualBlock(CHANNELS, "instance", "reflect", False) for _ in range(BLOCKS)))
    chain = torch.nn.Sequential(*(ResidualBlock(CHANNELS, norm="instance", bias=True) for _ in range(BLOCKS)))
    chain.load_state_dict(plain.state_dict())
    return plain, chain


def kept_by(net: torch.nn.Module, x: Tensor) -> list[Tensor]:
    """What a forward leaves for the backward, without the parameters; the result is alive meanwhile."""
    parameters = {p.untyped_storage().data_ptr() for p in net.parameters()}
    result = []
    kept = saved_tensors(lambda: result.append(net(x)))
    return [t for t in kept if t.untyped_storage().data_ptr() not in parameters]


def kept_bytes(tensors: list[Tensor]) -> int:
    return sum(t.untyped_storage().nbytes() for t in tensors)


def test_a_chain_of_six_residual_blocks_keeps_at_most_55_percent_of_the_plain_modules_memory(device):
    plain, chain = (net.to(device) for net in chains())
    x = torch.randn(1, CHANNELS, 32, 48, device=device, requires_grad=True)
    torch.testing.assert_close(chain(x), plain(x), rtol=1e-4, atol=1e-4)
    assert kept_bytes(kept_by(chain, x)) <= 0.55 * kept_bytes(kept_by(plain, x))


def test_no_normalised_activated_or_padded_tensor_is_kept(device):
    plain, chain = (net.to(device) for net in chains())
    x = torch.randn(1, CHANNELS, 16, 20, device=device, requires_grad=True)
    made = []  # by the layers that normalise, activate and pad
    for layer in plain.modules():
        if isinstance(layer, (torch.nn.InstanceNorm2d, torch.nn.ReLU, torch.nn.ReflectionPad2d)):
            layer.register_forward_hook(lambda *args: made.append(args[-1].detach().clone()))
    plain(x)
    assert len(made) == 5 * BLOCKS
    images = [t for t in kept_by(chain, x) if t.dim() == 4]
    assert len(images) == 3 * BLOCKS  # the block's input and two raw outputs; the sum is the next one's input
    for kept in images:
        assert not any(kept.shape == other.shape and torch.allclose(kept, other, atol=1e-4) for other in made)


@pytest.mark.parametrize("act", ["relu", "none"])
def test_a_block_keeps_its_input_its_raw_output_and_statistics(act, backend, device):
    x = torch.randn(2, 3, 16, 20, device=device, requires_grad=True)
    weight = torch.randn(4, 3, 3, 3, device=device, requires_grad=True)

    def block():
        return conv_norm_act(x, weight, padding=1, pad_mode="reflect", act=act, backend=backend)

    kept = saved_tensors(block)
    assert sorted(t.numel() for t in kept) == sorted([x.numel(), weight.numel(), 2 * 4 * 16 * 20, 8, 8])
    assert {x.data_ptr(), weight.data_ptr()} < {t.data_ptr() for t in kept}
