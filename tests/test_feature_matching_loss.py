"""The mathematics of ``feature_matching_loss``: every backend against torch's L1 loss and the float64 oracle."""

from __future__ import annotations

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from feature_matching_case import SHAPES, WEIGHTS, assert_exact, eager, ours, random_pairs
from op_testing import DTYPES, HALF_DTYPES, LAYOUTS, channels_last, recorded_calls
from torch import Tensor

from torchp2p.ops import feature_matching_loss
from torchp2p.reference.norm_act import statistics_dtype

OP = "feature_matching_loss"
ON_THE_GRID = True

every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
every_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())


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


def test_any_number_of_pairs_in_any_layout_is_one_loss(backend, device):
    # Every second value in each of six dimensions: no two of them can be walked through as one.
    fake, real = random_pairs([(3, 2 + i % 4, 5) for i in range(20)] + [(4,) * 6] * 14, torch.float32, device)
    real[20:] = [torch.zeros((4,) * 6, device=device).copy_(r) for r in real[20:]]
    halves = (slice(None, None, 2),) * 6
    fake[20:], real[20:] = [f[halves] for f in fake[20:]], [r[halves] for r in real[20:]]
    assert_exact(fake, real, [1.0 + i % 3 for i in range(34)], backend)


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
