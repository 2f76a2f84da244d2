"""``instance_avg_pool`` as a citizen of torch: registration, torch.compile, layouts, threads, bad arguments, module."""

from __future__ import annotations

import copy
import pickle
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from op_testing import DTYPES, LAYOUTS, channels_last, is_dense_in_the_layout_of, leaf, recorded_calls, saved_tensors

from torchp2p.nn import InstanceAvgPool2d
from torchp2p.ops import BackendUnavailableError, instance_avg_pool

OP = "instance_avg_pool"
contiguous = LAYOUTS["contiguous"]
either_layout = pytest.mark.parametrize("layout", [contiguous, channels_last], ids=lambda f: f.__name__)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def ids_like(x: torch.Tensor, values: int = 4) -> torch.Tensor:
    n, _, h, w = x.shape
    return torch.randint(values, (n, 1, h, w), device=x.device)


# --- registration ----------------------------------------------------------------------------------------


@pytest.mark.interpreted(one_in=8)
@pytest.mark.parametrize("requires_grad", [False, True], ids=["plain", "grad"])
@pytest.mark.parametrize("to_channels_last", [False, True], ids=["to_contiguous", "to_channels_last"])
@either_layout
@every_dtype
def test_the_operator_is_registered_as_torch_wants_it(dtype, layout, to_channels_last, requires_grad, backend, device):
    x = layout(torch.randn(2, 3, 5, 6, device=device).to(dtype)).requires_grad_(requires_grad)
    op = torch.ops.torchp2p.instance_avg_pool.default
    torch.library.opcheck(op, (x, ids_like(x), to_channels_last, backend))


@pytest.mark.parametrize("chosen", ["native", "compile", "reference"])
def test_the_result_has_memory_of_its_own_even_where_there_is_nothing_to_do(chosen):
    x = torch.randn(1, 1, 1, 1, requires_grad=True)
    y = instance_avg_pool(x, ids_like(x), backend=chosen)
    grad_y = torch.ones_like(y)
    (grad_x,) = torch.autograd.grad(y, x, grad_y)
    assert len({t.data_ptr() for t in (x, y, grad_y, grad_x)}) == 4


# --- torch.compile and the context -----------------------------------------------------------------------


