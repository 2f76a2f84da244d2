"""``conv_norm_act(algorithm="gemm")``: the same convolution as one matrix product (spec sections 2.2 and 11.1)."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
import torch
from conv_norm_act_case import GEOMETRIES, Case, Geometry, ours, plain, random_inputs, results
from op_testing import LAYOUTS, assert_as_exact_as_eager, channels_last, contiguous
from torch import nn

from torchp2p.models import define_D, define_G
from torchp2p.nn.conv_norm_act import convolved
from torchp2p.ops import _gemm_convolution, algorithm, conv_norm_act

CPU = torch.device("cpu")
DOWN, UP = Geometry(4, 2, 1), Geometry(4, 2, 1, transposed=True)
UNEVEN = (Geometry(3, 2, 0), Geometry(3, 3, 0), Geometry(2, 3, 1), Geometry(4, 1, 2), Geometry(3, 1, 2))


@pytest.mark.parametrize("geometry", [*GEOMETRIES, UP, *UNEVEN], ids=str)
@pytest.mark.parametrize("shape", [(1, 3, 4), (2, 7, 9)], ids=str)
@pytest.mark.parametrize("layout", [contiguous, channels_last], ids=lambda f: f.__name__)
def test_result_and_gradients_are_those_of_the_separate_layers_in_float64(geometry, shape, layout) -> None:
    case = Case(geometry, "none", "leaky_relu", bias=True)
    inputs = random_inputs(case, torch.float64, CPU, shape).laid_out(layout)
    found, expected = results(ours, case, inputs, algorithm="gemm"), results(plain, case, inputs)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("geometry", [Geometry(4, 1, 1), Geometry(4, 1, 2), Geometry(3, 1, 1, "reflect")], ids=str)
@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("layout", [contiguous, channels_last], ids=lambda f: f.__name__)
def test_a_convolution_to_fewer_channels_is_multiplied_the_other_way_round(geometry, outputs, layout) -> None:
    case = Case(geometry, "none", "leaky_relu", bias=True, inputs=6, outputs=outputs)
    inputs = random_inputs(case, torch.float64, CPU, (2, 7, 9)).laid_out(layout)
    found, expected = results(ours, case, inputs, algorithm="gemm"), results(plain, case, inputs)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("geometry", [DOWN, UP], ids=str)
def test_inputs_and_gradients_may_have_any_strides(geometry, layout) -> None:
    case = Case(geometry, "none", "none")
    inputs = random_inputs(case, torch.float64, CPU, (2, 6, 8))
    inputs = replace(inputs, x=layout(inputs.x), grad=layout(inputs.grad))
    found, expected = results(ours, case, inputs, algorithm="gemm"), results(plain, case, inputs)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    ("geometry", "size", "outputs"),
    [(DOWN, 2, 64), (DOWN, 4, 64), (DOWN, 16, 64), (UP, 1, 64), (UP, 2, 64), (UP, 8, 64), (Geometry(4, 1, 2), 18, 1)],
    ids=str,
)
def test_it_is_as_exact_as_eager(dtype, geometry, size, outputs) -> None:
    case = Case(geometry, "none", "none", bias=True, inputs=256, outputs=outputs)
    inputs = random_inputs(case, torch.float64, CPU, (1, size, size)).in_dtype(dtype)
    found, eager = results(ours, case, inputs, algorithm="gemm"), results(plain, case, inputs)
    oracle = results(plain, case, inputs.in_dtype(torch.float64))
    for name, exact in oracle.items():
        if exact is not None:
            assert_as_exact_as_eager(name, found[name], eager[name], exact)


def test_taps_that_meet_only_padding_have_a_gradient_of_exactly_0() -> None:
    case = Case(DOWN, "none", "none", inputs=8, outputs=8)
    inputs = random_inputs(case, torch.float32, CPU, (1, 2, 2))
    gradient = results(ours, case, inputs, algorithm="gemm")["grad_weight"]
    middle = gradient[:, :, 1:3, 1:3]
    assert middle.count_nonzero() == middle.numel() == gradient.count_nonzero()


@pytest.mark.parametrize("transposed", [False, True])
def test_the_channels_of_the_result_and_gradients_lie_as_the_vendors_do(transposed: bool) -> None:
    x, weight = torch.randn(2, 6, 4, 4), torch.randn(6, 6, 4, 4)
    for given in product((x, channels_last(x)), (weight, channels_last(weight))):
        strides = {}
        for name in ("vendor", "gemm"):
            leaves = [each.detach().requires_grad_() for each in given]
            raw = conv_norm_act(
                *leaves, stride=2, padding=1, transposed=transposed, norm="none", act="none", algorithm=name
            )
            _, grad_weight = torch.autograd.grad(raw.sum(), leaves)
            strides[name] = raw.stride(), grad_weight.stride()
        assert strides["gemm"][0] == strides["vendor"][0]
        assert strides["gemm"][1] == given[1].stride()


@pytest.mark.parametrize("transposed", [False, True])
def test_it_is_registered_as_torch_wants_it(transposed: bool) -> None:
    x, weight = (torch.randn(*shape, dtype=torch.float64) for shape in ((1, 4, 6, 8), (4, 4, 4, 4)))
    source = (x.requires_grad_(), *(None,) * 5, "none", 1e-5, "none", 0.2, 1)
    conv = ([2, 2], 1, "zeros", transposed, [0, 0])
    args = (*source, weight.requires_grad_(), None, *conv, 0, "gemm", "native")
    torch.library.opcheck(torch.ops.torchp2p.conv_norm_act.default, args)


@pytest.mark.parametrize("geometry", [DOWN, UP], ids=str)
def test_it_can_be_differentiated_twice(geometry: Geometry) -> None:
    x, weight = (torch.randn(*shape, dtype=torch.float64) for shape in ((1, 2, 4, 4), (2, 2, 4, 4)))

    def block(x, weight):
        return conv_norm_act(x, weight, act="tanh", algorithm="gemm", **geometry.options)

    inputs = (x.requires_grad_(), weight.requires_grad_())
    assert torch.autograd.gradcheck(block, inputs)
    assert torch.autograd.gradgradcheck(block, inputs)


def test_no_samples_are_no_convolution() -> None:
    y = conv_norm_act(torch.empty(0, 4, 6, 6), torch.randn(5, 4, 4, 4), stride=2, padding=1, algorithm="gemm")
    assert y.shape == (0, 5, 3, 3)


# --- when it is taken --------------------------------------------------------------------------------------


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of the weights that were multiplied so."""
    shapes, convolve = [], _gemm_convolution.convolve

    def recorded(x, weight, *rest):
        shapes.append(tuple(weight.shape))
        return convolve(x, weight, *rest)

    monkeypatch.setattr(_gemm_convolution, "convolve", recorded)
    return shapes


