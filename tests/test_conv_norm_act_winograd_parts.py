"""``algorithm="winograd"`` for 4x4 kernels, and for strides of 2: four parts of 2x2 taps (spec 11.1)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from conv_norm_act_case import Case, Geometry, ours, plain, random_inputs, results
from op_testing import LAYOUTS, channels_last, contiguous

from torchp2p.ops import _winograd, conv_norm_act
from torchp2p.reference import conv_norm_act as reference
from torchp2p.reference.conv_norm_act import Convolution

CPU = torch.device("cpu")
OF_U_NET, OF_DISCRIMINATOR, DOWN = Geometry(4, 2, 1), Geometry(4, 1, 1), Geometry(3, 2, 1)
OF_U_NET_UP, UP = Geometry(4, 2, 1, transposed=True), Geometry(3, 2, 1, transposed=True, output_padding=1)
OF_NETWORKS = (OF_U_NET, OF_DISCRIMINATOR, DOWN, OF_U_NET_UP, UP)
GEOMETRIES = (
    *OF_NETWORKS,
    *(Geometry(4, stride, padding) for stride in (1, 2) for padding in (0, 2)),
    Geometry(3, 2, 0),
    Geometry(3, 2, 2),
    Geometry(4, 2, 1, "reflect"),
    Geometry(3, 2, 1, transposed=True),
    Geometry(4, 2, 0, transposed=True, output_padding=1),
    Geometry(4, 2, 2, transposed=True),
)
SAMPLES_OF_SIZES = [(1, 5, 5), (2, 7, 9), (1, 8, 12), (3, 6, 5)]

of_networks = pytest.mark.parametrize("geometry", OF_NETWORKS, ids=str)


@pytest.mark.parametrize("shape", SAMPLES_OF_SIZES, ids=str)
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("layout", [contiguous, channels_last], ids=lambda f: f.__name__)
def test_result_and_gradients_are_those_of_the_separate_layers_in_float64(shape, geometry, layout) -> None:
    case = Case(geometry, "none", "leaky_relu", bias=True, inputs=5, outputs=19)
    inputs = random_inputs(case, torch.float64, CPU, shape).laid_out(layout)
    found, expected = results(ours, case, inputs, algorithm="winograd"), results(plain, case, inputs)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@of_networks
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_inputs_and_gradients_may_have_any_strides(geometry, layout) -> None:
    case = Case(geometry, "none", "none", inputs=6, outputs=7)
    inputs = random_inputs(case, torch.float64, CPU, (2, 6, 8))
    inputs = replace(inputs, x=layout(inputs.x), grad=layout(inputs.grad))
    found, expected = results(ours, case, inputs, algorithm="winograd"), results(plain, case, inputs)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@of_networks
def test_weights_may_lie_as_channels_last(geometry) -> None:
    case = Case(geometry, "none", "none", inputs=18, outputs=34)
    inputs = random_inputs(case, torch.float64, CPU, (1, 6, 8))
    weight = inputs.tensors["weight"]
    inputs = replace(inputs, tensors={**inputs.tensors, "weight": channels_last(weight)})
    found, expected = results(ours, case, inputs, algorithm="winograd"), results(plain, case, inputs)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@of_networks
def test_rows_of_tiles_may_be_taken_in_chunks(geometry) -> None:
    """Of both samples, and of the frequencies from which the gradient of the weight is made."""
    case = Case(geometry, "none", "none", inputs=33, outputs=35)
    inputs = random_inputs(case, torch.float64, CPU, (2, 122, 130))
    found, expected = results(ours, case, inputs, algorithm="winograd"), results(plain, case, inputs)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def errors(algorithm: str, geometry: Geometry, x, grad, weight) -> list[float]:
    """Root mean square errors of the result and of the gradients of x and weight, in units of its values'."""
    conv = Convolution([geometry.stride] * 2, geometry.padding, "zeros", geometry.transposed, [0, 0])
    conv = conv._replace(output_padding=[geometry.output_padding] * 2)
    needs = (True, True, False)
    doubles = [each.double() for each in (grad, x, weight)]
    oracle = (reference.convolve(*doubles[1:], None, conv), *reference.convolve_backward(*doubles, conv, needs)[:2])
    if algorithm == "winograd":
        found = (
            _winograd.convolve(x, weight, None, conv),
            *_winograd.convolve_backward(grad, x, weight, conv, needs)[:2],
        )
    else:
        weight = weight.to(x.dtype)
        found = (
            reference.convolve(x, weight, None, conv),
            *reference.convolve_backward(grad, x, weight, conv, needs)[:2],
        )
    return [
        ((each.double() - exact).square().mean() / exact.square().mean()).sqrt().item()
        for each, exact in zip(found, oracle, strict=True)
    ]


