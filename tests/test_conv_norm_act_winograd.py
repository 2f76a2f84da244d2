"""``conv_norm_act(algorithm="winograd")``: the same convolution by fewer multiplications (spec section 11.1)."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from conv_norm_act_case import REFLECT, Case, Geometry, ours, plain, random_inputs, results
from op_testing import LAYOUTS, assert_as_exact_as_eager, channels_last, contiguous, largest_error

from torchp2p.ops import BackendUnavailableError, _winograd, algorithm, conv_norm_act
from torchp2p.reference import conv_norm_act as reference
from torchp2p.reference.conv_norm_act import Convolution

CPU = torch.device("cpu")
VALID, PADDED = Geometry(3, 1, 0), Geometry(3, 1, 1)
SAMPLES_OF_SIZES = [(1, 3, 3), (2, 7, 9), (1, 8, 12), (3, 4, 5)]
"""Samples, height, width: one tile that is not full, odd and even numbers of tiles, whole tiles."""


@pytest.mark.parametrize("shape", SAMPLES_OF_SIZES, ids=str)
@pytest.mark.parametrize("geometry", [VALID, PADDED, REFLECT, Geometry(3, 1, 2)], ids=str)
@pytest.mark.parametrize("layout", [contiguous, channels_last], ids=lambda f: f.__name__)
def test_result_and_gradients_are_those_of_the_separate_layers_in_float64(shape, geometry, layout) -> None:
    case = Case(geometry, "none", "leaky_relu", bias=True, inputs=5, outputs=19)
    inputs = random_inputs(case, torch.float64, CPU, shape).laid_out(layout)
    found, expected = results(ours, case, inputs, algorithm="winograd"), results(plain, case, inputs)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("norm", "residual"), [*product(("instance", "batch"), (False, True))])
def test_norms_and_residuals_follow_it_as_they_follow_any_convolution(norm, residual) -> None:
    case = Case(REFLECT, norm, "relu", affine=True, residual=residual, inputs=8, outputs=8)
    inputs = random_inputs(case, torch.float64, CPU, (2, 8, 10))
    found, expected = results(ours, case, inputs, algorithm="winograd"), results(plain, case, inputs)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_inputs_and_gradients_may_have_any_strides(layout) -> None:
    case = Case(VALID, "none", "none", inputs=6, outputs=7)
    inputs = random_inputs(case, torch.float64, CPU, (2, 6, 8))
    inputs = replace(inputs, x=layout(inputs.x), grad=layout(inputs.grad))
    found, expected = results(ours, case, inputs, algorithm="winograd"), results(plain, case, inputs)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("channels", [3, 16, 300])
def test_it_is_as_exact_as_eager(channels: int) -> None:
    case = Case(REFLECT, "none", "none", inputs=channels, outputs=24)
    inputs = random_inputs(case, torch.float32, CPU, (1, 14, 18))
    found, eager = results(ours, case, inputs, algorithm="winograd"), results(plain, case, inputs)
    oracle = results(plain, case, inputs.in_dtype(torch.float64))
    magnitude = results(plain, case, replace(inputs, x=inputs.x.abs(), grad=inputs.grad.abs(), tensors={
        name: None if t is None else t.abs() for name, t in inputs.tensors.items()
    }).in_dtype(torch.float64))  # fmt: skip
    for name, exact in oracle.items():
        if exact is not None:
            terms = magnitude[name].abs().max().item()
            assert_as_exact_as_eager(name, found[name], eager[name], exact, magnitude=terms)


@pytest.mark.parametrize("layout", [contiguous, channels_last], ids=lambda f: f.__name__)
@pytest.mark.parametrize("shape", SAMPLES_OF_SIZES, ids=str)
def test_in_bfloat16_it_is_as_exact_as_eager(shape, layout) -> None:
    case = Case(REFLECT, "none", "none", inputs=70, outputs=37)
    inputs = random_inputs(case, torch.bfloat16, CPU, shape).laid_out(layout)
    found, eager = results(ours, case, inputs, algorithm="winograd"), results(plain, case, inputs)
    oracle = results(plain, case, inputs.in_dtype(torch.float64))
    for name, exact in oracle.items():
        if exact is not None:
            assert_as_exact_as_eager(name, found[name], eager[name], exact)


def test_images_of_bfloat16_may_have_weights_of_float32_which_are_rounded_once() -> None:
    conv = Convolution([1, 1], 1, "zeros", False, [0, 0])
    x, grad = (torch.randn(1, channels, 9, 11).bfloat16() for channels in (40, 21))
    weight = torch.randn(21, 40, 3, 3) / 20
    needs = (True, True, False)

    def errors(convolution: Any, backward: Any, x: torch.Tensor, grad: torch.Tensor, weight: torch.Tensor):
        found = (convolution(x, weight, None, conv), *backward(grad, x, weight, conv, needs)[:2])
        return [largest_error(each, exact) for each, exact in zip(found, oracle, strict=True)]

    doubles = (x.double(), weight.double())
    gradients = reference.convolve_backward(grad.double(), *doubles, conv, needs)
    oracle = (reference.convolve(*doubles, None, conv), *gradients[:2])
    eager = errors(reference.convolve, reference.convolve_backward, x, grad, weight.bfloat16())
    taken = errors(_winograd.convolve, _winograd.convolve_backward, x, grad, weight)
    assert all(ours <= 2 * theirs for ours, theirs in zip(taken, eager, strict=True))
    assert _winograd.convolve_backward(grad, x, weight, conv, needs)[1].dtype == torch.float32


def test_panels_and_blocks_may_be_filled_in_part() -> None:
    """Of channels, of those that are summed at a time, of tiles that are multiplied at a time, over two samples."""
    case = Case(VALID, "none", "none", bias=True, inputs=131, outputs=35)
    inputs = random_inputs(case, torch.float64, CPU, (2, 29, 43))
    found, expected = results(ours, case, inputs, algorithm="winograd"), results(plain, case, inputs)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_the_channels_of_the_result_lie_as_the_vendors_do() -> None:
    x, weight = torch.randn(1, 4, 6, 6), torch.randn(5, 4, 3, 3)
    for given in product((x, channels_last(x)), (weight, channels_last(weight))):
        raw = {name: conv_norm_act(*given, defer=True, algorithm=name).raw for name in ("vendor", "winograd")}
        assert raw["winograd"].stride() == raw["vendor"].stride()


def test_it_is_registered_as_torch_wants_it() -> None:
    x, weight = (torch.randn(*shape, dtype=torch.float64) for shape in ((1, 3, 6, 7), (4, 3, 3, 3)))
    source = (x.requires_grad_(), *(None,) * 5, "none", 1e-5, "none", 0.2, 1)
    conv = ([1, 1], 1, "zeros", False, [0, 0])
    args = (*source, weight.requires_grad_(), None, *conv, 0, "winograd", "native")
    torch.library.opcheck(torch.ops.torchp2p.conv_norm_act.default, args)


def test_it_can_be_differentiated_twice() -> None:
    x, weight = (torch.randn(*shape, dtype=torch.float64) for shape in ((1, 2, 5, 4), (3, 2, 3, 3)))

    def block(x, weight):
        return conv_norm_act(x, weight, padding=1, pad_mode="reflect", act="tanh", algorithm="winograd")

    inputs = (x.requires_grad_(), weight.requires_grad_())
    assert torch.autograd.gradcheck(block, inputs)
    assert torch.autograd.gradgradcheck(block, inputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_gives_the_same_bits_for_any_number_of_threads(dtype: torch.dtype) -> None:
    case = Case(PADDED, "none", "none", inputs=40, outputs=72)
    inputs = random_inputs(case, dtype, CPU, (2, 34, 38))
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(results(ours, case, inputs, algorithm="winograd"))
    for other in found[1:]:
        assert all(torch.equal(other[name], first) for name, first in found[0].items() if first is not None)


@pytest.mark.parametrize("isa", ["baseline", "v3", "v4"])
def test_smaller_instruction_sets_compute_the_same(isa: str) -> None:
    program = """