@pytest.mark.parametrize(
    ("channels", "size", "dtype", "options", "times"),
    [
        ((512, 256), (16, 16), torch.float32, {}, 1),
        ((512, 256), (16, 18), torch.float32, {}, 0),  # 72 pixels of the result
        ((512, 256), (16, 32), torch.bfloat16, {}, 1),
        ((512, 256), (16, 34), torch.bfloat16, {}, 0),
        ((512, 256), (8, 8), torch.float32, {"transposed": True}, 1),
        ((512, 256), (8, 9), torch.float32, {"transposed": True}, 0),
        ((512, 255), (16, 16), torch.float32, {}, 0),
        ((512, 256), (16, 16), torch.float64, {}, 0),
        ((512, 256), (16, 16), torch.float32, {"algorithm": "vendor"}, 0),
        ((4, 4), (16, 16), torch.float32, {"algorithm": "gemm"}, 1),
    ],
)
def test_unasked_it_is_taken_for_few_pixels_and_large_weights(channels, size, dtype, options, times, taken) -> None:
    inputs, outputs = channels
    pair = (inputs, outputs) if options.get("transposed") else (outputs, inputs)
    x, weight = torch.empty(1, inputs, *size, dtype=dtype), torch.empty(*pair, 4, 4, dtype=dtype)
    with torch.no_grad():
        conv_norm_act(x, weight, stride=2, padding=1, defer=True, **options)
    assert len(taken) == times


@pytest.mark.parametrize(
    ("shape", "options", "times"),
    [
        ((1, 64, 4, 4), {}, 1),
        ((2, 64, 4, 4), {}, 0),
        ((1, 63, 4, 4), {}, 0),
        ((1, 64, 1, 1), {}, 0),
        ((1, 64, 4, 4), {"stride": 2}, 0),
    ],
)
def test_unasked_it_is_taken_for_one_decision_from_many_features(shape, options, times, taken) -> None:
    conv_norm_act(torch.randn(1, shape[1], 9, 9), torch.randn(shape), norm="none", act="none", **options)
    assert len(taken) == times


def test_a_weight_in_another_layout_is_left_to_the_vendor(taken) -> None:
    conv_norm_act(torch.randn(1, 256, 4, 4), channels_last(torch.randn(512, 256, 4, 4)), stride=2, padding=1)
    assert not taken


# --- in networks -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unet() -> nn.Module:
    return define_G("unet_256", 3, 3).eval()


def test_the_middle_of_the_unet_is_multiplied_so_and_gives_the_same_image(unet, taken) -> None:
    x = torch.randn(1, 3, 256, 256)
    with torch.no_grad():
        found = unet(x)
        shapes = list(taken)
        with algorithm("vendor"):
            expected = unet(x)
    assert shapes == taken == [(512, 512, 4, 4)] * 5 + [(1024, 512, 4, 4)] * 3
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_hook_on_a_convolution_still_sees_it(unet, taken) -> None:
    seen = []
    inner = next(m for m in unet.modules() if isinstance(m, nn.ConvTranspose2d) and m.in_channels == 512)
    handle = inner.register_forward_hook(lambda module, args, result: seen.append(result.shape))
    with torch.no_grad():
        unet(torch.randn(1, 3, 256, 256))
    handle.remove()
    assert seen == [(1, 512, 2, 2)]
    assert len(taken) == 7


def test_discriminators_ask_for_the_algorithm_of_the_context(taken) -> None:
    judge = define_D("basic", 6, ndf=4)
    with algorithm("gemm"), torch.no_grad():
        judge(torch.randn(1, 6, 32, 32))
    assert len(taken) == 5


class Doubled(nn.Conv2d):
    """A convolution that is more than its class was."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    "conv",
    [
        Doubled(3, 4, 3),
        nn.Conv2d(3, 4, 3, dilation=2),
        nn.Conv2d(3, 3, 3, groups=3),
        nn.Conv2d(3, 4, 3, padding="same"),
        nn.Conv2d(3, 4, 3, padding=(1, 0)),
        nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"),
        nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)),
    ],
    ids=str,
)
def test_a_convolution_that_the_op_does_not_know_is_called_as_it_is(conv: nn.Conv2d) -> None:
    x = torch.randn(1, 3, 8, 8)
    assert torch.equal(convolved(conv, x), conv(x))
