"""``gan_loss`` as a citizen of torch: derivatives, registration, torch.compile, threads, and bad arguments."""

from __future__ import annotations

import re

import pytest
import torch
from gan_loss_case import EVERY_LOSS, ONE_OF_EACH_MODE, Loss, maps_of, with_gradients
from hypothesis import given, settings
from hypothesis import strategies as st
from op_testing import DTYPES, LAYOUTS, channels_last, leaf, recorded_calls, saved_tensors

from torchp2p.ops import BackendUnavailableError, gan_loss
from torchp2p.reference.norm_act import statistics_dtype

OP = "gan_loss"
every_loss = pytest.mark.parametrize("loss", EVERY_LOSS, ids=str)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
one_of_each_mode = pytest.mark.parametrize("loss", ONE_OF_EACH_MODE, ids=str)


# --- derivatives -----------------------------------------------------------------------------------------


@pytest.mark.interpreted(one_in=8)
@every_loss
def test_the_gradient_and_the_double_gradient_are_derivatives(loss, backend, device):
    maps = [leaf(p) for p in maps_of(torch.float64, device, [(1, 1, 3, 4), (5,)])]

    def function(*maps):
        return loss(list(maps), backend)

    assert torch.autograd.gradcheck(function, maps)
    assert torch.autograd.gradgradcheck(function, maps)


def test_the_third_derivative_is_right(backend, device):
    p = torch.randn(4, dtype=torch.float64, device=device, requires_grad=True)
    value = gan_loss(p, True, "vanilla", backend=backend)
    for _ in range(3):
        (grad,) = torch.autograd.grad(value, p, create_graph=True)
        value = grad.sum()
    s = torch.sigmoid(p)
    torch.testing.assert_close(grad, s * (1 - s) * (1 - 2 * s) / 4)


def test_only_maps_that_ask_for_a_gradient_get_one(backend, device):
    maps = maps_of(torch.float32, device)
    maps[1].requires_grad_()
    gan_loss(maps, True, backend=backend).backward()
    assert [p.grad is None for p in maps] == [True, False, True]


def test_slopes_are_taken_only_where_a_gradient_is_wanted(backend, device):
    p = torch.randn(1, 1, 64, 64, device=device, requires_grad=True)
    assert len(saved_tensors(lambda: gan_loss(p, True, backend=backend))) == 2
    with torch.no_grad():
        assert saved_tensors(lambda: gan_loss(p, True, backend=backend)) == []
        calls = recorded_calls(lambda: gan_loss(p, True, backend="native" if device.type == "cpu" else None))
    assert "aten::empty_like" not in calls


def test_changing_a_map_before_the_backward_raises(backend, device):
    p = torch.randn(1, 1, 4, 4, device=device, requires_grad=True)
    loss = gan_loss(p, True, backend=backend)
    with torch.no_grad():
        p.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


# --- torch -----------------------------------------------------------------------------------------------


@pytest.mark.interpreted(one_in=8)
@pytest.mark.parametrize("with_slopes", [False, True], ids=["value", "slopes"])
@pytest.mark.parametrize("requires_grad", [False, True], ids=["plain", "grad"])
@pytest.mark.parametrize("layout", [LAYOUTS["contiguous"], channels_last], ids=lambda f: f.__name__)
@every_dtype
def test_the_operators_are_registered_as_torch_wants_them(dtype, layout, requires_grad, with_slopes, backend, device):
    maps = [layout(p) for p in maps_of(dtype, device, [(2, 3, 4, 5), (1, 2, 3, 4)])]
    maps = [p.requires_grad_(requires_grad) for p in maps]
    options = Loss("vanilla", True).options
    torch.library.opcheck(torch.ops.torchp2p.gan_loss.default, (maps, *options, with_slopes, backend))
    loss, slopes = torch.ops.torchp2p.gan_loss([p.detach() for p in maps], *options, with_slopes, backend)
    op = torch.ops.torchp2p.gan_loss_backward.default
    torch.library.opcheck(op, (torch.ones_like(loss), maps, slopes, *options))


