"""The mathematics of ``instance_avg_pool``: every backend against the definition, in float64 and exactly."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from op_testing import DTYPES, LAYOUTS, assert_as_exact_as_eager, channels_last, doubled, leaf, ulps_from
from torch import Tensor

from torchp2p.data.demo import draw_scene
from torchp2p.data.images import read_ids
from torchp2p.ops import instance_avg_pool
from torchp2p.reference.norm_act import statistics_dtype

OP = "instance_avg_pool"
ON_THE_GRID = True
ID_DTYPES = (
    torch.uint8, torch.int8, torch.uint16, torch.int16, torch.uint32, torch.int32, torch.uint64, torch.int64,
)  # fmt: skip
ID_LAYOUTS = ("contiguous", "cropped", "transposed", "every_second", "misaligned")

every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch."))
either_layout = pytest.mark.parametrize("layout", [LAYOUTS["contiguous"], channels_last], ids=lambda f: f.__name__)


def definition(x: Tensor, ids: Tensor) -> Tensor:
    """Sample by sample and id by id, as the formula reads; differentiable."""
    samples = []
    for sample, row in zip(x, ids.to(torch.int64), strict=True):
        pooled = torch.zeros_like(sample)
        for value in row.unique():
            mask = row == value
            mean = (sample * mask).sum((1, 2), keepdim=True) / mask.sum()
            pooled = torch.where(mask, mean, pooled)
        samples.append(pooled)
    return torch.stack(samples)


def eager(x: Tensor, ids: Tensor) -> Tensor:
    """As a user of torch would write it, in the accumulator's dtype."""
    samples = []
    for sample, row in zip(x.to(statistics_dtype(x.dtype)), ids.to(torch.int64), strict=True):
        values, ranks = row.flatten().unique(return_inverse=True)
        sums = sample.new_zeros(len(values), len(sample)).index_add(0, ranks, sample.flatten(1).T)
        means = sums / torch.bincount(ranks).unsqueeze(1)
        samples.append(means[ranks].T.reshape(sample.shape))
    return torch.stack(samples).to(x.dtype)


