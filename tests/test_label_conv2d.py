"""The mathematics of ``label_conv2d``: every backend against the dense convolution of one-hot labels in float64."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from label_conv2d_case import Case, Inputs, eager, magnitudes, oracle, ours, random_inputs
from op_testing import (
    DTYPES,
    HALF_DTYPES,
    LAYOUTS,
    assert_as_exact_as_eager,
    assert_same_vector,
    channels_last,
    leaf,
)
from PIL import Image

from torchp2p.data.demo import draw_scene
from torchp2p.ops import label_conv2d
from torchp2p.reference import label_conv2d as reference

OP = "label_conv2d"
ON_THE_GRID = True
CPU = torch.device("cpu")

GENERATOR = Case((7, 7), (1, 1), (3, 3), "reflect", classes=35, dense=1, out=64)
DISCRIMINATOR = Case((4, 4), (2, 2), (2, 2), "zeros", classes=35, dense=4, out=64)
WINDOWS = [
    *(Case(pad_mode=mode, labels="areas") for mode in ("zeros", "reflect", "replicate")),
    *(Case(pad_mode=mode, labels="noise") for mode in ("zeros", "reflect", "replicate")),
    replace(GENERATOR, size=(1, 12, 40)),
    replace(DISCRIMINATOR, size=(2, 13, 22)),
    replace(GENERATOR, size=(1, 9, 21), labels="noise", dense=0),
    Case((1, 1), (1, 1), (0, 0)),
    Case((1, 1), (3, 2), (0, 0), labels="noise"),
    Case((2, 5), (3, 1), (0, 2), dense=2),
    Case((5, 2), (1, 3), (2, 0), "replicate", labels="noise"),
    Case((3, 3), (4, 5), (1, 1), "zeros"),
    Case((9, 17), (1, 1), (4, 8), "reflect", size=(1, 11, 40)),  # wider than one table of intervals
    Case((2, 31), (1, 2), (0, 15), "zeros", size=(1, 3, 50), labels="noise"),
    Case((3, 37), (1, 1), (1, 18), "reflect", size=(1, 3, 40)),
    Case((3, 3), (2, 2), (3, 3), "zeros", size=(1, 4, 70), labels="one", bias=False),
    Case(classes=1, dense=0, out=1, labels="one"),
    Case(dense=0, bias=False),
    Case(dense=7, out=3),
    Case(ignore=True, labels="noise"),
    Case((4, 4), (2, 2), (2, 2), "zeros", ignore=True, dense=0),
]
every_window = pytest.mark.parametrize("case", WINDOWS, ids=str)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
either_layout = pytest.mark.parametrize("layout", [LAYOUTS["contiguous"], channels_last], ids=lambda f: f.__name__)
every_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())


def assert_exact(case: Case, inputs: Inputs, backend: str | None) -> None:
    found, exact, in_eager, sizes = (
        ours(case, inputs, backend),
        oracle(case, inputs),
        eager(case, inputs),
        magnitudes(case, inputs),
    )
    # In float64 the oracle is eager and rounds as much as we do.
    roundings = 4 if inputs.weight.dtype == torch.float64 else 1
    for name, value in exact.items():
        assert_as_exact_as_eager(name, found[name], in_eager[name], value, roundings * sizes[name])


def dense_laid_out(inputs: Inputs, layout) -> Inputs:
    return replace(inputs, dense=None if inputs.dense is None else layout(inputs.dense), grad_y=layout(inputs.grad_y))


# --- the definition --------------------------------------------------------------------------------------


@every_window
def test_the_reference_is_the_dense_convolution_of_one_hot_labels_in_float64(case):
    inputs = random_inputs(case, torch.float64, CPU)
    for name, value in eager(case, inputs).items():
        torch.testing.assert_close(ours(case, inputs, "reference")[name], value, rtol=1e-12, atol=1e-12)


@every_window
def test_the_gradients_of_the_reference_are_the_derivative_of_its_forward(case):
    inputs = random_inputs(case, torch.float64, CPU)
    tensors = [leaf(inputs.weight), leaf(inputs.bias), leaf(inputs.dense)]
    options = (case.stride, case.padding, case.pad_mode)
    y = reference.label_conv2d(inputs.labels, *tensors, *options)
    grads = reference.label_conv2d_backward(inputs.grad_y, inputs.labels, *tensors, *options, [True] * 3)
    there = [(tensor, grad) for tensor, grad in zip(tensors, grads, strict=True) if tensor is not None]
    derived = torch.autograd.grad(y, [tensor for tensor, _ in there], inputs.grad_y)
    for (_, grad), expected in zip(there, derived, strict=True):
        torch.testing.assert_close(grad, expected, rtol=1e-12, atol=1e-12)


# --- against the oracle ----------------------------------------------------------------------------------


@pytest.mark.interpreted(one_in=30)
@either_layout
@every_dtype
@every_window
def test_result_and_gradients_match_the_float64_oracle(case, dtype, layout, backend, device):
    assert_exact(case, dense_laid_out(random_inputs(case, dtype, device), layout), backend)


@pytest.mark.interpreted(one_in=0)
@pytest.mark.parametrize("case", [GENERATOR, DISCRIMINATOR, replace(GENERATOR, labels="noise")], ids=str)
def test_sums_over_many_pixels_are_as_exact_as_eagers(case, backend, device):
    case = replace(case, size=(1, 50, 100))
    inputs = random_inputs(case, torch.float32, device)
    found, in_eager, exact = ours(case, inputs, backend), eager(case, inputs), oracle(case, inputs)
    for name, value in exact.items():
        distance, eagers = ((side[name].double() - value).norm() / value.norm() for side in (found, in_eager))
        assert distance <= 2 * eagers + torch.finfo(torch.float32).eps, name


@pytest.mark.interpreted(one_in=0)
@pytest.mark.parametrize("dtype", HALF_DTYPES, ids=str)
def test_half_precision_rounds_once(dtype, backend, device):
    case = replace(GENERATOR, size=(1, 20, 30))
    inputs = random_inputs(case, dtype, device)
    found, exact = ours(case, inputs, backend), oracle(case, inputs)
    for name, value in exact.items():
        assert_same_vector(name, found[name], value)


@pytest.mark.interpreted(one_in=0)
@pytest.mark.parametrize("dtype", HALF_DTYPES, ids=str)
def test_a_half_precision_weight_takes_a_float32_bias(dtype, backend, device):
    case = Case()
    inputs = random_inputs(case, dtype, device, vectors=torch.float32)
    found = ours(case, inputs, backend)
    assert found["y"].dtype == dtype
    assert found["grad_bias"].dtype == torch.float32
    exact = oracle(case, inputs)
    torch.testing.assert_close(found["grad_bias"].double(), exact["grad_bias"], rtol=1e-5, atol=1e-4)
    assert_same_vector("y", found["y"], exact["y"])


@pytest.mark.interpreted(one_in=0)
@pytest.mark.parametrize(
    "labels_dtype",
    [getattr(torch, f"{sign}int{bits}") for bits in (8, 16, 32, 64) for sign in ("", "u")],
    ids=str,
)
def test_labels_may_have_any_integer_dtype(labels_dtype, backend, device):
    case = Case(labels="noise")
    inputs = random_inputs(case, torch.float32, device)
    expected = ours(case, inputs, backend)
    found = ours(case, replace(inputs, labels=inputs.labels.to(labels_dtype)), backend)
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_labels_may_come_without_a_channel(backend, device):
    inputs = random_inputs(Case(), torch.float32, device)
    found = label_conv2d(inputs.labels[:, 0], inputs.weight, inputs.bias, dense=inputs.dense, backend=backend)
    expected = label_conv2d(inputs.labels, inputs.weight, inputs.bias, dense=inputs.dense, backend=backend)
    assert torch.equal(found, expected)


@pytest.mark.interpreted(one_in=18)
@pytest.mark.parametrize("out", [1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 100, 130])
@either_layout
def test_any_number_of_output_channels_fills_and_leaves_registers_alike(layout, out, backend, device):
    case = Case(out=out, dense=2)
    assert_exact(case, dense_laid_out(random_inputs(case, torch.float32, device), layout), backend)


@pytest.mark.interpreted(one_in=15)
@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100])
@pytest.mark.parametrize("stride", [1, 2])
def test_any_width_fills_and_leaves_registers_alike(stride, width, backend, device):
    case = Case(stride=(1, stride), pad_mode="zeros", size=(1, 3, width), labels="noise")
    assert_exact(case, random_inputs(case, torch.float32, device), backend)


@pytest.mark.interpreted(one_in=0)
@pytest.mark.parametrize("pad_mode", ["reflect", "replicate", "zeros"])
@pytest.mark.parametrize("size", [(4, 4), (4, 17), (5, 6), (33, 4)], ids=lambda s: "x".join(map(str, s)))
def test_borders_up_to_the_size_of_the_image_less_one(size, pad_mode, backend, device):
    case = Case((7, 7), (1, 1), (3, 3), pad_mode, size=(1, *size), labels="noise", dense=2)
    assert_exact(case, random_inputs(case, torch.float32, device), backend)


@pytest.mark.interpreted(one_in=0)
@pytest.mark.parametrize("pad_mode", ["replicate", "zeros"])
def test_a_border_may_be_wider_than_the_image(pad_mode, backend, device):
    case = Case(padding=(5, 6), pad_mode=pad_mode, size=(1, 2, 3))
    assert_exact(case, random_inputs(case, torch.float32, device), backend)


@pytest.mark.interpreted(one_in=0)
def test_samples_do_not_mix(backend, device):
    case = Case((5, 5), (1, 1), (2, 2), size=(3, 6, 40))
    inputs = random_inputs(case, torch.float32, device)
    whole = ours(case, inputs, backend)
    for n in range(3):
        one = replace(
            inputs, labels=inputs.labels[n : n + 1], dense=inputs.dense[n : n + 1], grad_y=inputs.grad_y[n : n + 1]
        )
        alone = ours(replace(case, size=(1, 6, 40)), one, backend)
        torch.testing.assert_close(whole["y"][n : n + 1], alone["y"], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(whole["grad_dense"][n : n + 1], alone["grad_dense"], rtol=1e-5, atol=1e-5)


# --- real images -----------------------------------------------------------------------------------------


@pytest.mark.interpreted(one_in=0)
@pytest.mark.parametrize("case", [GENERATOR, DISCRIMINATOR], ids=str)
def test_a_drawn_street_scene_is_convolved_as_its_one_hot_channels(case, backend, device):
    labels = torch.from_numpy(draw_scene((64, 96), 3).label.astype(np.int64))[None, None].to(device)
    case = replace(case, size=(1, 64, 96))
    assert_exact(case, replace(random_inputs(case, torch.float32, device), labels=labels), backend)


@pytest.mark.cityscapes
def test_a_label_map_of_cityscapes_is_convolved_as_its_one_hot_channels(cityscapes, device):
    path = sorted((cityscapes / "train_label").glob("*.png"))[0]
    with Image.open(path) as image:
        labels = torch.from_numpy(np.array(image.resize((128, 64), Image.Resampling.NEAREST)))[None, None].to(device)
    case = replace(GENERATOR, size=(1, 64, 128))
    inputs = replace(random_inputs(case, torch.float32, device), labels=labels)
    assert_exact(case, inputs, None)


# --- memory ----------------------------------------------------------------------------------------------


@pytest.mark.interpreted(one_in=0)
@every_layout
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("stride", [1, 2])
def test_dense_channels_may_lie_in_memory_in_any_way(stride, dtype, layout, backend, device):
    case = Case(stride=(stride, stride), dense=3)
    inputs = random_inputs(case, dtype, device)
    assert_exact(case, replace(inputs, dense=layout(inputs.dense)), backend)


@pytest.mark.interpreted(one_in=0)
@every_layout
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("stride", [1, 2])
def test_the_incoming_gradient_may_lie_in_memory_in_any_way(stride, dtype, layout, backend, device):
    case = Case(stride=(stride, stride), dense=2, size=(2, 9, 40))
    inputs = random_inputs(case, dtype, device)
    assert_exact(case, replace(inputs, grad_y=layout(inputs.grad_y)), backend)


@pytest.mark.interpreted(one_in=20)
@every_layout
def test_labels_may_lie_in_memory_in_any_way(layout, backend, device):
    inputs = random_inputs(Case(), torch.float32, device)
    # The fillers that the layouts put around them do not fit into a byte.
    assert_exact(Case(), replace(inputs, labels=layout(inputs.labels.int())), backend)


@pytest.mark.interpreted(one_in=20)
@every_layout
def test_the_weight_may_lie_in_memory_in_any_way(layout, backend, device):
    case = Case((4, 3), (1, 1), (2, 1), dense=2)
    inputs = random_inputs(case, torch.float32, device)
    assert_exact(case, replace(inputs, weight=layout(inputs.weight)), backend)


def test_a_bias_may_be_a_slice(backend, device):
    inputs = random_inputs(Case(), torch.float32, device)
    bias = torch.randn(2 * len(inputs.bias), device=device)[::2]
    assert_exact(Case(), replace(inputs, bias=bias), backend)


# --- hard numbers ----------------------------------------------------------------------------------------


@pytest.mark.interpreted(one_in=0)
def test_a_channel_of_zeros_and_ones_is_an_exact_sum_of_weights(backend, device):
    """Small integers are exact in float32, whatever the order of the sum."""
    case = replace(GENERATOR, size=(1, 30, 60))
    inputs = random_inputs(case, torch.float32, device)
    whole = {name: getattr(inputs, name).mul(4).round() for name in ("weight", "bias", "dense", "grad_y")}
    inputs = replace(inputs, **whole)
    found, exact = ours(case, inputs, backend), oracle(case, inputs)
    for name, value in exact.items():
        assert torch.equal(found[name].double(), value), name


@pytest.mark.interpreted(one_in=2)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_spoils_what_sees_it(bad, backend, device):
    case = Case((3, 3), (1, 1), (1, 1), "zeros", size=(1, 9, 40))
    inputs = random_inputs(case, torch.float32, device)
    inputs.dense[0, 0, 4, 20] = bad
    found, expected = ours(case, inputs, backend)["y"], eager(case, inputs)["y"]
    assert torch.equal(found.isfinite(), expected.isfinite())
    seen = torch.zeros(9, 40, dtype=torch.bool)
    seen[3:6, 19:22] = True
    assert torch.equal(~found[0, 0].isfinite().cpu(), seen)


def test_the_weight_of_an_id_that_does_not_occur_is_not_read(device):
    inputs = random_inputs(Case(dense=0, labels="one"), torch.float32, device)
    spoiled = inputs.weight.clone()
    spoiled[:, 0] = float("nan")
    found = label_conv2d(inputs.labels, spoiled, backend="native" if device.type == "cpu" else None)
    assert torch.equal(found, label_conv2d(inputs.labels, inputs.weight))


@pytest.mark.interpreted(one_in=0)
@pytest.mark.parametrize("large", [1e4, 1e-6])
def test_large_terms_that_cancel_lose_no_more_than_in_eager(large, backend, device):
    case = replace(GENERATOR, size=(1, 20, 40), labels="noise")
    inputs = random_inputs(case, torch.float32, device)
    sign = torch.where(torch.arange(7) % 2 == 0, large, -large).to(device)
    assert_exact(case, replace(inputs, weight=inputs.weight + sign), backend)


# --- sizes of nothing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("out", [0, 3])
@pytest.mark.parametrize("samples", [0, 2])
def test_no_samples_or_no_output_channels_give_nothing(samples, out, backend, device):
    labels = torch.zeros(samples, 1, 4, 5, dtype=torch.uint8, device=device)
    weight = torch.randn(out, 7, 3, 3, device=device, requires_grad=True)
    bias, dense = torch.randn(out, device=device, requires_grad=True), torch.randn(samples, 2, 4, 5, device=device)
    dense.requires_grad_()
    y = label_conv2d(labels, weight, bias, dense=dense, padding=1, pad_mode="reflect", backend=backend)
    assert y.shape == (samples, out, 4, 5)
    y.sum().backward()
    assert weight.grad.shape == weight.shape
    assert dense.grad.shape == dense.shape
    if samples == 0:
        assert not weight.grad.any()
        assert not bias.grad.any()


def test_a_border_around_nothing_gives_the_bias(backend, device):
    labels = torch.zeros(1, 1, 0, 3, dtype=torch.uint8, device=device)
    weight, bias = torch.randn(2, 4, 3, 3, device=device), torch.randn(2, device=device)
    y = label_conv2d(labels, weight, bias, padding=2, backend=backend)
    assert torch.equal(y, bias.view(1, 2, 1, 1).expand(1, 2, 2, 5))


def test_one_pixel_is_one_vector_of_weights(backend, device):
    weight = torch.randn(6, 4, 1, 1, device=device)
    y = label_conv2d(torch.tensor([[[[2]]]], device=device), weight, backend=backend)
    assert torch.equal(y[0, :, 0, 0], weight[:, 2, 0, 0])


# --- backends agree --------------------------------------------------------------------------------------


def test_the_compiled_reference_gives_the_same_numbers(device):
    case = Case(dense=2)
    assert_exact(case, random_inputs(case, torch.float32, device), "compile")
