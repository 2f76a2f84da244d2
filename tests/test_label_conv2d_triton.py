"""The Triton kernels of ``label_conv2d`` in tiles so small that tiny images reach every branch of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from label_conv2d_case import Case, eager, magnitudes, oracle, ours, random_inputs
from op_testing import LAYOUTS, assert_as_exact_as_eager, channels_last

from torchp2p.kernels import _label_conv2d_dense, _label_conv2d_weight
from torchp2p.kernels import label_conv2d as kernels
from torchp2p.ops import label_conv2d

contiguous = LAYOUTS["contiguous"]


@pytest.fixture(autouse=True)
def tiny_tiles(monkeypatch):
    """8 pixels, 4 channels of either kind, and splits of several tiles."""
    monkeypatch.setattr(kernels, "_TILE", 32)
    for module, constants in (
        (kernels, {"_OUTPUTS": 4}),
        (_label_conv2d_weight, {"_OUTPUTS": 4, "_INPUTS": 4, "_PIXELS": 8, "_PROGRAMS": 30}),
        (_label_conv2d_dense, {"_OUTPUTS": 4, "_CHANNELS": 2, "_PIXELS": 8, "_FOLDED": 16}),
    ):
        for name, value in constants.items():
            monkeypatch.setattr(module, name, value)


SMALL = Case((2, 3), classes=5, dense=1, out=3, size=(1, 4, 5))
CALLS = [
    (SMALL, torch.float32, contiguous),
    (replace(SMALL, out=5, labels="noise", size=(2, 3, 4)), torch.bfloat16, channels_last),
    (replace(SMALL, pad_mode="replicate", padding=(1, 2), dense=3), torch.float64, contiguous),
    (replace(SMALL, pad_mode="replicate", padding=(3, 0), size=(1, 2, 4)), torch.float32, channels_last),
    (replace(SMALL, pad_mode="zeros", stride=(2, 1), kernel=(3, 2), dense=2), torch.float16, channels_last),
    (replace(SMALL, pad_mode="zeros", stride=(1, 3), padding=(0, 2)), torch.float32, contiguous),
    (replace(SMALL, padding=(3, 4), kernel=(1, 2)), torch.float32, contiguous),
    (replace(SMALL, out=16, dense=2, kernel=(1, 2), size=(1, 3, 3)), torch.float32, channels_last),  # aligned rows
    (replace(SMALL, padding=(0, 1), size=(2, 3, 3)), torch.bfloat16, contiguous),
    (replace(SMALL, dense=0, bias=False, ignore=True, labels="noise"), torch.float32, contiguous),
    (Case((1, 1), (1, 1), (0, 0), classes=1, dense=0, out=1, size=(1, 1, 1)), torch.float64, contiguous),
]


@pytest.mark.parametrize(("case", "dtype", "layout"), CALLS, ids=lambda value: getattr(value, "__name__", str(value)))
def test_result_and_gradients_match_the_float64_oracle(case, dtype, layout, device):
    inputs = random_inputs(case, dtype, device)
    dense = None if inputs.dense is None else layout(inputs.dense)
    inputs = replace(inputs, dense=dense, grad_y=layout(inputs.grad_y))
    found, exact, in_eager, sizes = (
        ours(case, inputs, "triton"),
        oracle(case, inputs),
        eager(case, inputs),
        magnitudes(case, inputs),
    )
    for name, value in exact.items():
        assert_as_exact_as_eager(name, found[name], in_eager[name], value, 4 * sizes[name])


@pytest.mark.parametrize("layout", [LAYOUTS["cropped"], LAYOUTS["channel_slice_channels_last"], LAYOUTS["expanded"]])
def test_dense_channels_and_gradients_may_be_views_and_results_are_dense_like_them(layout, device):
    case = replace(SMALL, dense=2, size=(2, 3, 3))
    inputs = random_inputs(case, torch.float64, device)
    inputs = replace(inputs, dense=layout(inputs.dense), grad_y=layout(inputs.grad_y))
    found, exact = ours(case, inputs, "triton"), oracle(case, inputs)
    for name, value in exact.items():
        torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-12)
    dense_as = channels_last if "channels_last" in layout.__name__ else contiguous
    for name in ("y", "grad_dense"):
        assert found[name].stride() == dense_as(found[name]).stride(), name


@pytest.mark.parametrize(
    "dtype", [getattr(torch, f"{s}int{bits}") for bits in (8, 16, 32, 64) for s in ("", "u")], ids=str
)
def test_labels_may_be_any_integers(dtype, device):
    weight, ids = torch.randn(3, 5, 1, 2, device=device), torch.randint(5, (1, 1, 2, 4), device=device)
    labels = torch.where(ids == 4, -1, ids).to(dtype)  # of unsigned integers the largest
    found = label_conv2d(labels, weight, ignore_out_of_range=True, backend="triton")
    weight[:, 4] = 0
    torch.testing.assert_close(found, label_conv2d(ids, weight, backend="reference"))


def test_a_half_precision_weight_takes_a_float32_bias(device):
    inputs = random_inputs(SMALL, torch.bfloat16, device, vectors=torch.float32)
    found, exact = ours(SMALL, inputs, "triton"), oracle(SMALL, inputs)
    assert found["grad_bias"].dtype == torch.float32
    torch.testing.assert_close(found["grad_bias"].double(), exact["grad_bias"], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found["y"], exact["y"].bfloat16())


def test_the_weight_of_an_id_that_does_not_occur_is_not_read(device):
    weight, labels = torch.randn(3, 2, 2, 2, device=device), torch.zeros(1, 1, 3, 3, dtype=torch.uint8, device=device)
    expected = label_conv2d(labels, weight, backend="triton")
    weight[:, 1] = float("nan")
    assert torch.equal(label_conv2d(labels, weight, backend="triton"), expected)


def test_the_operators_are_registered_as_torch_wants_them(device):
    case = replace(SMALL, size=(1, 3, 4), out=2)
    inputs = random_inputs(case, torch.float32, device)
    arguments = (inputs.labels, inputs.weight, inputs.bias, inputs.dense, [1, 1], [1, 1], "reflect")
    forward, backward = torch.ops.torchp2p.label_conv2d.default, torch.ops.torchp2p.label_conv2d_backward.default
    torch.library.opcheck(forward, (*arguments, False, "triton"))
    torch.library.opcheck(backward, (channels_last(inputs.grad_y), *arguments, [True] * 3, "triton"))
