"""``feature_matching_loss``: every backend against torch's L1 loss and the float64 oracle, and as a torch operator."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from op_testing import (
    DTYPES,
    HALF_DTYPES,
    LAYOUTS,
    assert_as_exact_as_eager,
    channels_last,
    leaf,
    recorded_calls,
    saved_tensors,
    ulps_from,
)
from torch import Tensor

from torchp2p import BackendUnavailableError
from torchp2p.ops import feature_matching_loss
from torchp2p.reference.norm_act import statistics_dtype

OP = "feature_matching_loss"
SHAPES = ((2, 3, 9, 11), (1, 64, 5, 7), (3000,), (1,), ())
WEIGHTS = [1.0, -0.5, 3.0, 0.0, 10.0]

every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch."))
every_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())


def randoms(shapes, dtype, device="cpu") -> list[Tensor]:
    return [torch.randn(shape).to(device, dtype) for shape in shapes]


def random_pairs(shapes, dtype, device="cpu") -> tuple[list[Tensor], list[Tensor]]:
    """Some values are equal, so that all three signs occur."""
    fake, real = randoms(shapes, dtype, device), randoms(shapes, dtype, device)
    return fake, [
        torch.where(torch.rand(r.shape, device=r.device) < 0.2, f, r) for f, r in zip(fake, real, strict=True)
    ]


def ours(fake, real, weights, grad=1.0, backend=None) -> tuple[Tensor, list[Tensor]]:
    leaves = [leaf(f) for f in fake]
    loss = feature_matching_loss(leaves, real, weights, backend=backend)
    return loss.detach(), list(torch.autograd.grad(loss, leaves, torch.full_like(loss, grad)))


def eager(fake, real, weights, grad=1.0) -> tuple[Tensor, list[Tensor]]:
    leaves = [leaf(f) for f in fake]
    terms = [F.l1_loss(f, r) * w for f, r, w in zip(leaves, real, weights, strict=True)]
    loss = torch.stack(terms).sum()
    grads = torch.autograd.grad(loss, leaves, torch.full_like(loss, grad))
    return loss.detach().to(statistics_dtype(loss.dtype)), list(grads)


def assert_exact(fake, real, weights, backend, grad=1.0) -> None:
    loss, grads = ours(fake, real, weights, grad, backend)
    in_eager, _ = eager(fake, real, weights, grad)
    exact, exact_grads = eager([f.double() for f in fake], [r.double() for r in real], weights, grad)
    pairs = zip(fake, real, weights, strict=True)
    magnitude = sum(abs(w) * (f.double() - r.double()).abs().mean().item() for f, r, w in pairs)
    assert_as_exact_as_eager("loss", loss, in_eager, exact, 4 * magnitude)
    for i, (found, wanted) in enumerate(zip(grads, exact_grads, strict=True)):
        assert found.dtype == fake[i].dtype
        assert ulps_from(found, wanted).max() <= 2, f"grad {i}"


# --- against the oracle ----------------------------------------------------------------------------------


@every_dtype
def test_loss_and_gradients_match_the_float64_oracle(dtype, backend, device):
    assert_exact(*random_pairs(SHAPES, dtype, device), WEIGHTS, backend, grad=100.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_compiled_reference_gives_the_same_numbers(dtype, device):
    assert_exact(*random_pairs(SHAPES[:2], dtype, device), WEIGHTS[:2], "compile")


@every_dtype
@pytest.mark.parametrize(
    "count",
    [1, 2, 7, 8, 9, 31, 63, 64, 65, 127, 129, 255, 256, 257, 511, 1023, 1024, 1025, 16383, 16384, 16385, 16640, 40000],
)
def test_any_number_of_values_fills_and_leaves_registers_and_blocks_alike(count, dtype, backend, device):
    assert_exact(*random_pairs([(count,), (3,)], dtype, device), [1.0, 1.0], backend, grad=float(count))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_pairs_larger_than_the_cache_are_no_different(dtype, device):
    fake, real = random_pairs([(1, 64, 300, 450), (5,)], dtype, device)
    assert fake[0].numel() * fake[0].element_size() > 2**24
    loss, grads = ours(fake, real, [1.0, 2.0], 1e4)
    exact, exact_grads = eager([f.double() for f in fake], [r.double() for r in real], [1.0, 2.0], 1e4)
    torch.testing.assert_close(loss.double(), exact, rtol=1e-6, atol=0)
    for found, wanted in zip(grads, exact_grads, strict=True):
        torch.testing.assert_close(found, wanted.to(dtype))


@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() == "DEFAULT", reason="there is one instruction set here")
@pytest.mark.parametrize("isa", ["baseline", "v3"])
def test_other_instruction_sets_give_the_same_numbers(isa):
    probe = """
