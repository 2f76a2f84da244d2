"""``feature_matching_loss`` as a citizen of torch: derivatives, memory, registration, torch.compile, bad arguments."""

from __future__ import annotations

import re

import pytest
import torch
from feature_matching_case import SHAPES, assert_exact, ours, random_pairs
from hypothesis import given, settings
from hypothesis import strategies as st
from op_testing import DTYPES, LAYOUTS, leaf, saved_tensors
from torch import Tensor

from torchp2p.ops import BackendUnavailableError, feature_matching_loss

OP = "feature_matching_loss"

every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
every_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())


# --- gradients -------------------------------------------------------------------------------------------


@pytest.mark.interpreted(one_in=0)
def test_gradients_of_first_and_second_order_pass_the_numerical_check(backend, device):
    fake = [torch.randn(shape, dtype=torch.float64, device=device) for shape in ((3, 4), (5,))]
    real = [torch.randn_like(f) for f in fake]  # nowhere equal: there it has no derivative
    fake = [leaf(f) for f in fake]

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


@pytest.mark.interpreted(one_in=5)
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
    torch._dynamo.reset()

    def step(fake: list[list[Tensor]], real: list[list[Tensor]]) -> Tensor:
        return 2 * feature_matching_loss([[f * 2 for f in s] for s in fake], real, [1.0, 2.0, 3.0])

    run = torch.compile(step, backend="aot_eager", fullgraph=True, dynamic=True)
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
    torch._dynamo.reset()
    run = torch.compile(lambda f, r, w: feature_matching_loss(f, r, [w]), backend="aot_eager", fullgraph=True)
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


# --- bad arguments ---------------------------------------------------------------------------------------

X = torch.zeros(2, 3)


def bad(error: type[Exception], sentence: str, fake: object = X, real: object = X, **arguments: object):
    return pytest.param({"fake": fake, "real": real, **arguments}, error, sentence, id=sentence)


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        bad(TypeError, "fake must be a Tensor, got float", 1.0),
        bad(TypeError, "real must be a Tensor, got NoneType", real=None),
        bad(TypeError, "fake must be a Tensor or a list of them, got str", "xy", "xy"),
        bad(TypeError, "real must be a Tensor or a list of them, got dict", [X], {"map": X}),
        bad(TypeError, "fake[1] must be a Tensor, got int", [X, 3], [X, X]),
        bad(TypeError, "fake must be a Tensor, got list", [X]),
        bad(TypeError, "real[0][1] must be a Tensor, got list", [[X, X]], [[X, [X]]]),
        bad(TypeError, "fake must be float32, bfloat16, float16 or float64, got torch.int32", X.int(), X.int()),
        bad(TypeError, "real must be torch.float32 like fake, got torch.float64", X, X.double()),
        bad(TypeError, "fake[1] must be torch.float32 like the tensors before it, got torch.float16",
            [X, X.half()], [X, X.half()]),
        bad(TypeError, "fake[1] must be torch.float32 like the tensors before it, got torch.float64",
            [[X], [X.double()]], [[X], [X.double()]]),
        bad(ValueError, "real must have as many entries as fake, which has 2, got 1", [X, X], [X]),
        bad(ValueError, "real[1] must have as many entries as fake[1], which has 1, got 2", [X, [X]], [X, [X, X]]),
        bad(ValueError, "real must have the shape of fake (2, 3), got (1, 3)", X, X[:1]),
        bad(ValueError, "fake must hold at least one tensor, got an empty list", [], []),
        bad(ValueError, "fake[1] must hold at least one tensor, got an empty list", [X, []], [X, []]),
        bad(ValueError, "fake must not be empty, got shape (0, 3)", X[:0], X[:0]),
        bad(ValueError, "real must be on the device of fake (cpu), got meta", X, X.to("meta")),
        bad(ValueError, "fake[1] must be on the device of the tensors before it (cpu), got meta",
            [X, X.to("meta")], [X, X.to("meta")]),
        bad(ValueError, "weights must have one number for each of the 1 tensor pairs, got 2", weights=[1.0, 2.0]),
        bad(ValueError, "weights must have one number for each of the 2 tensor pairs, got 1", [X, X], [X, X],
            weights=[1.0]),
        bad(TypeError, "weights must be a list of numbers or None, got float", weights=2.0),
        bad(TypeError, "weights[0] must be a number, got Tensor", weights=[torch.ones(())]),
        bad(ValueError, "backend must be one of native, triton, compile, reference or None, got 'cpp'", backend="cpp"),
    ],
)  # fmt: skip
def test_a_bad_argument_is_named_with_what_was_expected_and_what_came(arguments, error, sentence):
    with pytest.raises(error, match=re.escape(sentence)):
        feature_matching_loss(**arguments)


# --- any arguments ---------------------------------------------------------------------------------------

tensors = st.builds(
    lambda shape, dtype: torch.ones(shape, dtype=dtype),
    st.lists(st.integers(0, 3), max_size=3),
    st.sampled_from([*DTYPES, torch.int64]),
)
collections = st.recursive(st.one_of(tensors, st.none()), lambda inner: st.lists(inner, max_size=3), max_leaves=4)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    fake=collections,
    real=st.one_of(st.none(), collections),
    weights=st.one_of(st.none(), st.lists(st.one_of(st.integers(-3, 3), st.none()), max_size=4)),
    backend=st.sampled_from([None, "native", "reference", "triton", "vulkan"]),
)
def test_any_arguments_give_a_scalar_or_a_documented_error(fake, real, weights, backend):
    try:
        loss = feature_matching_loss(fake, fake if real is None else real, weights, backend=backend)
    except (TypeError, ValueError, BackendUnavailableError):
        return
    assert loss.shape == ()
    assert loss.isfinite()


@st.composite
def random_arguments(draw):
    dtype = draw(st.sampled_from(DTYPES))
    torch.manual_seed(draw(st.integers(0, 2**16)))
    sizes = st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 20), st.integers(1, 40))
    fake, real = random_pairs(draw(st.lists(sizes, min_size=1, max_size=5)), dtype)
    layouts = st.sampled_from(list(LAYOUTS.values()))
    fake, real = ([draw(layouts)(t) for t in tensors] for tensors in (fake, real))
    return fake, real, [draw(st.integers(-40, 40)) / 4 for _ in fake]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(arguments=random_arguments())
def test_any_good_arguments_match_the_oracle(arguments):
    assert_exact(*arguments, backend="native")
