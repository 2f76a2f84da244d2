"""``conv_norm_act(algorithm="phased")``: the convolution to the few channels of an image (spec sections 2.4, 11.1)."""

from __future__ import annotations

import pytest
import torch
from conv_norm_act_case import REFLECT, Case, Geometry, ours, plain, random_inputs, results
from op_testing import LAYOUTS, assert_as_exact_as_eager, channels_last, contiguous

from torchp2p.models import GlobalGenerator
from torchp2p.ops import BackendUnavailableError, _phased_convolution, algorithm, conv_norm_act

CPU = torch.device("cpu")
HEAD = Geometry(7, 1, 3, "reflect")


@pytest.mark.parametrize("geometry", [HEAD, REFLECT, Geometry(7, 1, 3), Geometry(2, 1, 1), Geometry(1, 1, 0)], ids=str)
@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("layout", [contiguous, channels_last], ids=lambda f: f.__name__)
def test_result_and_gradients_are_those_of_the_separate_layers_in_float64(geometry, samples, layout) -> None:
    case = Case(geometry, "none", "tanh", bias=True, inputs=5, outputs=3)
    odd = geometry.kernel == 2  # whose result has one pixel more
    inputs = random_inputs(case, torch.float64, CPU, (samples, 8 - odd, 10 - odd)).laid_out(layout)
    found, expected = results(ours, case, inputs, algorithm="phased"), results(plain, case, inputs)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_inputs_and_gradients_may_have_any_strides(layout) -> None:
    case = Case(Geometry(3, 1, 1), "none", "none", inputs=6, outputs=2)
    inputs = random_inputs(case, torch.float64, CPU, (2, 6, 8)).laid_out(layout)
    found, expected = results(ours, case, inputs, algorithm="phased"), results(plain, case, inputs)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("layout", [contiguous, channels_last], ids=lambda f: f.__name__)
def test_it_is_as_exact_as_eager(dtype, layout) -> None:
    case = Case(HEAD, "none", "none", bias=True, inputs=64, outputs=3)
    inputs = random_inputs(case, torch.float64, CPU, (1, 32, 48)).laid_out(layout).in_dtype(dtype)
    found, eager = results(ours, case, inputs, algorithm="phased"), results(plain, case, inputs)
    oracle = results(plain, case, inputs.in_dtype(torch.float64))
    for name, exact in oracle.items():
        if exact is not None:
            assert_as_exact_as_eager(name, found[name], eager[name], exact)


def test_it_is_registered_as_torch_wants_it() -> None:
    x, weight = (torch.randn(*shape, dtype=torch.float64) for shape in ((1, 4, 6, 8), (3, 4, 3, 3)))
    source = (x.requires_grad_(), *(None,) * 5, "none", 1e-5, "none", 0.2, 1)
    args = (*source, weight.requires_grad_(), None, [1, 1], 1, "zeros", False, [0, 0], 0, "phased", "native")
    torch.library.opcheck(torch.ops.torchp2p.conv_norm_act.default, args)


def test_it_can_be_differentiated_twice() -> None:
    x, weight = (torch.randn(*shape, dtype=torch.float64) for shape in ((1, 2, 4, 4), (2, 2, 3, 3)))

    def block(x, weight):
        return conv_norm_act(x, weight, padding=1, norm="none", act="tanh", algorithm="phased")

    inputs = (x.requires_grad_(), weight.requires_grad_())
    assert torch.autograd.gradcheck(block, inputs)
    assert torch.autograd.gradgradcheck(block, inputs)


@pytest.mark.parametrize(
    ("size", "options", "reason"),
    [
        ((7, 8), {"padding": 1}, "results of even height and width, not 7x8"),
        ((8, 8), {"padding": 1, "stride": 2}, "stride 1 and padding less than the kernel"),
        ((8, 8), {"padding": 3}, "stride 1 and padding less than the kernel"),
        ((8, 8), {"padding": 1, "transposed": True}, "stride 1 and padding less than the kernel"),
    ],
)
def test_asked_for_where_it_cannot_be_had_it_says_why(size, options, reason) -> None:
    with pytest.raises(BackendUnavailableError, match=f"algorithm 'phased' cannot run: .*{reason}"):
        conv_norm_act(torch.randn(1, 3, *size), torch.randn(3, 3, 3, 3), algorithm="phased", **options)


# --- when it is taken --------------------------------------------------------------------------------------


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of the weights that were used so."""
    shapes, convolve = [], _phased_convolution.convolve

    def recorded(x, weight, *rest):
        shapes.append(tuple(weight.shape))
        return convolve(x, weight, *rest)

    monkeypatch.setattr(_phased_convolution, "convolve", recorded)
    return shapes


@pytest.mark.parametrize(
    ("shape", "size", "dtype", "times"),
    [
        ((3, 64, 7, 7), (8, 8), torch.float32, 1),
        ((3, 64, 7, 7), (8, 8), torch.bfloat16, 1),
        ((3, 64, 7, 7), (8, 8), torch.float64, 0),
        ((3, 64, 7, 7), (8, 9), torch.float32, 0),  # an odd width
        ((4, 16, 3, 3), (8, 8), torch.float32, 1),
        ((5, 64, 7, 7), (8, 8), torch.float32, 0),
        ((3, 15, 7, 7), (8, 8), torch.float32, 0),
        ((3, 64, 1, 1), (8, 8), torch.float32, 0),
    ],
)
def test_unasked_it_is_taken_for_results_of_few_channels(shape, size, dtype, times, taken) -> None:
    x, weight = torch.randn(1, shape[1], *size).to(dtype), torch.randn(shape).to(dtype)
    conv_norm_act(x, weight, padding=shape[2] // 2, norm="none", act="tanh")
    assert len(taken) == times


def test_the_head_of_a_generator_is_done_so_and_gives_the_same_image(taken) -> None:
    net, x = GlobalGenerator(3, 3, ngf=16, n_downsample_global=1, n_blocks_global=1), torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        found = net(x)
        assert taken == [(3, 16, 7, 7)]
        with algorithm("vendor"):
            expected = net(x)
    assert taken == [(3, 16, 7, 7)]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