def patches(shape: tuple[int, ...], device: torch.device, values: int = 5, size: int = 4) -> Tensor:
    """An id map (N, 1, H, W) of squares and of single pixels; int32."""
    n, _, h, w = shape
    coarse = torch.randint(values, (n, 1, h // size + 1, w // size + 1))
    ids = coarse.repeat_interleave(size, 2).repeat_interleave(size, 3)[:, :, :h, :w]
    single = torch.rand(n, 1, h, w) < 0.1
    return torch.where(single, torch.randint(values, (n, 1, h, w)), ids).to(device, torch.int32)


def pooled_and_gradient(function, x: Tensor, ids: Tensor, grad_y: Tensor) -> dict[str, Tensor]:
    x = leaf(x)
    y = function(x, ids)
    return {"y": y.detach(), "grad_x": torch.autograd.grad(y, x, grad_y)[0]}


def assert_exact(x: Tensor, ids: Tensor, grad_y: Tensor, backend: str) -> None:
    """Result and gradient against the oracle: the mean in float64, rounded once, is twice as exact as asked for."""
    found = pooled_and_gradient(lambda x, ids: instance_avg_pool(x, ids, backend=backend), x, ids, grad_y)
    in_eager = pooled_and_gradient(eager, x, ids, grad_y)
    exact_x, exact_grad = doubled((x, grad_y))
    exact = pooled_and_gradient(definition, exact_x, ids, exact_grad)
    for name, value in exact.items():
        assert_as_exact_as_eager(name, found[name], in_eager[name], value, magnitude=4 * x.abs().max().item())
        if x.dtype != torch.float64:
            assert ulps_from(found[name], value).max() < 0.55, name


SHAPE = (2, 3, 9, 11)


def random_case(dtype: torch.dtype, device: torch.device, shape: tuple[int, ...] = SHAPE, values: int = 5):
    return (
        torch.randn(shape).to(device, dtype),
        patches(shape, device, values),
        torch.randn(shape).to(device, dtype),
    )


# --- against the oracle ----------------------------------------------------------------------------------


@either_layout
@every_dtype
def test_result_and_gradient_match_the_float64_oracle(dtype, layout, backend, device):
    x, ids, grad_y = random_case(dtype, device)
    assert_exact(layout(x), ids, layout(grad_y), backend)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
@every_dtype
def test_the_image_may_lie_in_memory_in_any_way(dtype, layout, backend, device):
    x, ids, grad_y = random_case(dtype, device)
    assert_exact(layout(x), ids, grad_y, backend)


@pytest.mark.parametrize("x_layout", [LAYOUTS["contiguous"], channels_last], ids=lambda f: f"x_{f.__name__}")
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_the_incoming_gradient_may_lie_in_memory_in_any_way(layout, x_layout, backend, device):
    x, ids, grad_y = random_case(torch.float32, device)
    assert_exact(x_layout(x), ids, layout(grad_y), backend)


@either_layout
@pytest.mark.parametrize("id_dtype", [torch.uint8, torch.int16, torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("id_layout", ID_LAYOUTS)
def test_ids_may_lie_in_memory_in_any_way(id_layout, id_dtype, layout, backend, device):
    x, ids, grad_y = random_case(torch.float32, device)
    assert_exact(layout(x), LAYOUTS[id_layout](ids.to(id_dtype)), grad_y, backend)


def test_one_map_of_ids_may_be_expanded_over_the_batch(backend, device):
    x, ids, grad_y = random_case(torch.float32, device, (3, 3, 9, 11))
    assert_exact(x, ids[:1].expand(3, -1, -1, -1), grad_y, backend)


def test_ids_without_a_channel_axis_are_the_same_ids(backend, device):
    x, ids, _ = random_case(torch.float32, device)
    without = instance_avg_pool(x, ids[:, 0], backend=backend)
    assert torch.equal(without, instance_avg_pool(x, ids, backend=backend))


def test_the_gradient_of_a_concatenation_flows_through(backend, device):
    x, ids, _ = random_case(torch.float32, device)
    labels, grad = torch.randn(2, 5, 9, 11, device=device), torch.randn(2, 8, 9, 11, device=device)
    x.requires_grad_()
    y = torch.cat([labels, instance_avg_pool(x, ids, backend=backend)], 1)
    assert torch.equal(torch.autograd.grad(y, x, grad)[0], definition(grad[:, 5:].double(), ids).float())


@either_layout
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "shape",
    [
        (1, 1, 1, 1), (1, 1, 1, 2), (3, 1, 2, 1), (1, 3, 64, 1), (1, 2, 1, 64), (2, 1, 5, 5), (2, 7, 3, 16),
        (1, 8, 4, 4), (1, 15, 3, 5), (1, 16, 3, 5), (2, 17, 2, 3), (1, 31, 2, 9), (1, 32, 2, 2), (1, 33, 3, 7),
        (1, 65, 3, 1), (3, 2, 1, 17), (1, 3, 1, 127), (1, 3, 2, 129), (2, 3, 40, 50), (1, 130, 5, 7),
    ],
    ids=lambda s: "x".join(map(str, s)),
)  # fmt: skip
def test_any_shape_fills_and_leaves_registers_alike(shape, dtype, layout, backend, device):
    x, ids, grad_y = random_case(dtype, device, shape)
    assert_exact(layout(x), ids, layout(grad_y), backend)


@either_layout
@pytest.mark.parametrize("shape", [(1, 3, 100, 130), (2, 2, 9, 9001), (1, 2, 20000, 2), (3, 4, 64, 128)], ids=str)
def test_images_of_many_bands_share_ids_between_them(shape, layout, backend, device):
    x, ids, grad_y = random_case(torch.float32, device, shape)
    assert_exact(layout(x), ids, layout(grad_y), backend)


@either_layout
def test_samples_of_a_batch_of_many_pixels_do_not_mix(layout, backend, device):
    shape = (3, 2, 300, 900)
    ids = patches(shape, device, values=40, size=100)
    x = layout(torch.randn(shape, device=device))
    whole = instance_avg_pool(x, ids, backend=backend)
    for n in range(3):
        alone = instance_avg_pool(x[n : n + 1], ids[n : n + 1], backend="reference")
        torch.testing.assert_close(whole[n : n + 1], alone, rtol=0, atol=2e-7)


# --- exactly ---------------------------------------------------------------------------------------------


@either_layout
@every_dtype
def test_means_that_can_be_represented_are_exact(dtype, layout, backend, device):
    ids = torch.tensor([[1, 1, 2], [1, 3, 2]], device=device).view(1, 1, 2, 3)
    x = torch.tensor([[[0, 4, 7], [5, -6, 9]], [[1, 1, 100], [-8, 0.5, 102]]], dtype=dtype, device=device)[None]
    y = instance_avg_pool(layout(x), ids, backend=backend)
    assert y[0].tolist() == [[[3, 3, 8], [3, -6, 8]], [[-2, -2, 101], [-2, 0.5, 101]]]


def test_equal_ids_of_different_samples_have_nothing_to_do_with_each_other(backend, device):
    x = torch.tensor([1.0, 3.0, 10.0, 30.0], device=device).view(2, 1, 1, 2)
    ids = torch.full((2, 1, 1, 2), 7, device=device)
    assert instance_avg_pool(x, ids, backend=backend).flatten().tolist() == [2, 2, 20, 20]


@either_layout
@pytest.mark.parametrize("id_dtype", ID_DTYPES, ids=str)
def test_every_integer_dtype_holds_its_extremes_as_ids(id_dtype, layout, backend, device):
    info = torch.iinfo(id_dtype)
    values = [info.min, info.max, 0, 1, info.max // 2, info.max - 1, info.min + 1, 33001 % info.max]
    ranks = torch.randint(len(values), (2, 1, 6, 7))
    ids = torch.tensor(values, dtype=id_dtype)[ranks].to(device)
    x = layout(torch.randint(-8, 8, (2, 3, 6, 7)).float().to(device))
    found = instance_avg_pool(x, ids, backend=backend)
    assert torch.equal(found, definition(x.double(), ids).float())


def test_a_mask_divides_an_image_in_two(backend, device):
    mask = torch.tensor([[True, False, True]], device=device).view(1, 1, 1, 3)
    x = torch.tensor([1.0, 2.0, 5.0], device=device).view(1, 1, 1, 3)
    assert instance_avg_pool(x, mask, backend=backend).flatten().tolist() == [3, 2, 3]


@pytest.mark.parametrize("values", [[33001, -1, 65535, -32535], [2**63 - 1, -(2**63), 2**31, -(2**31)]], ids=str)
def test_ids_are_told_apart_by_all_their_bits(values, backend, device):
    ids = torch.tensor(values, device=device).view(1, 1, 1, -1)
    x = torch.arange(4.0, device=device).view(1, 1, 1, -1)
    assert torch.equal(instance_avg_pool(x, ids, backend=backend), x)


@pytest.mark.parametrize("stride", [1, 1000, 2**32, 2**48], ids=str)
@either_layout
def test_every_pixel_may_be_an_instance_of_its_own(layout, stride, backend, device):
    shape = (2, 3, 33, 301)
    ids = torch.randperm(2 * 33 * 301, device=device).view(2, 1, 33, 301) * stride
    x = layout(torch.randn(shape, device=device))
    assert torch.equal(instance_avg_pool(x, ids, backend=backend), x)


@either_layout
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_pooling_twice_changes_no_bit(dtype, layout, backend, device):
    x, ids, _ = random_case(dtype, device, (2, 3, 40, 50), values=30)
    once = instance_avg_pool(layout(x), ids, backend=backend)
    assert torch.equal(instance_avg_pool(once, ids, backend=backend), once)


def test_means_of_float16_do_not_overflow(backend, device):
    x = torch.full((1, 1, 64, 64), 60000.0, dtype=torch.float16, device=device)
    ids = torch.zeros(1, 1, 64, 64, dtype=torch.uint8, device=device)
    assert torch.equal(instance_avg_pool(x, ids, backend=backend), x)


def test_small_differences_from_a_large_mean_survive(backend, device):
    x = (1e6 + torch.randn(1, 2, 200, 300, dtype=torch.float64)).to(device, torch.float32)
    ids = patches((1, 1, 200, 300), device, values=3, size=64)
    found = instance_avg_pool(x, ids, backend=backend)
    assert (found.double() - definition(x.double(), ids)).abs().max() <= 2**-4  # half a unit in the last place


@either_layout
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_nan_or_infinity_stays_within_its_sample_channel_and_id(bad, layout, backend, device):
    x, ids, _ = random_case(torch.float32, device)
    clean = instance_avg_pool(layout(x), ids, backend=backend)
    x[1, 2, 3, 4] = bad
    found = instance_avg_pool(layout(x), ids, backend=backend)
    reached = torch.zeros(x.shape, dtype=torch.bool, device=device)
    reached[1, 2] = ids[1, 0] == ids[1, 0, 3, 4]
    assert torch.equal(found[~reached], clean[~reached])
    torch.testing.assert_close(found[reached], torch.full_like(found[reached], bad), equal_nan=True)


def test_infinities_of_both_signs_make_a_nan_of_the_mean_they_meet_in(backend, device):
    ids = torch.tensor([1, 2, 1, 3], device=device).view(1, 1, 1, 4)
    x = torch.tensor([float("inf"), 5.0, -float("inf"), 7.0], device=device).view(1, 1, 1, 4)
    found = instance_avg_pool(x, ids, backend=backend).flatten().tolist()
    assert [str(value) for value in found] == ["nan", "5.0", "nan", "7.0"]


@every_dtype
def test_an_instance_of_tiny_values_keeps_its_digits_beside_one_of_huge_values(dtype, backend, device):
    ids = patches((1, 1, 20, 30), device, values=2, size=3)
    size = torch.finfo(dtype).max ** 0.4
    x = torch.rand(1, 2, 20, 30, device=device, dtype=torch.float64) + 0.5
    x = torch.where(ids == 0, x * size, x / size).to(dtype)
    found, exact = instance_avg_pool(x, ids, backend=backend), definition(x.double(), ids)
    # In float64 the definition rounds as often as we do.
    assert ulps_from(found, exact).max() <= (16 if dtype == torch.float64 else 0.55)


# --- real maps -------------------------------------------------------------------------------------------


def assert_pools_a_map(ids: Tensor, backend: str) -> None:
    x = torch.randn(1, 3, *ids.shape[2:])
    exact = eager(x.double(), ids)
    for layout in (LAYOUTS["contiguous"], channels_last):
        torch.testing.assert_close(
            instance_avg_pool(layout(x), ids, backend=backend).double(), exact, rtol=0, atol=2e-7
        )


def test_a_drawn_street_is_pooled(backend):
    inst = torch.from_numpy(draw_scene((128, 256), seed=3).inst)[None, None]
    assert len(inst.unique()) > 10
    assert_pools_a_map(inst, backend)


@pytest.mark.cityscapes
def test_a_real_street_is_pooled(cityscapes: Path, backend):
    inst = torch.from_numpy(read_ids(min((cityscapes / "test_inst").iterdir())))[None, None]
    assert_pools_a_map(inst, backend)


# --- derivatives -----------------------------------------------------------------------------------------


def test_the_gradient_and_the_double_gradient_are_the_derivatives(backend, device):
    x, ids, _ = random_case(torch.float64, device, (2, 2, 3, 4))
    x.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: instance_avg_pool(x, ids, backend=backend), x)
    assert torch.autograd.gradgradcheck(lambda x: instance_avg_pool(x.sin(), ids, backend=backend), x)


def test_every_gradient_is_the_pool_of_the_gradient_before_it(backend, device):
    x, ids, grad_y = random_case(torch.float32, device)
    x.requires_grad_()
    grad_y.requires_grad_()
    y = instance_avg_pool(x, ids, backend=backend)
    (grad_x,) = torch.autograd.grad(y, x, grad_y, create_graph=True)
    assert torch.equal(grad_x, instance_avg_pool(grad_y, ids, backend=backend))
    direction = torch.randn_like(grad_x).requires_grad_()
    (grad_grad,) = torch.autograd.grad(grad_x, grad_y, direction, create_graph=True)
    assert torch.equal(grad_grad, instance_avg_pool(direction, ids, backend=backend))
    (third,) = torch.autograd.grad(grad_grad, direction, grad_y)
    assert torch.equal(third, grad_x)


def test_the_operator_is_symmetric(backend, device):
    x, ids, other = random_case(torch.float64, device)
    one = (instance_avg_pool(x, ids, backend=backend) * other).sum()
    two = (instance_avg_pool(other, ids, backend=backend) * x).sum()
    torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)


def test_the_compiled_reference_gives_the_same_numbers(device):
    for layout in (LAYOUTS["contiguous"], channels_last):
        x, ids, grad_y = random_case(torch.float32, device)
        assert_exact(layout(x), ids, grad_y, "compile")


# --- sizes of nothing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 0, 4, 5), (2, 3, 0, 5), (2, 3, 4, 0), (0, 0, 0, 0)], ids=str)
def test_nothing_pools_to_nothing(shape, backend, device):
    x = torch.randn(shape, device=device, requires_grad=True)
    n, _, h, w = shape
    y = instance_avg_pool(x, torch.zeros(n, 1, h, w, dtype=torch.int32, device=device), backend=backend)
    assert y.shape == shape
    y.sum().backward()
    assert x.grad.shape == shape
