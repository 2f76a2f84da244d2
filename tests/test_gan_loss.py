"""``gan_loss``: every mode against torch's own losses and the float64 oracle, on any collection of maps."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from gan_loss_case import EVERY_LOSS, ONE_OF_EACH_MODE, Loss, exact, maps_of, with_gradients
from op_testing import (
    DTYPES,
    HALF_DTYPES,
    LAYOUTS,
    assert_as_exact_as_eager,
    assert_same_vector,
    channels_last,
    ulps_from,
)

from torchp2p.ops import gan_loss
from torchp2p.reference import gan_loss as reference
from torchp2p.reference.norm_act import statistics_dtype

OP = "gan_loss"
ON_THE_GRID = True
CPU = torch.device("cpu")

every_loss = pytest.mark.parametrize("loss", EVERY_LOSS, ids=str)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
one_of_each_mode = pytest.mark.parametrize("loss", ONE_OF_EACH_MODE, ids=str)


def assert_exact(loss, maps, backend):
    value, grads = with_gradients(lambda leaves: loss(leaves, backend), maps)
    oracle_value, oracle_grads = exact(loss, maps)
    accumulator = statistics_dtype(maps[0].dtype)
    eager_value = torch.stack([loss.eager(p.to(accumulator)) for p in maps]).sum()
    magnitude = sum(_largest_term(loss, p) for p in maps)
    assert_as_exact_as_eager("loss", value, eager_value, oracle_value, magnitude)
    _, eager_grads = with_gradients(lambda leaves: torch.stack([loss.eager(p) for p in leaves]).sum(), maps)
    for index, (grad, eager_grad, oracle_grad) in enumerate(zip(grads, eager_grads, oracle_grads, strict=True)):
        assert_as_exact_as_eager(f"grad[{index}]", grad, eager_grad, oracle_grad)
        if loss.mode in ("vanilla", "lsgan"):  # else all of it is one number, rounded one way
            assert_same_vector(f"grad[{index}]", grad, oracle_grad)


def _largest_term(loss, p):
    return max(loss.eager(value.view(1)).abs().item() for value in (p.double().max(), p.double().min()))


# --- the definition --------------------------------------------------------------------------------------


@every_loss
def test_the_reference_is_torchs_own_losses_in_float64(loss):
    maps = maps_of(torch.float64, CPU)
    value, slopes = exact(loss, maps)
    eager_value, eager_grads = with_gradients(lambda leaves: torch.stack([loss.eager(p) for p in leaves]).sum(), maps)
    torch.testing.assert_close(value, eager_value, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(tuple(slopes), eager_grads, rtol=1e-13, atol=1e-16)


@every_loss
def test_the_slopes_of_the_reference_are_the_derivative_of_its_value(loss):
    maps = maps_of(torch.float64, CPU)
    _, grads = with_gradients(lambda leaves: reference.gan_loss(leaves, *loss.options), maps)
    torch.testing.assert_close(tuple(exact(loss, maps)[1]), grads, rtol=1e-13, atol=1e-16)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (Loss("lsgan", True), 2.0 + 9.0), (Loss("lsgan", False), 1.0 + 4.0),
        (Loss("hinge", True), 1.0 + 3.0), (Loss("hinge", False), 1.0 + 0.0),
        (Loss("hinge", True, for_discriminator=False), 0.0 + 2.0),
        (Loss("wgan", True), 0.0 + 2.0), (Loss("wgan", False), -0.0 - 2.0),
    ],
    ids=str,
)  # fmt: skip
def test_means_over_a_map_are_summed_over_maps(loss, expected, backend, device):
    maps = [torch.tensor([0.0, 0.0, 1.0, -1.0], device=device) * math.sqrt(2), torch.tensor([-2.0], device=device)]
    if loss.mode == "hinge":
        maps[0] = maps[0] / math.sqrt(2)
    assert loss(maps, backend).item() == pytest.approx(expected, abs=1e-6)


# --- against the oracle ----------------------------------------------------------------------------------


@pytest.mark.interpreted(one_in=4)
@every_dtype
@every_loss
def test_value_and_gradients_match_the_float64_oracle(loss, dtype, backend, device):
    assert_exact(loss, maps_of(dtype, device), backend)


@pytest.mark.interpreted(one_in=8)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@one_of_each_mode
@pytest.mark.parametrize("size", [1, 2, 7, 8, 15, 16, 17, 63, 65, 1023, 1025, 8191, 8193, 20011])
def test_any_number_of_values_fills_and_leaves_registers_alike(size, loss, dtype, backend, device):
    assert_exact(loss, maps_of(dtype, device, [(size,)]), backend)


@pytest.mark.parametrize("shape", [(), (5,), (3, 4), (2, 3, 4), (2, 3, 4, 5), (1, 2, 3, 2, 3)], ids=str)
def test_a_map_may_have_any_number_of_dimensions(shape, backend, device):
    assert_exact(Loss("vanilla", True), maps_of(torch.float32, device, [shape]), backend)


@pytest.mark.interpreted(one_in=8)
@one_of_each_mode
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_maps_may_lie_in_memory_in_any_way(layout, dtype, loss, backend, device):
    maps = [layout(p) for p in maps_of(dtype, device, [(2, 3, 9, 11), (2, 1, 5, 6)])]
    assert_exact(loss, maps, backend)
    _, grads = with_gradients(lambda leaves: loss(leaves, backend), maps)
    for grad in grads:
        dense_as = channels_last if layout is channels_last else LAYOUTS["contiguous"]
        assert grad.stride() == dense_as(grad).stride()


@pytest.mark.interpreted(one_in=0)
@pytest.mark.parametrize("count", [60, 64, 65, 130])
def test_many_maps_are_reduced_at_once(count, backend, device):
    shapes = [(1, 1, 3 + index % 60, 7) for index in range(count)]
    assert_exact(Loss("vanilla", False), maps_of(torch.float32, device, shapes), backend)


# --- collections -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", [list, tuple])
@one_of_each_mode
def test_the_last_of_a_feature_list_is_the_map(loss, wrap, backend, device):
    maps = maps_of(torch.float32, device)
    features = [torch.full_like(p, 1e4) for p in maps]
    expected = loss(maps, backend)
    assert torch.equal(loss(wrap(wrap((f, p)) for f, p in zip(features, maps, strict=True)), backend), expected)
    assert torch.equal(loss(wrap([maps[0], [features[0], maps[1]], (maps[2],)]), backend), expected)


def test_features_before_the_last_take_no_gradient(backend, device):
    feature, prediction = (torch.randn(1, 1, 4, 4, device=device, requires_grad=True) for _ in range(2))
    gan_loss([[feature, prediction]], True, backend=backend).backward()
    assert feature.grad is None
    assert prediction.grad is not None


def test_a_map_alone_is_a_list_of_one(backend, device):
    (p,) = maps_of(torch.float32, device, [(2, 1, 6, 6)])
    assert torch.equal(gan_loss(p, True, backend=backend), gan_loss([p], True, backend=backend))


def test_a_map_given_twice_counts_twice(backend, device):
    p = torch.randn(1, 1, 5, 5, device=device, requires_grad=True)
    once, twice = (torch.autograd.grad(gan_loss(maps, True, backend=backend), p)[0] for maps in ([p], [p, p]))
    torch.testing.assert_close(twice, 2 * once)


# --- hard numbers ----------------------------------------------------------------------------------------


@pytest.mark.interpreted(one_in=3)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("real", [True, False])
@pytest.mark.parametrize("value", [1e4, -1e4, 30.0, -30.0, 88.0, -88.0, 20.5, -20.5, 1e-6, -1e-6, 0.0])
def test_vanilla_is_relatively_exact_at_any_logit(value, real, dtype, backend, device):
    p = torch.full((1, 1, 3, 7), value, dtype=dtype, device=device, requires_grad=True)
    loss = gan_loss(p, real, "vanilla", backend=backend)
    (grad,) = torch.autograd.grad(loss, p)
    q = torch.tensor(value, dtype=dtype).item() * (-1 if real else 1)
    exact_loss = max(q, 0.0) + math.log1p(math.exp(-abs(q)))
    exact_slope = (-1 if real else 1) * (math.exp(min(q, 0.0)) / (1 + math.exp(-abs(q)))) / p.numel()
    assert ulps_from(loss.detach().cpu(), torch.tensor(exact_loss, dtype=torch.float64)) <= 4
    assert ulps_from(grad.cpu(), torch.full(p.shape, exact_slope, dtype=torch.float64)).max() <= 4


@pytest.mark.interpreted(one_in=3)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("real", [True, False])
@pytest.mark.parametrize("size", [1024, 3000])
@pytest.mark.parametrize("most", [0.0, 1.0, 15.99, 16.01, 40.0])
def test_vanilla_is_exact_for_blocks_of_any_largest_logit(most, size, real, dtype, backend, device):
    p = torch.linspace(-most, most, size, device=device).reshape(1, 1, 1, size).to(dtype).requires_grad_()
    loss = gan_loss(p, real, "vanilla", backend=backend)
    (grad,) = torch.autograd.grad(loss, p)
    oracle = p.detach().double().cpu().requires_grad_()
    expected = F.binary_cross_entropy_with_logits(oracle, torch.full_like(oracle, float(real)))
    (expected_grad,) = torch.autograd.grad(expected, oracle)
    torch.testing.assert_close(loss.detach().cpu().double(), expected.detach(), rtol=2e-7, atol=0)
    assert_same_vector("gradient", grad.cpu(), expected_grad)


@pytest.mark.parametrize("value", [10.0, -10.0])
def test_vanilla_is_exact_where_one_of_many_says_otherwise(value, backend, device):
    p = torch.full((1, 1, 1, 1024), value, device=device)
    p[..., 77] = -1e-3
    oracle = p.double().cpu()
    expected = F.binary_cross_entropy_with_logits(oracle, torch.ones_like(oracle))
    torch.testing.assert_close(
        gan_loss(p, True, "vanilla", backend=backend).cpu().double(), expected, rtol=2e-7, atol=0
    )


def test_the_gradient_of_vanilla_at_zero_is_half(backend, device):
    p = torch.zeros(1, 1, 2, 2, device=device, requires_grad=True)
    for real, expected in ((True, -0.125), (False, 0.125)):
        (grad,) = torch.autograd.grad(gan_loss(p, real, "vanilla", backend=backend), p)
        assert torch.equal(grad, torch.full_like(p, expected))


@pytest.mark.parametrize(("real", "margin"), [(True, 1.0), (False, -1.0)])
def test_hinge_is_flat_at_its_margin_and_beyond(real, margin, backend, device):
    outside = margin * torch.tensor([1.0, 1.0 + 1e-6, 2.0, 1e4], device=device)
    inside = margin * torch.tensor([1.0 - 1e-6, 0.0, -5.0, -1e4], device=device)
    sign = -margin
    _, (grad,) = with_gradients(lambda p: gan_loss(p, real, "hinge", backend=backend), [outside])
    assert torch.equal(grad, torch.zeros_like(grad))
    _, (grad,) = with_gradients(lambda p: gan_loss(p, real, "hinge", backend=backend), [inside])
    assert torch.equal(grad, torch.full_like(grad, sign / 4))


@pytest.mark.parametrize("dtype", HALF_DTYPES, ids=str)
@pytest.mark.parametrize("scale", [65536.0, 1e-3])
def test_half_precision_gradients_survive_a_loss_scale(scale, dtype, backend, device):
    p = (-6 + torch.randn(1, 1, 128, 128, device=device)).to(dtype)
    _, (grad,) = with_gradients(lambda maps: scale * gan_loss(maps, False, "vanilla", backend=backend), [p])
    oracle = scale * reference.gan_loss_slopes([p.double()], False, "vanilla", True)[0]
    assert_as_exact_as_eager("grad", grad, oracle.to(dtype), oracle)
    if scale > 1:
        assert_same_vector("grad", grad, oracle)


@pytest.mark.interpreted(one_in=4)
@every_loss
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_nan_or_infinity_spoils_what_it_spoils_in_torch_and_nothing_else(bad, loss, backend, device):
    maps = maps_of(torch.float32, device, [(1, 1, 5, 5)])
    maps[0][0, 0, 2, 3] = bad
    found = with_gradients(lambda leaves: loss(leaves, backend), maps)
    # torch's cross-entropy makes 0 * infinity of an infinite logit; its softplus has the limit.
    softplus = {True: lambda p: F.softplus(-p).mean(), False: lambda p: F.softplus(p).mean()}
    function = softplus[loss.real] if loss.mode == "vanilla" else loss.eager
    expected = with_gradients(lambda leaves: function(leaves[0]), maps)
    torch.testing.assert_close(found, expected, equal_nan=True)


def test_the_compiled_reference_gives_the_same_numbers(device):
    assert_exact(Loss("vanilla", True), maps_of(torch.float32, device), "compile")
