"""The mathematics of ``conv_norm_act``: one block and whole chains against the plain modules of torch."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
import torch
from conv_norm_act_case import (
    GEOMETRIES,
    REFLECT,
    Case,
    Geometry,
    Inputs,
    chain_inputs,
    chain_results,
    ours,
    plain,
    random_inputs,
    results,
)
from op_testing import LAYOUTS, assert_as_exact_as_eager, channels_last, contiguous

from torchp2p.ops import Deferred, conv_norm_act

OP = "conv_norm_act"
pytestmark = pytest.mark.interpreted(one_in=40)
CPU = torch.device("cpu")
NORMS = ("instance", "batch", "none")

either_layout = pytest.mark.parametrize("layout", [contiguous, channels_last], ids=lambda f: f.__name__)


def assert_equal_to_plain(case: Case, inputs: Inputs, backend: str | None, has_effect: bool = True) -> None:
    """Result, every gradient and the running statistics, in float64."""
    copy = inputs.in_dtype(torch.float64)
    found, expected = results(ours, case, inputs, backend=backend), results(plain, case, copy)
    if case.norm == "instance" and not case.running and case.bias:
        assert found.pop("grad_bias") is None
        torch.testing.assert_close(expected.pop("grad_bias"), torch.zeros(case.outputs, dtype=torch.float64))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(inputs.tensors[name], copy.tensors[name], rtol=1e-12, atol=1e-12)


# --- one block -------------------------------------------------------------------------------------------

EVERY_BLOCK = [
    Case(geometry, norm, act)
    for geometry, norm, act in product(GEOMETRIES, NORMS, ("leaky_relu", "relu", "tanh", "none"))
]
EVERY_EXTRA = [
    Case(geometry, norm, "relu", affine, residual, bias)
    for geometry, norm, affine, residual, bias in product((REFLECT, GEOMETRIES[-1]), NORMS, *[(False, True)] * 3)
]


@either_layout
@pytest.mark.parametrize("case", [*EVERY_BLOCK, *EVERY_EXTRA], ids=str)
def test_a_block_is_its_separate_layers_in_float64(case, layout, backend, device):
    assert_equal_to_plain(case, random_inputs(case, torch.float64, device).laid_out(layout), backend)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("geometry", [REFLECT, GEOMETRIES[-1]], ids=str)
def test_running_statistics_are_used_and_updated_as_in_torch(geometry, norm, training, backend, device):
    case = Case(geometry, norm, affine=True, bias=True, running=True, training=training)
    assert_equal_to_plain(case, random_inputs(case, torch.float64, device), backend)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_input_residual_and_gradient_may_lie_in_memory_in_any_way(layout, backend, device):
    case = Case(REFLECT, residual=True)
    assert_equal_to_plain(case, random_inputs(case, torch.float64, device).laid_out(layout), backend)


@pytest.mark.parametrize("case", [Case(REFLECT), Case(Geometry(1, 1, 0)), Case(norm="batch")], ids=str)
@pytest.mark.parametrize("size", [(1, 2, 2), (2, 2, 3), (1, 5, 64)], ids=lambda s: "x".join(map(str, s)))
def test_small_and_uneven_images(size, case, backend, device):
    assert_equal_to_plain(case, random_inputs(case, torch.float64, device, size), backend)


@pytest.mark.parametrize("norm", NORMS)
def test_no_samples_give_no_samples(norm, backend, device):
    x = torch.empty(0, 4, 6, 7, device=device, requires_grad=True)
    weight = torch.randn(5, 4, 3, 3, device=device, requires_grad=True)
    y = conv_norm_act(x, weight, padding=1, pad_mode="reflect", norm=norm, defer=True, backend=backend)
    y = conv_norm_act(y, torch.randn(2, 5, 3, 3, device=device), stride=2, norm=norm, backend=backend)
    assert y.shape == (0, 2, 2, 3)
    y.sum().backward()
    assert x.grad.shape == x.shape
    assert torch.equal(weight.grad, torch.zeros_like(weight))


def test_stride_and_output_padding_may_differ_vertically_and_horizontally(backend, device):
    x, weight = torch.randn(1, 3, 5, 4, device=device), torch.randn(3, 2, 3, 3, device=device)
    plain = {"norm": "none", "act": "none", "backend": backend}
    y = conv_norm_act(x, weight, stride=(3, 2), padding=1, transposed=True, output_padding=(2, 1), **plain)
    torch.testing.assert_close(y, torch.conv_transpose2d(x, weight, None, (3, 2), 1, (2, 1)))


# --- no less exact than eager ----------------------------------------------------------------------------


@either_layout
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("geometry", [REFLECT, GEOMETRIES[3], GEOMETRIES[6]], ids=str)
def test_the_error_is_at_most_twice_eagers(geometry, norm, dtype, layout, backend, device):
    case = Case(geometry, norm, affine=True, residual=True, inputs=16, outputs=8)
    inputs = random_inputs(case, dtype, device, (2, 12, 13)).laid_out(layout)
    found, eager = results(ours, case, inputs, backend=backend), results(plain, case, inputs)
    for name, exact in results(plain, case, inputs.in_dtype(torch.float64)).items():
        assert_as_exact_as_eager(name, found[name], eager[name], exact)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_deferred_block_gives_the_bits_of_one_that_is_not(dtype, backend, device):
    case = Case(REFLECT, "batch", affine=True, residual=True)
    inputs = random_inputs(case, dtype, device)
    at_once = results(ours, case, inputs, backend=backend)
    later = results(
        lambda *args, **options: ours(*args, **options, defer=True).tensor(backend=backend),
        case,
        inputs,
        backend=backend,
    )
    for name, value in at_once.items():
        assert torch.equal(later[name], value), name


# --- chains ----------------------------------------------------------------------------------------------

UP = Geometry(3, 2, 1, transposed=True, output_padding=1)
LAST = Case(Geometry(1, 1, 0), inputs=5)
CHAINS = {
    "residual block": [Case(REFLECT, act="relu"), Case(REFLECT, act="none", residual=True, inputs=5)],
    "batch norm": [Case(REFLECT, "batch", affine=True, running=True), replace(LAST, norm="batch", running=True)],
    "eval mode": [
        Case(REFLECT, "batch", affine=True, running=True, training=False),
        replace(LAST, norm="batch", running=True, training=False),
    ],
    "tracked instance norm": [
        Case(REFLECT, bias=True, running=True),
        Case(inputs=5, bias=True, running=True),
        replace(LAST, bias=True),
    ],
    "residual within": [
        Case(act="relu"),
        Case(REFLECT, act="tanh", inputs=5, residual=True, affine=True),
        replace(LAST, norm="none", bias=True),
    ],
    "down and up": [
        Case(Geometry(4, 2, 1), bias=True),
        Case(UP, inputs=5, act="relu"),
        Case(Geometry(7, 1, 3, "reflect"), "none", "tanh", inputs=5),
    ],
    "no norm": [
        Case(norm="none", act="leaky_relu", bias=True),
        Case(norm="none", act="relu", inputs=5, affine=True),
        LAST,
    ],
    "four": [
        Case(REFLECT, affine=True),
        Case(Geometry(3, 2, 1), "batch", inputs=5),
        Case(UP, "batch", inputs=5, running=True),
        Case(REFLECT, act="none", inputs=5, residual=True),
    ],
}
every_chain = pytest.mark.parametrize("cases", CHAINS.values(), ids=CHAINS.keys())


@pytest.mark.interpreted(one_in=6)
@either_layout
@every_chain
def test_a_deferred_chain_is_the_plain_modules(cases, layout, backend, device):
    blocks, grad = chain_inputs(cases, torch.float64, device)
    copies = [block.in_dtype(torch.float64) for block in blocks]
    found, grads = chain_results(cases, [block.laid_out(layout) for block in blocks], layout(grad), backend)
    expected, expected_grads = chain_results(cases, copies, grad, native=False)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    for ours_, theirs in zip(grads, expected_grads, strict=True):
        if ours_ is None:  # a bias without effect
            ours_ = torch.zeros_like(theirs)
        torch.testing.assert_close(ours_, theirs, rtol=1e-9, atol=1e-9)
    for block, copy in zip(blocks, copies, strict=True):
        for name in ("running_mean", "running_var"):
            torch.testing.assert_close(block.tensors[name], copy.tensors[name], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["residual block", "batch norm", "four"])
def test_a_chain_is_as_exact_as_eager(name, dtype, backend, device):
    # Without a kink: which side of it a rounded value falls on is luck, for eager and for us.
    cases = [replace(case, act="tanh") for case in CHAINS[name]]
    blocks, grad = chain_inputs(cases, dtype, device)
    exactly = [block.in_dtype(torch.float64) for block in blocks]
    eagerly = [block.in_dtype(dtype) for block in blocks]
    found, grads = chain_results(cases, blocks, grad, backend)
    eager, eager_grads = chain_results(cases, eagerly, grad, native=False)
    exact, exact_grads = chain_results(cases, exactly, grad.double(), native=False)
    assert_as_exact_as_eager("y", found, eager, exact)
    for place, each in enumerate(zip(grads, eager_grads, exact_grads, strict=True)):
        assert_as_exact_as_eager(f"gradient {place}", *each)


def test_the_compiled_reference_gives_the_same_numbers(device):
    cases = [Case(act="relu"), replace(LAST, norm="none", act="none")]
    blocks, grad = chain_inputs(cases, torch.float64, device)
    found, expected = (chain_results(cases, blocks, grad, backend) for backend in ("compile", "reference"))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("readers", [2, 3])
def test_a_batch_counts_once_however_many_readers_there_are(readers, backend, device):
    case = Case(REFLECT, "batch", running=True)
    inputs = random_inputs(case, torch.float64, device)
    copy = inputs.in_dtype(torch.float64)
    expected = plain(case, copy.x, copy.tensors)
    deferred = ours(case, inputs.x, inputs.tensors, defer=True, backend=backend)
    weight = torch.randn(2, 5, 1, 1, dtype=torch.float64, device=device)
    for _ in range(readers):
        torch.testing.assert_close(deferred.tensor(backend=backend), expected)
        through = conv_norm_act(deferred, weight, norm="none", act="none", backend=backend)
        torch.testing.assert_close(through, torch.conv2d(expected, weight))
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(inputs.tensors[name], copy.tensors[name])


def test_a_batch_that_nobody_reads_does_not_count(backend, device):
    case = Case(REFLECT, "batch", running=True)
    inputs = random_inputs(case, torch.float64, device)
    before = inputs.tensors["running_mean"].clone()
    ours(case, inputs.x, inputs.tensors, defer=True, backend=backend)
    assert torch.equal(inputs.tensors["running_mean"], before)


def test_a_deferred_activation_can_be_had_padded(backend, device):
    case = Case(REFLECT, affine=True, residual=True)
    inputs = random_inputs(case, torch.float64, device)
    deferred = ours(case, inputs.x, inputs.tensors, defer=True, backend=backend)
    y = plain(case, inputs.x, inputs.tensors)
    torch.testing.assert_close(deferred.tensor(backend=backend), y)
    padded = torch.nn.functional.pad(y, (2,) * 4, mode="replicate")
    torch.testing.assert_close(deferred.tensor(2, "replicate", backend), padded)


def test_a_deferred_activation_of_any_tensor_may_be_made_by_hand(backend, device):
    x, residual = torch.randn(2, 3, 5, 6, device=device), torch.randn(2, 3, 5, 6, device=device)
    deferred = Deferred(x, norm="none", act="relu", residual=residual)
    weight = torch.randn(4, 3, 3, 3, device=device)
    y = conv_norm_act(deferred, weight, norm="none", act="none", backend=backend)
    torch.testing.assert_close(y, torch.conv2d(torch.relu(x + residual), weight))
    assert Deferred(x).tensor(backend=backend) is x


# --- the bias in front of an instance norm -----------------------------------------------------------------


@pytest.mark.parametrize("affine", [False, True])
def test_a_bias_before_instance_norm_has_no_effect_and_no_gradient(affine, backend, device):
    case = Case(REFLECT, affine=affine, bias=True)
    inputs = random_inputs(case, torch.float32, device)
    found = results(ours, case, inputs, backend=backend)
    without = results(
        ours, replace(case, bias=False), replace(inputs, tensors=inputs.tensors | {"bias": None}), backend=backend
    )
    assert found.pop("grad_bias") is None
    for name, value in without.items():
        assert torch.equal(found[name], value), name


def test_a_bias_before_tracked_instance_norm_moves_the_running_mean(backend, device):
    case = Case(REFLECT, bias=True, running=True)
    inputs = random_inputs(case, torch.float64, device)
    assert_equal_to_plain(case, inputs, backend)