import torch
from torchp2p.ops import conv_norm_act
torch.manual_seed(0)
x = torch.randn(1, 21, 9, 10, dtype=torch.float64)
for kernel, stride in ((3, 1), (3, 2), (4, 1)):
    weight, how = torch.randn(5, 21, kernel, kernel, dtype=torch.float64), {"norm": "none", "stride": stride}
    found, expected = (conv_norm_act(x, weight, **how, algorithm=each) for each in ("winograd", "vendor"))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
for kernel, stride in ((3, 1), (4, 2)):
    weight, how = torch.randn(5, 21, kernel, kernel).bfloat16(), {"norm": "none", "stride": stride}
    found, expected = (conv_norm_act(x.bfloat16(), weight, **how, algorithm=each) for each in ("winograd", "vendor"))
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-1)
"""
    subprocess.run([sys.executable, "-c", program], check=True, env={**os.environ, "TORCHP2P_CPU_ISA": isa})


# --- when it is taken --------------------------------------------------------------------------------------


def convolutions_of(monkeypatch: pytest.MonkeyPatch, x, weight, **options) -> int:
    """How often it convolved."""
    calls, convolve = [], _winograd.convolve
    monkeypatch.setattr(_winograd, "convolve", lambda *args: calls.append(args) or convolve(*args))
    conv_norm_act(x, weight, **options)
    return len(calls)


@pytest.mark.parametrize(
    ("channels", "size", "dtype", "options", "times"),
    [
        ((64, 64), (10, 18), torch.float32, {}, 1),
        ((64, 64), (9, 17), torch.float32, {}, 1),  # tiles that are not full count
        ((64, 64), (10, 14), torch.float32, {}, 0),  # 2 x 3 tiles
        ((64, 64), (6, 12), torch.float32, {"padding": 2}, 1),
        ((64, 64), (18, 18), torch.float32, {"algorithm": "vendor"}, 0),
        ((63, 64), (18, 18), torch.float32, {}, 0),
        ((64, 63), (18, 18), torch.float32, {}, 0),
        ((64, 64), (18, 18), torch.float64, {}, 0),
        ((64, 64), (18, 18), torch.float16, {}, 0),
        ((64, 64), (18, 18), torch.float32, {"stride": 2}, 0),
    ],
)
def test_unasked_it_is_taken_where_it_is_faster_and_as_exact(
    channels, size, dtype, options, times, monkeypatch
) -> None:
    inputs, outputs = channels
    x, weight = torch.randn(1, inputs, *size, dtype=dtype), torch.randn(outputs, inputs, 3, 3, dtype=dtype)
    assert convolutions_of(monkeypatch, x, weight, **options) == times


@pytest.mark.parametrize(("threads", "times"), [(4, 1), (5, 0)])
def test_unasked_it_is_taken_where_there_is_a_panel_of_channels_for_each_thread(threads, times, monkeypatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    x, weight = torch.randn(1, 128, 18, 18), torch.randn(128, 128, 3, 3)
    assert convolutions_of(monkeypatch, x, weight) == times


@pytest.mark.parametrize(
    ("in_pairs", "weight_dtype", "taken"),
    [(True, torch.float32, True), (False, torch.float32, False), (True, torch.bfloat16, False)],
)
def test_in_bfloat16_it_is_taken_for_float32_weights_where_the_cpu_multiplies_pairs(
    in_pairs, weight_dtype, taken, monkeypatch
) -> None:
    monkeypatch.setattr(_winograd._native.C, "cpu_multiplies_bfloat16", lambda: in_pairs)
    x, weight = torch.randn(1, 64, 18, 18).bfloat16(), torch.randn(64, 64, 3, 3, dtype=weight_dtype)
    with torch.autocast("cpu"):
        assert convolutions_of(monkeypatch, x, weight) == taken


AUTOCAST = {"norm": "none", "act": "none", "padding": 1}


@pytest.fixture
def in_autocast() -> tuple[torch.Tensor, ...]:
    """An image, a weight and a bias of float32, and the gradient of what is made of them."""
    x, weight = torch.randn(1, 128, 8, 9, requires_grad=True), torch.randn(130, 128, 3, 3) / 34
    return x, weight.requires_grad_(), torch.randn(130, requires_grad=True), torch.randn(1, 130, 8, 9).bfloat16()


def test_under_autocast_weights_are_not_rounded_before_their_frequencies(in_autocast, monkeypatch) -> None:
    x, weight, bias, grad = in_autocast
    seen: list[torch.dtype] = []
    convolve = _winograd.convolve
    monkeypatch.setattr(_winograd, "convolve", lambda *args: seen.extend(t.dtype for t in args[:3]) or convolve(*args))
    with torch.autocast("cpu"):
        y = conv_norm_act(x, weight, bias, algorithm="winograd", **AUTOCAST)
    assert seen == [torch.bfloat16, torch.float32, torch.float32]
    assert y.dtype == torch.bfloat16
    assert [each.dtype for each in torch.autograd.grad(y, (x, weight, bias), grad)] == [torch.float32] * 3


def test_under_autocast_errors_are_at_most_twice_those_of_torchs_own(in_autocast) -> None:
    x, weight, bias, grad = in_autocast

    def results(convolution, *dtype) -> list[torch.Tensor]:
        inputs = [each.detach().to(*dtype).requires_grad_() for each in (x, weight, bias)]
        y = convolution(*inputs)
        return [y, *torch.autograd.grad(y, inputs, grad.to(y.dtype))]

    with torch.autocast("cpu"):
        found = results(lambda *given: conv_norm_act(*given, algorithm="winograd", **AUTOCAST))
        eager = results(lambda *given: torch.nn.functional.conv2d(*given, padding=1))
    oracle = results(lambda *given: torch.nn.functional.conv2d(*given, padding=1), torch.float64)
    for ours_, theirs, exact in zip(found, eager, oracle, strict=True):
        errors = [(each.double() - exact).square().mean().sqrt() for each in (ours_, theirs)]
        assert errors[0] <= 2 * errors[1]


def test_under_autocast_one_compilation_of_the_whole_graph_computes_the_same(in_autocast) -> None:
    x, weight, bias, grad = in_autocast

    def convolution(x, weight, bias):
        with torch.autocast("cpu"):
            return conv_norm_act(x, weight, bias, algorithm="winograd", **AUTOCAST)

    torch.compiler.reset()
    results = []
    for function in (convolution, torch.compile(convolution, fullgraph=True, backend="aot_eager")):
        y = function(x, weight, bias)
        results.append([y.detach(), *torch.autograd.grad(y, (x, weight, bias), grad)])
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))


def test_under_autocast_the_double_gradient_is_that_of_the_vendors() -> None:
    x, weight = torch.randn(1, 4, 6, 6, requires_grad=True), torch.randn(5, 4, 3, 3, requires_grad=True)
    found = []
    for name in ("winograd", "vendor"):
        with torch.autocast("cpu"):
            y = conv_norm_act(x, weight, algorithm=name, **AUTOCAST)
        (slope,) = torch.autograd.grad(y.float().square().sum(), x, create_graph=True)
        found.append(torch.autograd.grad(slope.square().sum(), (x, weight)))
    for ours_, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours_, theirs, rtol=0.05, atol=0.05 * theirs.abs().max().item())


@pytest.mark.parametrize(
    ("x", "weight", "options", "reason"),
    [
        (torch.randn(1, 2, 6, 6), torch.randn(3, 2, 3, 3), {"stride": 3}, "strides of 1 and 2"),
        (torch.randn(1, 2, 6, 6), torch.randn(3, 2, 4, 4), {"stride": (1, 2)}, "strides of 1 and 2"),
        (torch.randn(1, 2, 6, 6), torch.randn(3, 2, 5, 5), {}, "kernels of 3x3 and 4x4"),
        (torch.randn(1, 2, 6, 6), torch.randn(3, 2, 4, 3), {}, "kernels of 3x3 and 4x4"),
        (torch.randn(1, 3, 6, 6), torch.randn(3, 2, 3, 3), {"transposed": True}, "transposed ones of 2"),
        (
            torch.randn(1, 2, 6, 6).half(),
            torch.randn(3, 2, 3, 3).half(),
            {},
            "float32, float64 and bfloat16, not torch.float16",
        ),
    ],
)
def test_asked_for_where_it_cannot_be_had_it_says_why(x, weight, options, reason) -> None:
    with pytest.raises(BackendUnavailableError, match=f"algorithm 'winograd' cannot run: .*{reason}"):
        conv_norm_act(x, weight, algorithm="winograd", **options)


def test_no_samples_are_no_convolution() -> None:
    y = conv_norm_act(torch.empty(0, 4, 6, 6), torch.randn(5, 4, 3, 3), padding=1, algorithm="winograd")
    assert y.shape == (0, 5, 6, 6)


# --- the algorithm of a context ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preferred", "options", "times"),
    [
        ("vendor", {}, 0),
        ("winograd", {}, 1),
        ("vendor", {"algorithm": "winograd"}, 1),  # who asks is served
        ("winograd", {"algorithm": "vendor"}, 0),
        ("winograd", {"stride": 3}, 0),  # it cannot run
        (None, {}, 0),  # the rule: too few channels
    ],
)
def test_within_a_context_convolutions_take_its_algorithm_wherever_it_can_run(
    preferred, options, times, monkeypatch
) -> None:
    x, weight = torch.randn(1, 8, 18, 18), torch.randn(8, 8, 3, 3)
    with algorithm(preferred):
        assert convolutions_of(monkeypatch, x, weight, **options) == times


def test_after_a_context_the_rule_holds_again(monkeypatch) -> None:
    with pytest.raises(ZeroDivisionError), algorithm("winograd"):
        raise ZeroDivisionError
    assert convolutions_of(monkeypatch, torch.randn(1, 8, 18, 18), torch.randn(8, 8, 3, 3)) == 0


def test_a_context_of_no_algorithm_is_refused() -> None:
    for name in ("fastest", 3):
        message = f"algorithm must be one of vendor, winograd.*got {name!r}"
        with pytest.raises(ValueError, match=message), algorithm(name):
            pass