@of_networks
@pytest.mark.parametrize("mean", [0.0, 1000.0])
def test_it_is_as_exact_as_eager(geometry, mean) -> None:
    shape = (70, 90) if geometry.transposed else (90, 70)
    weight = torch.randn(*shape, geometry.kernel, geometry.kernel) / 30
    x = mean + torch.randn(1, 70, 24, 26)
    y = conv_norm_act(x, weight, norm="none", act="none", **geometry.options)
    case = (geometry, x, torch.randn_like(y), weight)
    for found, eager in zip(errors("winograd", *case), errors("vendor", *case), strict=True):
        assert found <= 2 * eager


@of_networks
def test_in_bfloat16_weights_of_float32_are_rounded_once(geometry) -> None:
    shape = (70, 90) if geometry.transposed else (90, 70)
    weight = torch.randn(*shape, geometry.kernel, geometry.kernel) / 30
    x = torch.randn(1, 70, 24, 26).bfloat16()
    y = conv_norm_act(x.float(), weight, norm="none", act="none", **geometry.options)
    case = (geometry, x, torch.randn_like(y).bfloat16(), weight)
    for found, eager in zip(errors("winograd", *case), errors("vendor", *case), strict=True):
        assert found <= 2 * eager


@of_networks
@pytest.mark.parametrize("shape", [(1, 24, 26), (2, 9, 7)], ids=str)
def test_in_bfloat16_gradients_of_float32_weights_are_not_rounded(geometry, shape) -> None:
    weight = torch.randn(*((33, 47) if geometry.transposed else (47, 33)), geometry.kernel, geometry.kernel)
    x = torch.randn(shape[0], 33, *shape[1:]).bfloat16()
    y = conv_norm_act(x.float(), weight, norm="none", act="none", **geometry.options)
    of_weight = errors("winograd", geometry, x, torch.randn_like(y).bfloat16(), weight)[2]
    assert of_weight < 1e-6


@of_networks
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_gives_the_same_bits_for_any_number_of_threads(geometry, dtype: torch.dtype) -> None:
    case = Case(geometry, "none", "none", inputs=40, outputs=72)
    inputs = random_inputs(case, dtype, CPU, (2, 22, 24))
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(results(ours, case, inputs, algorithm="winograd"))
    for name, first in found[0].items():
        if first is not None:
            assert all(torch.equal(other[name], first) for other in found[1:])


@of_networks
def test_it_can_be_differentiated_twice(geometry) -> None:
    x, weight = (torch.randn(*shape, dtype=torch.float64) for shape in ((1, 2, 5, 4), (2, 2, *[geometry.kernel] * 2)))

    def block(x, weight):
        return conv_norm_act(x, weight, norm="none", act="tanh", algorithm="winograd", **geometry.options)

    inputs = (x.requires_grad_(), weight.requires_grad_())
    assert torch.autograd.gradcheck(block, inputs)
    assert torch.autograd.gradgradcheck(block, inputs)


@pytest.mark.parametrize(
    ("geometry", "channels", "size", "dtype", "taken"),
    [
        (OF_U_NET, (64, 64), (32, 32), torch.float32, True),  # 6 x 6 tiles
        (OF_U_NET, (64, 63), (32, 32), torch.float32, False),
        (OF_U_NET, (63, 64), (32, 32), torch.float32, False),
        (OF_U_NET, (64, 64), (30, 30), torch.float32, False),  # 5 x 5
        (OF_U_NET, (64, 64), (32, 32), torch.float64, False),
        (OF_DISCRIMINATOR, (64, 64), (19, 17), torch.float32, True),
        (OF_U_NET_UP, (64, 64), (16, 16), torch.float32, True),
        (OF_U_NET_UP, (64, 64), (15, 15), torch.float32, False),
        (DOWN, (64, 64), (32, 32), torch.float32, True),
        (UP, (64, 64), (16, 16), torch.float32, True),
    ],
    ids=str,
)
def test_unasked_it_is_taken_where_it_is_faster_and_as_exact(geometry, channels, size, dtype, taken) -> None:
    (inputs, outputs), kernel = channels, geometry.kernel
    shape = (inputs, outputs) if geometry.transposed else (outputs, inputs)
    x, weight = torch.empty(1, inputs, *size, dtype=dtype), torch.empty(*shape, kernel, kernel, dtype=dtype)
    conv = Convolution([geometry.stride] * 2, geometry.padding, "zeros", geometry.transposed, [0, 0])
    assert _winograd.pays(x, weight, conv) == taken


@pytest.mark.parametrize(("size", "taken"), [((30, 30), False), ((32, 32), True)])
def test_in_bfloat16_as_many_tiles_are_enough(size, taken, monkeypatch) -> None:
    monkeypatch.setattr(_winograd._native.C, "cpu_multiplies_bfloat16", lambda: True)
    x, weight = torch.empty(1, 64, *size).bfloat16(), torch.empty(64, 64, 3, 3)
    assert _winograd.pays(x, weight, Convolution([2, 2], 1, "zeros", False, [0, 0])) == taken
