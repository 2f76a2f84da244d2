"""The mathematics of ``norm_act``: every backend against torch's own layers and the float64 oracle."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from norm_act_case import (
    ACTIVATIONS,
    NORMS,
    PADS,
    Case,
    Inputs,
    Results,
    eager,
    laid_out,
    oracle,
    ours,
    random_inputs,
    results_of,
)
from op_testing import (
    DTYPES,
    HALF_DTYPES,
    LAYOUTS,
    assert_as_exact_as_eager,
    assert_same_vector,
    channels_last,
    doubled,
)

from torchp2p.ops import norm_act
from torchp2p.reference import norm_act as reference

OP = "norm_act"
pytestmark = pytest.mark.interpreted(one_in=40)
CPU = torch.device("cpu")


def id_of(value):
    return str(value).removeprefix("torch.") if isinstance(value, torch.dtype) else None


def assert_exact(case: Case, inputs: Inputs, backend: str | None, found: Results | None = None) -> None:
    found = ours(case, inputs, backend) if found is None else found
    exact, in_eager = oracle(case, inputs), eager(case, inputs)
    for name, value in exact.results.items():
        magnitude = exact.magnitudes.get(name)
        assert_as_exact_as_eager(name, found[name], in_eager[name], value, magnitude)
        if magnitude is None:
            assert_same_vector(name, found[name], value)


EVERY_CASE = [
    Case(norm, act, pad, pad_mode, affine, residual)
    for norm, act, (pad, pad_mode), affine, residual in product(NORMS, ACTIVATIONS, PADS, (False, True), (False, True))
]


every_case = pytest.mark.parametrize("case", EVERY_CASE, ids=str)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=id_of)
either_layout = pytest.mark.parametrize("layout", [LAYOUTS["contiguous"], channels_last], ids=lambda f: f.__name__)


# --- the definition --------------------------------------------------------------------------------------


@every_case
def test_the_reference_is_torchs_own_layers_in_float64(case):
    inputs = random_inputs(case, torch.float64, CPU)
    exact, layers = oracle(case, inputs).results, eager(case, inputs)
    for name in layers:
        torch.testing.assert_close(exact[name], layers[name], rtol=1e-11, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("given", [False, True], ids=["own", "given"])
@every_case
def test_the_gradient_formula_of_the_reference_is_the_derivative_of_its_forward(case, given):
    case = replace(case, given=given and case.norm != "none")
    inputs = random_inputs(case, torch.float64, CPU)
    derived = results_of(lambda *tensors: reference.norm_act(*tensors, *case.options)[0], inputs)
    exact = oracle(case, inputs).results
    for name in derived:
        torch.testing.assert_close(exact[name], derived[name], rtol=1e-12, atol=1e-12)


# --- against the oracle ----------------------------------------------------------------------------------


@either_layout
@every_dtype
@every_case
def test_result_and_gradients_match_the_float64_oracle(case, dtype, layout, backend, device):
    assert_exact(case, laid_out(random_inputs(case, dtype, device), layout), backend)


@either_layout
@every_dtype
@pytest.mark.parametrize("act", ACTIVATIONS)
@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_given_statistics_stand_in_for_those_of_x(norm, act, dtype, layout, backend, device):
    case = Case(norm, act, pad=1, affine=True, residual=True, given=True)
    assert_exact(case, laid_out(random_inputs(case, dtype, device), layout), backend)


@pytest.mark.interpreted(one_in=0)  # large; test_norm_act_groups.py has small ones
@either_layout
@every_dtype
@pytest.mark.parametrize("shape", [(4, 3, 9, 11), (4, 2, 130, 70)], ids=["small", "large"])
@pytest.mark.parametrize("groups", [2, 4])
def test_groups_of_a_batch_have_statistics_of_their_own(groups, shape, dtype, layout, backend, device):
    case = Case("batch", pad=1, affine=True, residual=True, stat_groups=groups, shape=shape)
    assert_exact(case, laid_out(random_inputs(case, dtype, device), layout), backend)


@pytest.mark.parametrize("dtype", HALF_DTYPES, ids=id_of)
@pytest.mark.parametrize("given", [False, True], ids=["own", "given"])
@pytest.mark.parametrize("norm", NORMS)
def test_half_precision_images_take_float32_vectors(norm, given, dtype, backend, device):
    case = Case(norm, affine=True, given=given and norm != "none")
    inputs = random_inputs(case, dtype, device, vectors=torch.float32)
    found = ours(case, inputs, backend)
    assert found["y"].dtype == found["grad_x"].dtype == dtype
    assert found["grad_weight"].dtype == found["grad_bias"].dtype == torch.float32
    assert_exact(case, inputs, backend, found)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=id_of)
@pytest.mark.parametrize("pad", [0, 2])
@pytest.mark.parametrize("norm", NORMS)
def test_input_and_residual_may_lie_in_memory_in_any_way(norm, pad, dtype, layout, backend, device):
    case = Case(norm, affine=True, residual=True, pad=pad)
    inputs = random_inputs(case, dtype, device)
    assert_exact(case, replace(inputs, x=layout(inputs.x)), backend)
    assert_exact(case, replace(inputs, residual=layout(inputs.residual)), backend)


@pytest.mark.parametrize("x_layout", [LAYOUTS["contiguous"], channels_last], ids=lambda f: f"x_{f.__name__}")
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=id_of)
@pytest.mark.parametrize(("pad", "pad_mode"), PADS)
def test_the_incoming_gradient_may_lie_in_memory_in_any_way(pad, pad_mode, dtype, layout, x_layout, backend, device):
    case = Case(pad=pad, pad_mode=pad_mode, residual=True)
    inputs = random_inputs(case, dtype, device)
    assert_exact(case, replace(inputs, x=x_layout(inputs.x), grad_y=layout(inputs.grad_y)), backend)


def test_the_gradient_of_a_concatenation_flows_through(backend, device):
    case = Case(shape=(2, 3, 8, 8))
    inputs, skip = random_inputs(case, torch.float32, device), torch.randn(2, 5, 8, 8, device=device)
    grad = torch.randn(2, 8, 8, 8, device=device)
    x = inputs.x.requires_grad_()
    found = torch.autograd.grad(torch.cat([skip, norm_act(x, backend=backend)], 1), x, grad)[0]
    expected = oracle(case, replace(inputs, grad_y=grad[:, 5:])).results["grad_x"]
    assert_same_vector("grad_x", found, expected)


@either_layout
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=id_of)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(
    "shape",
    [
        (1, 1, 1, 9), (1, 1, 9, 1), (9, 1, 1, 1), (2, 1, 5, 5), (1, 2, 1, 64), (1, 2, 64, 1), (2, 7, 3, 16),
        (1, 8, 4, 4), (1, 16, 3, 5), (2, 17, 3, 3), (1, 32, 3, 3), (1, 65, 7, 1), (3, 2, 1, 17), (1, 3, 1, 127),
        (1, 3, 2, 129), (2, 3, 40, 50), (1, 130, 5, 7),
    ],
    ids=lambda s: "x".join(map(str, s)),
)  # fmt: skip
def test_any_shape_fills_and_leaves_registers_alike(shape, norm, dtype, layout, backend, device):
    if norm == "instance" and shape[2] * shape[3] == 1:
        norm = "batch"
    case = Case(norm, affine=True, residual=True, shape=shape, eps=1e-3)
    assert_exact(case, laid_out(random_inputs(case, dtype, device), layout), backend)


@either_layout
@pytest.mark.parametrize("pad_mode", ["reflect", "replicate", "zeros"])
@pytest.mark.parametrize("pad", [1, 2, 3])
@pytest.mark.parametrize("size", [(4, 4), (4, 17), (5, 6), (33, 4)], ids=lambda s: "x".join(map(str, s)))
def test_borders_up_to_the_size_of_the_image_less_one(size, pad, pad_mode, layout, backend, device):
    case = Case("none", "none", pad, pad_mode, residual=True, shape=(2, 3, *size))
    assert_exact(case, laid_out(random_inputs(case, torch.float32, device), layout), backend)


@pytest.mark.parametrize("pad_mode", ["replicate", "zeros"])
def test_a_border_may_be_wider_than_the_image(pad_mode, backend, device):
    case = Case("none", "relu", 5, pad_mode, shape=(1, 2, 2, 3))
    assert_exact(case, random_inputs(case, torch.float32, device), backend)


@pytest.mark.parametrize("slope", [0.0, 1.0, -0.5, 0.01])
def test_leaky_relu_takes_any_slope(slope, backend, device):
    case = Case(slope=slope, pad=1)
    assert_exact(case, random_inputs(case, torch.float32, device), backend)


@pytest.mark.parametrize("weight", [0.0, -1.0, 1e-20])
def test_weights_may_be_zero_negative_or_tiny(weight, backend, device):
    case = Case("batch", "none", affine=True)
    inputs = random_inputs(case, torch.float32, device)
    assert_exact(case, replace(inputs, weight=torch.full_like(inputs.weight, weight)), backend)


def test_a_tensor_may_be_both_input_and_residual(backend, device):
    case = Case(act="tanh", pad=1)
    inputs = random_inputs(case, torch.float64, device)
    x = inputs.x.requires_grad_()
    y = norm_act(x, residual=x, act="tanh", pad=1, backend=backend)
    expected = F.pad(torch.tanh(F.instance_norm(x) + x), (1,) * 4, mode="reflect")
    torch.testing.assert_close(y, expected)
    found, wanted = (torch.autograd.grad(out, x, inputs.grad_y)[0] for out in (y, expected))
    torch.testing.assert_close(found, wanted)


# --- hard numbers ----------------------------------------------------------------------------------------


@either_layout
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=id_of)
@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize(("mean", "std"), [(1000.0, 1.0), (-1000.0, 0.1), (3.0, 1e-6), (0.0, 1e-6), (1e6, 100.0)])
def test_means_far_from_zero_and_tiny_variances_lose_no_more_than_in_eager(
    mean, std, norm, dtype, layout, backend, device
):
    case = Case(norm, affine=True, shape=(2, 3, 33, 35), eps=1e-12)
    inputs = random_inputs(case, dtype, device)
    x = (mean + std * torch.randn(case.shape, dtype=torch.float64)).to(device, dtype)
    inputs = laid_out(replace(inputs, x=x), layout)
    found, exact, in_eager = ours(case, inputs, backend), oracle(case, inputs), eager(case, inputs)
    for name, value in exact.results.items():
        assert_as_exact_as_eager(name, found[name], in_eager[name], value, exact.magnitudes.get(name))


@either_layout
def test_kernels_take_the_variance_of_deviations_smaller_than_the_rounding_of_the_mean(layout, kernel, device):
    x = layout((3 + 1e-6 * torch.randn(2, 3, 133, 135, dtype=torch.float64)).to(device, torch.float32))
    mean, var = torch.zeros(3, device=device), torch.zeros(3, device=device)
    norm_act(x, norm="batch", running_mean=mean, running_var=var, momentum=1.0, backend=kernel)
    torch.testing.assert_close(mean.double(), x.double().mean((0, 2, 3)), rtol=2e-7, atol=0)
    torch.testing.assert_close(var.double(), x.double().var((0, 2, 3)), rtol=1e-6, atol=0)


def test_a_constant_plane_normalises_to_its_bias(backend, device):
    x = torch.full((1, 2, 7, 9), 1234.5, device=device)
    bias = torch.tensor([0.25, -3.0], device=device)
    y = norm_act(x, torch.ones_like(bias), bias, act="none", backend=backend)
    assert torch.equal(y, bias.view(1, -1, 1, 1).expand_as(x))


@pytest.mark.parametrize("act", ACTIVATIONS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("norm", ["instance", "none"])
def test_a_nan_or_infinity_spoils_what_it_spoils_in_torch_and_nothing_else(norm, bad, act, backend, device):
    case = Case(norm, act, pad=1)
    inputs = random_inputs(case, torch.float32, device)
    inputs.x[1, 2, 3, 4] = bad
    found, in_eager = ours(case, inputs, backend), eager(case, inputs)
    for name in ("y", "grad_x"):
        torch.testing.assert_close(found[name], in_eager[name], equal_nan=True, msg=lambda m, n=name: f"{n}: {m}")


def test_a_normalised_zero_takes_the_left_slope_as_in_torch(backend, device):
    x = torch.zeros(1, 1, 2, 2, device=device, requires_grad=True)
    for act, slope in (("leaky_relu", 0.2), ("relu", 0.0)):
        (grad,) = torch.autograd.grad(norm_act(x, norm="none", act=act, backend=backend).sum(), x)
        assert torch.equal(grad, torch.full_like(x, slope))


@pytest.mark.slow
def test_a_plane_of_two_million_pixels_is_as_exact_as_eager(backend, device):
    case = Case(shape=(1, 2, 1024, 2048))
    inputs = random_inputs(case, torch.float32, device)
    assert_exact(case, replace(inputs, x=inputs.x + 100), backend)


# --- sizes of nothing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("pad", [0, 1])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 0, 4, 5), (2, 3, 0, 5), (2, 3, 4, 0)])
def test_empty_inputs_give_borders_around_nothing(shape, norm, pad, backend, device):
    x = torch.randn(shape, device=device, requires_grad=True)
    weight, bias = (torch.randn(shape[1], device=device, requires_grad=True) for _ in range(2))
    y = norm_act(x, weight, bias, norm=norm, pad=pad, pad_mode="zeros", backend=backend)
    assert y.shape == (shape[0], shape[1], shape[2] + 2 * pad, shape[3] + 2 * pad)
    assert not y.any()
    y.sum().backward()
    assert x.grad.shape == x.shape
    assert not weight.grad.any()
    assert not bias.grad.any()


def test_an_empty_batch_leaves_the_running_statistics_alone(backend, device):
    for norm in ("instance", "batch"):
        mean, var = torch.ones(3, device=device), torch.full((3,), 2.0, device=device)
        norm_act(torch.empty(0, 3, 4, 5, device=device), norm=norm, running_mean=mean, running_var=var, backend=backend)
        assert torch.equal(mean, torch.ones_like(mean))
        assert torch.equal(var, torch.full_like(var, 2.0))


# --- running statistics ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4, 3, 5, 7), (1, 3, 2, 1)], ids=lambda s: "x".join(map(str, s)))
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=id_of)
@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("momentum", [0.1, 1.0, 0.0])
def test_running_statistics_are_updated_as_in_torch(momentum, norm, dtype, shape, backend, device):
    vectors = torch.float64 if dtype == torch.float64 else torch.float32
    x = (3 * torch.randn(shape) + 1).to(device, dtype)
    mean, var = torch.randn(3, dtype=vectors, device=device), torch.rand(3, dtype=vectors, device=device)
    exact_mean, exact_var = doubled((mean, var))
    norm_act(x, norm=norm, running_mean=mean, running_var=var, momentum=momentum, backend=backend)
    layer = {"instance": F.instance_norm, "batch": F.batch_norm}[norm]
    flag = {"instance": {"use_input_stats": True}, "batch": {"training": True}}[norm]
    layer(x.double(), exact_mean, exact_var, momentum=momentum, **flag)
    torch.testing.assert_close(mean, exact_mean.to(vectors))
    torch.testing.assert_close(var, exact_var.to(vectors))


def test_running_statistics_of_groups_are_updated_as_by_one_batch_after_the_other(backend, device):
    groups = [3 * torch.randn(2, 3, 5, 7, device=device) + shift for shift in (0, 1, 2)]
    (mean, var), (exact_mean, exact_var) = ([torch.zeros(3, device=device), torch.ones(3, device=device)] for _ in "12")
    x = torch.cat(groups)
    norm_act(x, norm="batch", running_mean=mean, running_var=var, stat_groups=3, backend=backend)
    for group in groups:
        F.batch_norm(group, exact_mean, exact_var, training=True)
    torch.testing.assert_close((mean, var), (exact_mean, exact_var))


def test_given_statistics_are_not_touched_in_eval_mode(backend, device):
    x, mean, var = (torch.rand(*shape, device=device) for shape in ((2, 3, 4, 5), (3,), (3,)))
    before = mean.clone(), var.clone()
    norm_act(x, running_mean=mean, running_var=var, training=False, backend=backend)
    assert torch.equal(mean, before[0])
    assert torch.equal(var, before[1])


# --- backends agree --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "dtype", "layout"),
    [
        (Case("instance", "leaky_relu", 1, affine=True, residual=True), torch.float32, channels_last),
        (Case("batch", "tanh", affine=True, given=True), torch.bfloat16, LAYOUTS["contiguous"]),
        (Case("none", "none"), torch.float32, LAYOUTS["contiguous"]),
    ],
    ids=["instance", "batch", "none"],
)
def test_the_compiled_reference_gives_the_same_numbers(case, dtype, layout, device):
    assert_exact(case, laid_out(random_inputs(case, dtype, device), layout), "compile")


# --- results too large for the cache ---------------------------------------------------------------------


@pytest.mark.parametrize("pad", [0, 3])
@pytest.mark.parametrize(
    ("shape", "layout"), [((2, 2, 1021, 1031), "contiguous"), ((2, 16, 362, 364), "channels_last")]
)
def test_samples_that_are_stored_past_the_cache_have_the_bits_of_samples_that_are_not(
    shape: tuple[int, ...], layout: str, pad: int
) -> None:
    memory_format = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}[layout]
    x = torch.randn(shape).contiguous(memory_format=memory_format)
    assert x.numel() * 4 > 16 * 2**20 > x[:1].numel() * 4

    def run(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        leaf = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
        y = norm_act(leaf, pad=pad, backend="native")
        (gradient,) = torch.autograd.grad(y, leaf, torch.ones_like(y).cumsum(3).sin())
        return y.detach(), gradient

    y, grad = run(x)
    for sample in range(shape[0]):
        alone = run(x[sample : sample + 1])
        assert torch.equal(y[sample : sample + 1], alone[0])
        assert torch.equal(grad[sample : sample + 1], alone[1])