@either_layout
def test_one_compilation_of_the_whole_graph_serves_every_size(layout, fresh_compiler, device):
    def step(x, ids):
        return instance_avg_pool(2 * x, ids).square().sum()

    compiled = torch.compile(step, backend="aot_eager", fullgraph=True, dynamic=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for size in ((2, 3, 9, 11), (3, 3, 12, 10), (4, 3, 7, 8)):
            x = layout(torch.randn(size, device=device))
            ids = ids_like(x)
            found, expected = (torch.autograd.grad(f(t, ids), t)[0] for f, t in ((compiled, leaf(x)), (step, leaf(x))))
            torch.testing.assert_close(found, expected)
            assert found.stride() == expected.stride()


def test_inductor_compiles_a_training_step(fresh_compiler, device):
    def step(x, ids):
        return instance_avg_pool(x.sin(), ids).square().sum()

    compiled = torch.compile(step, fullgraph=True)
    x = channels_last(torch.randn(2, 3, 9, 11, device=device)).requires_grad_()
    ids = ids_like(x)
    for _ in range(2):
        torch.testing.assert_close(*(torch.autograd.grad(f(x, ids), x)[0] for f in (compiled, step)))


def test_the_operator_exports(device):
    x = torch.randn(2, 3, 8, 8, device=device)
    sizes = {2: torch.export.Dim("height", min=2), 3: torch.export.Dim("width", min=2)}
    program = torch.export.export(InstanceAvgPool2d(), (x, ids_like(x)), dynamic_shapes=(sizes, sizes))
    other = torch.randn(2, 3, 5, 11, device=device)
    ids = ids_like(other)
    assert torch.equal(program.module()(other, ids), instance_avg_pool(other, ids))


@every_dtype
def test_under_autocast_the_result_follows_the_dtype_of_x(dtype, device):
    x = torch.randn(2, 3, 8, 8, device=device, dtype=dtype)
    ids = ids_like(x)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        y = instance_avg_pool(x, ids)
    assert torch.equal(y, instance_avg_pool(x, ids))


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_nothing_is_saved_where_no_gradient_is_wanted(context, backend, device):
    x = torch.randn(2, 3, 4, 5, device=device, requires_grad=True)
    ids = ids_like(x)
    with context():
        y = instance_avg_pool(x, ids, backend=backend)
        assert saved_tensors(lambda: instance_avg_pool(x, ids, backend=backend)) == []
    assert not y.requires_grad
    assert torch.equal(y, instance_avg_pool(x, ids, backend=backend))


def test_the_ids_are_saved_for_the_backward_and_nothing_else(backend, device):
    x = torch.randn(2, 3, 4, 5, device=device, requires_grad=True)
    ids = ids_like(x)
    (kept,) = saved_tensors(lambda: instance_avg_pool(x, ids, backend=backend))
    assert kept.data_ptr() == ids.data_ptr()


def test_the_meta_device_gives_shapes():
    x = torch.empty(2, 3, 4, 5, device="meta")
    assert instance_avg_pool(x, ids_like(x)).shape == x.shape


# --- layouts ---------------------------------------------------------------------------------------------


@pytest.mark.interpreted(one_in=4)
@pytest.mark.parametrize("grad_layout", ["contiguous", "channels_last", "channel_slice", "transposed"])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_result_and_gradient_are_dense_in_the_layout_of_x(layout, grad_layout, backend, device):
    x = leaf(layout(torch.randn(2, 3, 9, 11, device=device)))
    expected = channels_last if "channels_last" in layout.__name__ else contiguous
    y = instance_avg_pool(x, ids_like(x), backend=backend)
    (grad_x,) = torch.autograd.grad(y, x, LAYOUTS[grad_layout](torch.randn(2, 3, 9, 11, device=device)))
    assert y.stride() == expected(y).stride()
    assert grad_x.stride() == y.stride()


@pytest.mark.parametrize("grad_layout", ["contiguous", "channels_last", "channel_slice", "transposed", "expanded"])
@either_layout
def test_native_kernels_copy_no_image_forward_or_backward(layout, grad_layout, device):
    if device.type != "cpu":
        pytest.skip("the CPU kernels' promise")
    x = leaf(LAYOUTS["cropped"](layout(torch.randn(2, 3, 9, 11))))
    ids, grad_y = LAYOUTS["every_second"](ids_like(x)), LAYOUTS[grad_layout](torch.randn(2, 3, 9, 11))

    def step():
        torch.autograd.grad(instance_avg_pool(x, ids, backend="native"), x, grad_y)

    copies = {"aten::copy_", "aten::clone", "aten::contiguous", "aten::_to_copy"}
    assert copies.isdisjoint(recorded_calls(step))


# --- the same bits ---------------------------------------------------------------------------------------


@either_layout
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("values", [3, 5000], ids=["few_ids", "many_ids"])
@pytest.mark.parametrize("shape", [(1, 3, 300, 301), (5, 2, 150, 99), (1, 40, 64, 130)], ids=str)
def test_one_thread_and_several_give_the_same_bits_in_every_run(shape, values, dtype, layout, device):
    if device.type != "cpu":
        pytest.skip("threads are the CPU's")
    x = leaf(layout(torch.randn(shape).to(dtype)))
    ids, grad_y = ids_like(x, values), torch.randn(shape).to(dtype)
    runs = []
    for threads in (1, 2, 2, 3):
        torch.set_num_threads(threads)
        y = instance_avg_pool(x, ids, backend="native")
        runs.append((y, torch.autograd.grad(y, x, grad_y)[0]))
    for other in runs[1:]:
        assert torch.equal(runs[0][0], other[0])
        assert torch.equal(runs[0][1], other[1])


# --- bad arguments ---------------------------------------------------------------------------------------

X, IDS = torch.zeros(2, 3, 4, 5), torch.zeros(2, 1, 4, 5, dtype=torch.int32)
FIT = "ids must have the samples, height and width of x (2, 3, 4, 5), got shape"


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"x": [1.0]}, TypeError, "x must be a Tensor, got list"),
        ({"x": X.int()}, TypeError, "x must be float32, bfloat16, float16 or float64, got torch.int32"),
        ({"x": X[0]}, ValueError, "x must be (N, C, H, W), got shape (3, 4, 5)"),
        ({"ids": [[1]]}, TypeError, "ids must be a Tensor, got list"),
        ({"ids": IDS.float()}, TypeError, "ids must be integers, got torch.float32"),
        ({"ids": IDS.to(torch.complex64)}, TypeError, "ids must be integers, got torch.complex64"),
        ({"ids": X.int()}, ValueError, "ids must be (N, 1, H, W) or (N, H, W), got shape (2, 3, 4, 5)"),
        ({"ids": IDS[0, 0]}, ValueError, "ids must be (N, 1, H, W) or (N, H, W), got shape (4, 5)"),
        ({"ids": IDS[:1]}, ValueError, f"{FIT} (1, 1, 4, 5)"),
        ({"ids": IDS[..., :4]}, ValueError, f"{FIT} (2, 1, 4, 4)"),
        ({"ids": IDS[:, 0, :3]}, ValueError, f"{FIT} (2, 1, 3, 5)"),
        ({"ids": IDS.to("meta")}, ValueError, "ids must be on the device of x (cpu), got meta"),
        ({"backend": "cuda"}, ValueError, "backend must be one of native, triton, compile, reference or None"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_argument_is_named_with_what_was_expected_and_what_came(arguments, error, sentence):
    with pytest.raises(error, match=re.escape(sentence)):
        instance_avg_pool(**{"x": X, "ids": IDS, **arguments})


def shapes(sizes: int):
    return st.one_of(st.tuples(*[st.integers(0, sizes)] * 4), st.lists(st.integers(0, 3), max_size=5))


@st.composite
def arguments(draw):
    """An image of any shape, and ids that mostly fit it."""
    shape = draw(shapes(9))
    x = torch.randn(shape).to(draw(st.sampled_from([*DTYPES, torch.int64, torch.bool])))
    fitting = (shape[0], 1, *shape[2:]) if len(shape) == 4 else shape
    id_shape = draw(st.one_of(st.just(fitting), st.just(fitting), shapes(9)))
    id_dtype = draw(st.sampled_from([torch.uint8, torch.int16, torch.int64, torch.uint16, torch.bool, torch.float32]))
    return x, torch.randint(2, id_shape).to(id_dtype)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    arguments=arguments(),
    to_channels_last=st.booleans(),
    backend=st.sampled_from([None, "native", "reference", "triton", "vulkan"]),
)
def test_any_arguments_give_a_result_or_a_documented_error(arguments, to_channels_last, backend):
    x, ids = arguments
    x = channels_last(x) if to_channels_last and x.dim() == 4 else x
    try:
        y = instance_avg_pool(x, ids, backend=backend)
    except (TypeError, ValueError, BackendUnavailableError):
        return
    assert y.shape == x.shape
    assert y.dtype == x.dtype
    assert is_dense_in_the_layout_of(y, x)
    one = ids.dim() == 4 and not ids.any()
    if one and x.numel():
        torch.testing.assert_close(
            y.float(), x.float().mean((2, 3), keepdim=True).expand(x.shape), rtol=0.02, atol=0.02
        )


# --- the module ------------------------------------------------------------------------------------------


def test_the_module_is_the_function():
    x, ids = torch.randn(2, 3, 4, 5), torch.randint(3, (2, 1, 4, 5))
    module = InstanceAvgPool2d()
    for same in (module, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(same(x, ids), instance_avg_pool(x, ids))
    assert repr(module) == "InstanceAvgPool2d()"
    assert module.state_dict() == {}
