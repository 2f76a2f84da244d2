"""The CUDA kernels of ``norm_act`` where the shape of the device or of the tensors sends them other ways."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from cuda_on_cpu import build, harness
from norm_act_case import Case, eager, laid_out, oracle, ours, random_inputs
from op_testing import assert_as_exact_as_eager, channels_last, contiguous, every_second, misaligned

from torchp2p.ops import _native, norm_act

pytestmark = pytest.mark.skipif(bool(build.unavailable()), reason=build.unavailable())
CPU = torch.device("cpu")


@pytest.fixture
def native(cuda_on_cpu: harness.Native) -> Iterator[harness.Native]:
    """The CUDA kernels, installed; the device has its own limits again afterwards."""
    with harness.installed(cuda_on_cpu):
        yield cuda_on_cpu
    cuda_on_cpu.grid.set_device()


def assert_exact(case, inputs):
    found, exact, in_eager = ours(case, inputs, "native"), oracle(case, inputs), eager(case, inputs)
    for name, value in exact.results.items():
        assert_as_exact_as_eager(name, found[name], in_eager[name], value, exact.magnitudes.get(name))


dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)


@dtypes
@pytest.mark.parametrize("layout", [contiguous, misaligned, every_second], ids=lambda f: f.__name__)
@pytest.mark.parametrize(
    "case",
    [
        Case("instance", pad=2, affine=True, residual=True, shape=(2, 3, 13, 11)),
        Case("batch", "relu", pad=1, pad_mode="replicate", affine=True, residual=True, shape=(5, 3, 9, 11)),
        Case("batch", "tanh", pad=1, pad_mode="zeros", affine=True, shape=(4, 2, 9, 11), stat_groups=2),
    ],
    ids=str,
)
def test_units_that_do_not_fit_in_shared_memory_are_cut(case, layout, dtype, native):
    native.grid.set_device(shared_per_block=2500)
    assert_exact(case, laid_out(random_inputs(case, dtype, CPU), layout))


@dtypes
@pytest.mark.parametrize("layout", [contiguous, channels_last], ids=lambda f: f.__name__)
@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_the_warps_of_a_small_device_go_from_plane_to_plane(norm, layout, dtype, native):
    native.grid.set_device(multiprocessors=1, shared_per_block=30000)
    case = Case(norm, affine=True, residual=True, given=True, pad=1, shape=(9, 17, 3, 5))
    assert_exact(case, laid_out(random_inputs(case, dtype, CPU), layout))


@dtypes
@pytest.mark.parametrize("layout", [contiguous, channels_last], ids=lambda f: f.__name__)
def test_large_planes_are_taken_in_pieces_and_their_statistics_in_chunks(layout, dtype, native):
    case = Case("instance", pad=3, affine=True, residual=True, shape=(1, 2, 97, 131))
    assert_exact(case, laid_out(random_inputs(case, dtype, CPU), layout))


@dtypes
@pytest.mark.parametrize("layout", [contiguous, channels_last], ids=lambda f: f.__name__)
def test_many_small_samples_share_a_chunk(layout, dtype, native):
    case = Case("batch", affine=True, shape=(300, 9, 6, 6))
    assert_exact(case, laid_out(random_inputs(case, dtype, CPU), layout))


def test_statistics_are_the_same_whether_units_fit_in_shared_memory_or_not(native):
    x = torch.randn(2, 3, 25, 33) + 1000
    results = []
    for shared in (99 * 1024, 2500):
        native.grid.set_device(shared_per_block=shared)
        mean, var = torch.zeros(3), torch.zeros(3)
        norm_act(x, norm="batch", running_mean=mean, running_var=var, momentum=1.0, backend="native")
        results.append((mean, var))
    torch.testing.assert_close(*results, rtol=1e-6, atol=0)


def test_a_grid_that_the_device_refuses_is_named_with_its_sizes(native):
    native.grid.set_device(shared_per_block=1024)
    words = (
        r"native norm_act_forward failed with status CUDA error on x of shape \(2, 3, 4, 5\): norm_act_pixel_moments "
        r"on a grid of 2x1x1 blocks of 128x1x1 threads with 12288 bytes of shared memory: .* \(cudaErrorInvalid"
    )
    with pytest.raises(RuntimeError, match=words):
        norm_act(channels_last(torch.randn(2, 3, 4, 5)), backend="native")


def test_nothing_is_launched_for_empty_tensors(native):
    x = torch.empty(2, 3, 0, 5)
    assert norm_act(x, norm="none", backend="native").shape == x.shape
    shape, stride, options = x.shape, x.stride(), (0, 1, 2, 1e-5, 0, 0.2, 0, 0, False)
    assert native.module.norm_act_scratch(shape, *options) == 0
    assert native.module.norm_act_forward(*(0,) * 8, shape, stride, stride, *options, 0, 0) == 0


@pytest.mark.parametrize(
    "options",
    [(0, 1, 3, 1e-5, 0, 0.2, 0, 0, False), (7, 1, 2, 1e-5, 0, 0.2, 0, 0, False), (0, 1, 2, 1e-5, 0, 0.2, -1, 0, False)],
    ids=["groups that do not divide", "an unknown dtype", "a negative pad"],
)
def test_what_python_should_have_refused_is_a_bad_argument(options, native):
    x = torch.randn(2, 3, 4, 5)
    status = native.module.norm_act_forward(*(0,) * 8, x.shape, x.stride(), x.stride(), *options, 0, 0)
    assert _native.C.status_name(status) == "bad argument"


def test_gradients_of_weight_and_bias_alone_need_no_gradient_of_x(native):
    case = Case("none", affine=True, residual=True)
    inputs = random_inputs(case, torch.float32, CPU)
    assert_exact(case, replace(inputs, grad_y=inputs.grad_y[:1].expand_as(inputs.grad_y)))