@one_of_each_mode
def test_one_compilation_of_the_whole_graph_serves_every_size(loss, device):
    torch._dynamo.reset()

    def step(first, second):
        return loss([[first, 2 * first], second])

    compiled = torch.compile(step, backend="aot_eager", fullgraph=True, dynamic=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for size in ((2, 3, 9, 11), (3, 3, 12, 10), (4, 3, 7, 8)):
            maps = [torch.randn(size, device=device, requires_grad=True) for _ in range(2)]
            found, expected = ((f(*maps), *torch.autograd.grad(f(*maps), maps)) for f in (compiled, step))
            torch.testing.assert_close(found, expected)


@every_dtype
def test_autocast_changes_nothing_and_halves_are_summed_in_float32(dtype, backend, device):
    maps = maps_of(dtype, device)
    expected = gan_loss(maps, True, "vanilla", backend=backend)
    assert expected.dtype == statistics_dtype(dtype)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        assert torch.equal(gan_loss(maps, True, "vanilla", backend=backend), expected)


@pytest.mark.interpreted(one_in=0)
@one_of_each_mode
def test_one_thread_and_several_give_the_same_bits_in_every_run(loss, kernel, device):
    maps = maps_of(torch.float32, device, [(1, 1, 260, 300), (1, 1, 130, 150), (7,)])
    runs = []
    for threads in (1, 2, 2, 3):
        torch.set_num_threads(threads)
        runs.append(with_gradients(lambda leaves: loss(leaves, kernel), maps))
    for value, grads in runs[1:]:
        assert torch.equal(value, runs[0][0])
        assert all(map(torch.equal, grads, runs[0][1]))


# --- bad arguments ---------------------------------------------------------------------------------------

P = torch.zeros(1, 1, 4, 4)


def bad(error: type[Exception], sentence: str, predictions: object = P, **arguments: object):
    return pytest.param({"predictions": predictions, "target_is_real": True, **arguments}, error, sentence, id=sentence)


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        bad(ValueError, "mode must be one of vanilla, lsgan, hinge, wgan, got 'wgangp'", mode="wgangp"),
        bad(ValueError, "mode must be one of vanilla, lsgan, hinge, wgan, got None", mode=None),
        bad(ValueError, "hinge has no generator loss towards fake: target_is_real must be True, got False",
            mode="hinge", target_is_real=False, for_discriminator=False),
        bad(TypeError, "target_is_real must be True or False, got Tensor", target_is_real=torch.ones_like(P)),
        bad(TypeError, "for_discriminator must be True or False, got NoneType", for_discriminator=None),
        bad(TypeError, "predictions must be a Tensor or a list of them, got float", 1.0),
        bad(TypeError, "predictions must be a Tensor or a list of them, got dict", {"map": P}),
        bad(ValueError, "predictions must hold at least one map, got an empty list", []),
        bad(TypeError, "predictions must hold Tensors or lists of them, got float", [P, 1.0]),
        bad(ValueError, "predictions must not hold an empty feature list", [[P], []]),
        bad(TypeError, "predictions[1] must be a Tensor, got list", [P, [P, [P]]]),
        bad(TypeError, "predictions must be float32, bfloat16, float16 or float64, got torch.int64", P.long()),
        bad(ValueError, "predictions must not be empty, got shape (1, 1, 0, 4)", P[:, :, :0]),
        bad(ValueError, "predictions[1] must not be empty, got shape (0, 1, 4, 4)", [P, P[:0]]),
        bad(ValueError, "predictions[1] must be torch.float32 on cpu like the first map, got torch.float64 on cpu",
            [P, P.double()]),
        bad(ValueError, "predictions[1] must be torch.float32 on cpu like the first map, got torch.float32 on meta",
            [P, P.to("meta")]),
        bad(ValueError, "backend must be one of native, triton, compile, reference or None, got 'cpp'", backend="cpp"),
    ],
)  # fmt: skip
def test_a_bad_argument_is_named_with_what_was_expected_and_what_came(arguments, error, sentence):
    with pytest.raises(error, match=re.escape(sentence)):
        gan_loss(**arguments)


tensors = st.builds(
    lambda shape, dtype: torch.ones(shape, dtype=dtype),
    st.lists(st.integers(0, 5), max_size=5),
    st.sampled_from([*DTYPES, torch.int64]),
)
collections = st.recursive(st.one_of(tensors, st.none()), lambda inner: st.lists(inner, max_size=4), max_leaves=6)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    predictions=collections,
    target_is_real=st.one_of(st.booleans(), st.none()),
    mode=st.sampled_from(["vanilla", "lsgan", "hinge", "wgan", "wgangp"]),
    for_discriminator=st.booleans(),
    backend=st.sampled_from([None, "native", "reference", "triton", "vulkan"]),
)
def test_any_arguments_give_a_scalar_or_a_documented_error(predictions, **options):
    try:
        loss = gan_loss(predictions, **options)
    except (TypeError, ValueError, BackendUnavailableError):
        return
    assert loss.shape == ()
    assert loss.isfinite()