import sys
sys.path.insert(0, "tests")
from test_feature_matching_loss import DTYPES, SHAPES, WEIGHTS, assert_exact, random_pairs
for dtype in DTYPES:
    assert_exact(*random_pairs((*SHAPES[1:], (70001,)), dtype), WEIGHTS, "native", grad=50.0)
"""
    environment = os.environ | {"TORCHP2P_CPU_ISA": isa}
    subprocess.run([sys.executable, "-c", probe], env=environment, cwd=os.path.dirname(__file__) + "/..", check=True)


def test_no_weights_are_weights_of_one(backend, device):
    fake, real = random_pairs(SHAPES, torch.float32, device)
    given_ones = feature_matching_loss(fake, real, [1.0] * len(SHAPES), backend=backend)
    assert torch.equal(feature_matching_loss(fake, real, backend=backend), given_ones)


def test_a_pair_of_tensors_is_the_l1_loss(backend, device):
    (fake,), (real,) = random_pairs([(1, 3, 16, 16)], torch.float32, device)
    torch.testing.assert_close(feature_matching_loss(fake, real, backend=backend), F.l1_loss(fake, real))


def test_nested_lists_are_read_in_order_and_every_tensor_counts(backend, device):
    fake, real = random_pairs([(4, i + 1) for i in range(5)], torch.float64, device)
    weights = [1.0, 10.0, 100.0, 1000.0, 10000.0]

    def nested(t: list[Tensor]):
        return [[t[0], t[1]], (t[2], [t[3]]), t[4]]

    found = feature_matching_loss(nested(fake), nested(real), weights, backend=backend)
    torch.testing.assert_close(found, feature_matching_loss(fake, real, weights, backend=backend))
    torch.testing.assert_close(found, eager(fake, real, weights)[0])


# --- layouts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("real_layout", LAYOUTS.values(), ids=[f"real_{name}" for name in LAYOUTS])
@every_layout
def test_fake_and_real_may_lie_in_memory_in_any_way(layout, real_layout, dtype, backend, device):
    (fake,), (real,) = random_pairs([(2, 5, 9, 13)], dtype, device)
    assert_exact([layout(fake)], [real_layout(real)], [1.0], backend)


@pytest.mark.parametrize(
    "layout", [LAYOUTS["cropped"], LAYOUTS["channel_slice_channels_last"], LAYOUTS["every_second"]]
)
def test_slices_of_more_values_than_a_block_are_read_where_they_lie(layout, backend, device):
    (fake,), (real,) = random_pairs([(2, 7, 61, 83)], torch.float32, device)
    assert_exact([layout(fake)], [LAYOUTS["contiguous"](real)], [1.0], backend)
    assert_exact([LAYOUTS["contiguous"](fake)], [LAYOUTS["cropped"](real)], [1.0], backend)


@pytest.mark.parametrize("shape", [(), (7,), (3, 4), (2, 3, 4), (2, 3, 2, 3, 4), (2, 1, 2, 1, 2, 1, 2, 1, 2)], ids=str)
def test_tensors_may_have_any_number_of_dimensions(shape, backend, device):
    fake, real = random_pairs([shape, shape], torch.float32, device)
    turn = list(reversed(range(len(shape))))
    turned = [t.permute(turn).contiguous().permute(turn) for t in fake]
    assert_exact([fake[0], turned[1]], real, [1.0, 2.0], backend)


@every_layout
def test_the_gradient_lies_in_memory_as_fake_does(layout, backend, device):
    (fake,), (real,) = random_pairs([(2, 5, 9, 13)], torch.float32, device)
    x = layout(fake)
    (grad,) = ours([x], [real], [1.0], backend=backend)[1]
    assert grad.stride() == torch.empty_like(x).stride()


def copies(fake: Tensor, real: Tensor) -> int:
    return recorded_calls(lambda: feature_matching_loss(fake, real, backend="native")).count("aten::copy_")


def test_only_a_pair_in_different_orders_is_copied():
    (fake,), (real,) = random_pairs([(2, 5, 9, 13)], torch.float32)
    none = copies(fake, real)
    for name in ("cropped", "channel_slice", "every_second", "misaligned", "expanded"):
        assert copies(fake, LAYOUTS[name](real)) == copies(LAYOUTS[name](fake), real) == none, name
    for name in ("channels_last", "cropped_channels_last", "channel_slice_channels_last"):
        assert copies(channels_last(fake), LAYOUTS[name](real)) == none, name
    assert copies(fake, channels_last(real)) == none + 1


def test_the_halves_of_one_batch_are_a_pair_and_the_gradient_reaches_its_first_half(backend, device):
    both = torch.randn(2, 6, 5, 7, device=device, requires_grad=True)
    loss = feature_matching_loss(both[:1], both[1:], backend=backend)
    (grad,) = torch.autograd.grad(loss, both)
    assert torch.equal(grad[:1], ((both[:1] - both[1:]).sign() / both[:1].numel()).detach())
    assert not grad[1:].any()


# --- hard numbers ----------------------------------------------------------------------------------------


@every_dtype
def test_large_values_lose_nothing(dtype, backend, device):
    fake, real = ([1e4 * t.clamp(-1, 1) for t in ts] for ts in random_pairs(SHAPES[:3], torch.float32, device))
    assert_exact([f.to(dtype) for f in fake], [r.to(dtype) for r in real], [1.0, 2.0, 3.0], backend)


@every_dtype
def test_equal_values_have_no_gradient(dtype, backend, device):
    x = torch.randn(300, device=device).to(dtype)
    loss, (grad,) = ours([x], [x.clone()], [1.0], backend=backend)
    assert loss == 0
    assert not grad.any()


@every_dtype
def test_nans_and_infinities_do_what_they_do_in_torch(dtype, backend, device):
    nan, inf = float("nan"), float("inf")
    some = [nan, inf, -inf, 0.0, -0.0, 1.0]
    for f, r in product(some, some):
        fake, real = torch.zeros(40, device=device).to(dtype), torch.ones(40, device=device).to(dtype)
        fake[3], real[3] = f, r
        loss, grads = ours([fake], [real], [2.0], backend=backend)
        acc = statistics_dtype(dtype)
        torch.testing.assert_close(loss, eager([fake.to(acc)], [real.to(acc)], [2.0])[0], equal_nan=True)
        torch.testing.assert_close(grads, eager([fake], [real], [2.0])[1], equal_nan=True)


@pytest.mark.parametrize("grad", [float("nan"), float("inf"), 0.0, -1.0])
def test_a_gradient_that_is_no_number_spoils_what_it_spoils_in_torch(grad, backend, device):
    fake, real = random_pairs([(300,)], torch.float32, device)
    found, in_eager = ours(fake, real, [1.0], grad, backend)[1], eager(fake, real, [1.0], grad)[1]
    torch.testing.assert_close(found, in_eager, equal_nan=True)


@pytest.mark.parametrize("dtype", HALF_DTYPES, ids=str)
def test_in_half_precision_the_loss_is_float32_and_the_loss_scale_saves_small_gradients(dtype, backend, device):
    fake, real = random_pairs([(70000,)], dtype, device)
    loss, (grad,) = ours(fake, real, [1e-4], 65536.0, backend)
    assert loss.dtype == torch.float32
    assert grad.dtype == dtype
    expected = (fake[0].double() - real[0].double()).sign() * (65536.0 * 1e-4 / 70000)
    assert torch.equal(grad, expected.to(dtype))


# --- gradients -------------------------------------------------------------------------------------------


def test_gradients_of_first_and_second_order_pass_the_numerical_check(backend, device):
    fake = [t.requires_grad_() for t in randoms([(3, 4), (5,)], torch.float64, device)]
    real = randoms([(3, 4), (5,)], torch.float64, device)

    def loss(*fake: Tensor) -> Tensor:
        return feature_matching_loss(fake, real, [0.5, 2.0], backend=backend)

    assert torch.autograd.gradcheck(loss, fake)
    assert torch.autograd.gradgradcheck(loss, fake)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_the_double_backward_is_that_of_the_formula(dtype, backend, device):
    fake, real = random_pairs([(2, 3, 9, 11), (300,)], dtype, device)
    upstream = torch.tensor(2.0, device=device, requires_grad=True)
    leaves = [leaf(f) for f in fake]
    grads = torch.autograd.grad(
        feature_matching_loss(leaves, real, [1.0, 3.0], backend=backend), leaves, upstream, create_graph=True
    )
    directions = [torch.randn_like(g) for g in grads]
    second = torch.autograd.grad(grads, [upstream, *leaves], directions, allow_unused=True, create_graph=True)
    triples = zip(directions, fake, real, (1.0, 3.0), strict=True)
    expected = sum((d.double() * (f.double() - r.double()).sign()).mean() * w for d, f, r, w in triples)
    torch.testing.assert_close(second[0].double(), expected, rtol=1e-5, atol=1e-6)
    assert all(s is None or not s.any() for s in second[1:])


def test_real_is_a_constant(backend, device):
    (fake,), (real,) = random_pairs([(3, 4)], torch.float32, device)
    fake, real = leaf(fake), leaf(real)
    grads = torch.autograd.grad(feature_matching_loss(fake, real, backend=backend), [fake, real], allow_unused=True)
    assert grads[0] is not None
    assert grads[1] is None
    assert not feature_matching_loss(fake.detach(), real, backend=backend).requires_grad


def test_only_tensors_that_require_a_gradient_get_one(backend, device):
    fake, real = random_pairs([(400,), (4, 5), (7,)], torch.float32, device)
    leaves = [leaf(fake[0]), fake[1], leaf(fake[2])]
    feature_matching_loss(leaves, real, backend=backend).backward()
    assert fake[1].grad is None
    for i in (0, 2):
        assert torch.equal(leaves[i].grad, (fake[i] - real[i]).sign() / fake[i].numel())


def test_one_tensor_in_two_pairs_gets_the_sum_of_both_gradients(backend, device):
    (fake,), (real,) = random_pairs([(50,)], torch.float32, device)
    x = leaf(fake)
    (grad,) = torch.autograd.grad(feature_matching_loss([x, x], [real, real], [1.0, 2.0], backend=backend), x)
    torch.testing.assert_close(grad, 3 * (fake - real).sign() / 50)


# --- memory ----------------------------------------------------------------------------------------------


def test_the_backward_keeps_two_bits_a_value_and_not_the_real_features():
    fake, real = random_pairs([(1, 8, 64, 64), (1, 16, 32, 32)], torch.float32)
    leaves = [leaf(f) for f in fake]
    kept = saved_tensors(lambda: feature_matching_loss(leaves, real, backend="native"))
    given = {f.data_ptr() for f in leaves}
    signs = [t for t in kept if t.data_ptr() not in given]
    assert not {t.data_ptr() for t in kept} & {r.data_ptr() for r in real}
    assert sum(t.numel() * t.element_size() for t in signs) == sum(f.numel() for f in fake) // 4


def test_without_a_gradient_no_signs_are_taken(backend, device):
    fake, real = random_pairs([(400,), (4, 5)], torch.float32, device)
    _, signs = torch.ops.torchp2p.feature_matching_loss(fake, real, [1.0, 1.0], [False, True], backend)
    assert signs[0].numel() == 0
    assert signs[1].numel() > 0
    with torch.no_grad():
        assert saved_tensors(lambda: feature_matching_loss([leaf(f) for f in fake], real, backend=backend)) == []


# --- as a torch operator ---------------------------------------------------------------------------------


@every_layout
def test_torch_finds_nothing_wrong_with_the_operators(layout, backend, device):
    (fake, other), real = random_pairs([(2, 3, 4, 5), (2, 3, 4, 5)], torch.float32, device)
    fakes = [leaf(layout(fake)), other]
    forward = torch.ops.torchp2p.feature_matching_loss.default
    torch.library.opcheck(forward, (fakes, real, [1.0, 2.0], [True, False], backend))
    _, signs = forward([f.detach() for f in fakes], real, [1.0, 2.0], [True, False], backend)
    grad = torch.tensor(2.0, device=device, requires_grad=True)
    backward = torch.ops.torchp2p.feature_matching_loss_backward.default
    torch.library.opcheck(backward, (grad, [f.detach() for f in fakes], signs, [1.0, 2.0], backend))


def test_a_compiled_function_takes_other_sizes_without_a_break_or_a_recompilation(device):
    torch.compiler.reset()

    def step(fake: list[list[Tensor]], real: list[list[Tensor]]) -> Tensor:
        return 2 * feature_matching_loss([[f * 2 for f in s] for s in fake], real, [1.0, 2.0, 3.0])

    run = torch.compile(step, fullgraph=True, dynamic=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for size in (6, 9):
            fake, real = random_pairs(
                [(1, 3, size, size + 1), (1, 4, size + 2, 5), (2, size, 3, 4)], torch.float32, device
            )
            leaves = [leaf(f) for f in fake]
            results = []
            for function in (run, step):
                loss = function([leaves[:2], leaves[2:]], [real[:2], real[2:]])
                results.append([loss, *torch.autograd.grad(loss, leaves)])
            torch.testing.assert_close(*results)


def test_weights_may_change_between_calls_of_a_compiled_function(device):
    torch.compiler.reset()
    run = torch.compile(lambda f, r, w: feature_matching_loss(f, r, [w]), fullgraph=True)
    fake, real = torch.ones(4, device=device), torch.zeros(4, device=device)
    assert [run([fake], [real], w).item() for w in (1.0, 2.5, 3.25)] == [1.0, 2.5, 3.25]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_autocast_changes_nothing(dtype, backend, device):
    fake, real = random_pairs(SHAPES, dtype, device)
    plain = feature_matching_loss(fake, real, backend=backend)
    with torch.autocast(device.type, torch.bfloat16):
        cast = feature_matching_loss(fake, real, backend=backend)
    assert cast.dtype == torch.float32
    assert torch.equal(cast, plain)


def test_inference_mode_gives_the_same_value(backend, device):
    fake, real = random_pairs(SHAPES, torch.float32, device)
    with torch.inference_mode():
        inside = feature_matching_loss([leaf(f) for f in fake], real, backend=backend)
    assert inside.item() == feature_matching_loss(fake, real, backend=backend).item()


@every_dtype
def test_the_number_of_threads_changes_no_bit(dtype):
    fake, real = random_pairs([(3, 50, 301), (70001,), (5,)], dtype)
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(ours(fake, real, [1.0, 2.0, 3.0], 1e3))
    assert torch.equal(found[0][0], found[1][0])
    assert all(torch.equal(a, b) for a, b in zip(found[0][1], found[1][1], strict=True))


# --- bad input -------------------------------------------------------------------------------------------

X = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("fake", "real", "weights", "error", "words"),
    [
        (1.0, X, None, TypeError, "fake must be a Tensor, got float"),
        (X, None, None, TypeError, "real must be a Tensor, got NoneType"),
        ("xy", "xy", None, TypeError, "fake must be a Tensor or a list of them, got str"),
        ([X, 3], [X, X], None, TypeError, r"fake\[1\] must be a Tensor, got int"),
        ([X], X, None, TypeError, "fake must be a Tensor, got list"),
        ([[X, X]], [[X, [X]]], None, TypeError, r"real\[0\]\[1\] must be a Tensor, got list"),
        (X.int(), X.int(), None, TypeError, "fake must be float32, bfloat16, float16 or float64, got torch.int32"),
        (X, X.double(), None, TypeError, "real must be torch.float32 like fake, got torch.float64"),
        ([X, X.half()], [X, X.half()], None, TypeError, r"fake\[1\] must be torch.float32 like .*, got torch.float16"),
        ([[X], [X.half()]], [[X], [X.half()]], None, TypeError, r"fake\[1\] must be torch.float32 like"),
        ([X, X], [X], None, ValueError, "real must have as many entries as fake, which has 2, got 1"),
        (
            [X, [X]],
            [X, [X, X]],
            None,
            ValueError,
            r"real\[1\] must have as many entries as fake\[1\], which has 1, got 2",
        ),
        (X, X[:1], None, ValueError, r"real must have the shape of fake \(2, 3\), got \(1, 3\)"),
        ([], [], None, ValueError, "fake must hold at least one tensor, got an empty list"),
        ([X, []], [X, []], None, ValueError, r"fake\[1\] must hold at least one tensor"),
        (X[:0], X[:0], None, ValueError, r"fake must not be empty, got shape \(0, 3\)"),
        (X, X.to("meta"), None, ValueError, r"real must be on the device of fake \(cpu\), got meta"),
        ([X, X.to("meta")], [X, X.to("meta")], None, ValueError, r"fake\[1\] must be on the device of the tensors"),
        (X, X, [1.0, 2.0], ValueError, "weights must have one number for each of the 1 tensor pairs, got 2"),
        ([X, X], [X, X], [1.0], ValueError, "weights must have one number for each of the 2 tensor pairs, got 1"),
        (X, X, 2.0, TypeError, "weights must be a list of numbers or None, got float"),
        (X, X, [torch.ones(())], TypeError, r"weights\[0\] must be a number, got Tensor"),
    ],
)
def test_bad_arguments_are_named(fake, real, weights, error, words):
    with pytest.raises(error, match=words):
        feature_matching_loss(fake, real, weights)


def test_a_backend_that_does_not_exist_or_cannot_run_is_refused():
    with pytest.raises(ValueError, match="backend must be one of"):
        feature_matching_loss(X, X, backend="vulkan")
    with pytest.raises(BackendUnavailableError, match="triton"):
        feature_matching_loss(X, X, backend="triton")


# --- anything at all -------------------------------------------------------------------------------------


@st.composite
def random_arguments(draw):
    dtype = draw(st.sampled_from(DTYPES))
    torch.manual_seed(draw(st.integers(0, 2**16)))
    sizes = st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 20), st.integers(1, 40))
    shapes = draw(st.lists(sizes, min_size=1, max_size=5))
    layouts = st.sampled_from(list(LAYOUTS.values()))
    fake, real = random_pairs(shapes, dtype)
    fake, real = ([draw(layouts)(t) for t in tensors] for tensors in (fake, real))
    return fake, real, [draw(st.integers(-40, 40)) / 4 for _ in fake]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arguments=random_arguments())
def test_random_arguments_match_the_oracle(arguments):
    assert_exact(*arguments, backend="native")
