"""``conv_norm_act`` as a citizen of torch: registration, compilation, autocast, layouts, threads."""

from __future__ import annotations

import pytest
import torch
from conv_norm_act_case import GEOMETRIES, REFLECT, Case, Geometry, Inputs, ours, random_inputs, results
from op_testing import HALF_DTYPES, channels_last, contiguous, leaf
from torch.profiler import ProfilerActivity, profile

from torchp2p.models.layers import ResidualBlock
from torchp2p.ops import Deferred, conv_norm_act

OP = "conv_norm_act"
pytestmark = pytest.mark.interpreted(one_in=10)
either_layout = pytest.mark.parametrize("layout", [contiguous, channels_last], ids=lambda f: f.__name__)

# --- registration ----------------------------------------------------------------------------------------


def source_arguments(case: Case, inputs: Inputs) -> tuple:
    """What comes before the convolution: x with a norm in front of it, its options."""
    x = inputs.x
    vectors = [torch.rand(x.shape[1], dtype=x.dtype, device=x.device) if case.affine else None for _ in range(2)]
    residual = torch.randn_like(x) if case.residual else None
    return (x, *vectors, residual, None, None, case.norm, 1e-5, case.act, 0.2, 1)


def convolution_arguments(geometry: Geometry) -> tuple:
    stride, more = (
        [pair] * 2 if isinstance(pair, int) else list(pair) for pair in (geometry.stride, geometry.output_padding)
    )
    return (stride, geometry.padding, geometry.pad_mode, geometry.transposed, more)


REGISTERED = [
    Case(REFLECT, affine=True, residual=True),
    Case(GEOMETRIES[3], "none", "none", bias=True),
    Case(GEOMETRIES[6], "batch", "tanh", bias=True),
]


def require_grad(*tensors: torch.Tensor | None) -> None:
    for tensor in tensors:
        if tensor is not None:
            tensor.requires_grad_()


@pytest.mark.interpreted(one_in=0)  # hundreds of calls in a test
@pytest.mark.parametrize(
    ("case", "dtype"), zip(REGISTERED, (torch.float32, torch.bfloat16, torch.float32), strict=True), ids=str
)
@either_layout
def test_the_operator_is_registered_as_torch_wants_it(layout, dtype, case, backend, device):
    inputs = random_inputs(case, dtype, device).laid_out(layout)
    source, after = source_arguments(case, inputs), (inputs.tensors["weight"], inputs.tensors["bias"])
    arguments = (*source, *after, *convolution_arguments(case.geometry), 0, "vendor", backend)
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(torch.ops.torchp2p.conv_norm_act.default, arguments, test_utils=tests)
    require_grad(*source[:4], *after)
    torch.library.opcheck(torch.ops.torchp2p.conv_norm_act.default, arguments)


@pytest.mark.interpreted(one_in=0)
@pytest.mark.parametrize(
    ("case", "before", "after"),
    [*((case, True, True) for case in REGISTERED), (REGISTERED[0], True, False), (REGISTERED[0], False, True)],
    ids=str,
)
@either_layout
def test_the_backward_operator_is_registered_as_torch_wants_it(layout, case, before, after, backend, device):
    inputs = random_inputs(case, torch.float32, device).laid_out(layout)
    weight, bias = inputs.tensors["weight"], inputs.tensors["bias"]
    source, convolution = source_arguments(case, inputs), convolution_arguments(case.geometry)
    raw, mean, var, *_ = torch.ops.torchp2p.conv_norm_act(*source, weight, bias, *convolution, 0, "vendor", backend)
    tensors = [*source[:4], *((None, None) if case.norm == "none" else (mean, var))]
    require_grad(*tensors[:4], weight)
    wanted = (before, before and case.residual, after, after)
    arguments = (torch.randn_like(raw), *tensors, *source[6:], weight, *convolution, *wanted, "vendor", backend)
    torch.library.opcheck(torch.ops.torchp2p.conv_norm_act_backward.default, arguments)


def test_results_have_memory_of_their_own(backend, device):
    x = torch.randn(2, 3, 5, 6, device=device, requires_grad=True)
    weight = torch.ones(3, 3, 1, 1, device=device, requires_grad=True)
    y = conv_norm_act(x, weight, norm="none", act="none", backend=backend)
    grads = torch.autograd.grad(y, (x, weight), torch.randn_like(y))
    assert len({t.untyped_storage().data_ptr() for t in (x, weight, y, *grads)}) == 5


# --- torch.compile ---------------------------------------------------------------------------------------


@either_layout
def test_one_compilation_of_a_whole_chain_serves_every_size(layout, fresh_compiler, device):
    first, second = (torch.randn(3, 3, 3, 3, device=device, requires_grad=True) for _ in range(2))

    def step(x):
        h = conv_norm_act(2 * x, first, padding=1, pad_mode="reflect", act="relu", defer=True)
        return conv_norm_act(h, second, padding=1, pad_mode="reflect", act="none", residual=x).square().sum()

    compiled = torch.compile(step, backend="aot_eager", fullgraph=True, dynamic=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for size in ((2, 3, 9, 11), (3, 3, 12, 10)):
            x = layout(torch.randn(size, device=device))
            found, expected = (
                torch.autograd.grad(f(t), (t, first, second)) for f, t in ((compiled, leaf(x)), (step, leaf(x)))
            )
            torch.testing.assert_close(found, expected)
            assert [t.stride() for t in found] == [t.stride() for t in expected]


def test_a_compiled_chain_counts_a_batch_once(fresh_compiler, device):
    cases = [Case(REFLECT, "batch", running=True), Case(norm="batch", inputs=5, running=True)]
    blocks = [random_inputs(case, torch.float32, device) for case in cases]
    copies = [block.in_dtype(torch.float32) for block in blocks]

    def chain(x, blocks):
        deferred = ours(cases[0], x, blocks[0], defer=True)
        return ours(cases[1], deferred, blocks[1]) + deferred.tensor().sum()

    compiled = torch.compile(chain, backend="aot_eager", fullgraph=True)
    for _ in range(2):
        found = compiled(blocks[0].x, [block.tensors for block in blocks])
        torch.testing.assert_close(found, chain(blocks[0].x, [copy.tensors for copy in copies]))
    for block, copy in zip(blocks, copies, strict=True):
        torch.testing.assert_close(block.tensors, copy.tensors)


# --- autocast --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("defer", [False, True], ids=["at once", "deferred"])
def test_under_autocast_the_convolution_runs_in_the_autocast_dtype(defer, backend, device):
    case = Case(REFLECT, "batch", "tanh", affine=True, residual=True, bias=True)
    inputs = random_inputs(case, torch.float32, device)
    leaves = {name: leaf(t) for name, t in inputs.tensors.items()}
    x = leaf(inputs.x)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        y = ours(case, x, leaves, defer=defer, backend=backend)
        y = y.tensor(backend=backend) if defer else y
    assert y.dtype == torch.bfloat16
    y.backward(inputs.grad.bfloat16())
    assert all(t.grad.dtype == torch.float32 for t in (x, *leaves.values()) if t is not None)
    expected = results(ours, case, inputs.in_dtype(torch.bfloat16), backend=backend)
    torch.testing.assert_close(y, expected["y"], rtol=0.02, atol=0.02)
    torch.testing.assert_close(leaves["weight"].grad, expected["grad_weight"].float(), rtol=0.05, atol=0.05)


def test_under_autocast_a_deferred_float32_activation_is_read_in_the_autocast_dtype(backend, device):
    x, residual = (torch.randn(2, 3, 6, 7, device=device, requires_grad=True) for _ in range(2))
    weight = torch.randn(4, 3, 3, 3, device=device, requires_grad=True)
    deferred = Deferred(x, "instance", act="relu", residual=residual)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        y = conv_norm_act(deferred, weight, backend=backend)
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert x.grad.dtype == residual.grad.dtype == weight.grad.dtype == torch.float32


def test_under_autocast_float64_stays_as_in_torch(backend, device):
    x, weight = (torch.randn(4, 4, 5, 5, dtype=torch.float64, device=device) for _ in range(2))
    expected = conv_norm_act(x, weight, padding=2, backend=backend)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        assert torch.equal(conv_norm_act(x, weight, padding=2, backend=backend), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_residual_block_takes_either_dtype_under_autocast(dtype, device):
    block = ResidualBlock(4, norm="batch", bias=True).to(device)
    x = torch.randn(2, 4, 6, 7, dtype=dtype, device=device, requires_grad=True)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        y = block(x)
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert x.grad.dtype == dtype
    assert all(p.grad.dtype == torch.float32 for p in block.parameters())


@pytest.mark.parametrize("dtype", HALF_DTYPES, ids=str)
def test_half_precision_blocks_take_float32_norm_parameters(dtype, backend, device):
    case = Case(REFLECT, "batch", affine=True)
    inputs = random_inputs(case, dtype, device)
    vectors = {name: leaf(inputs.tensors[name].float()) for name in ("norm_weight", "norm_bias")}
    y = ours(case, inputs.x, inputs.tensors | vectors, backend=backend)
    y.backward(inputs.grad)
    assert y.dtype == dtype
    assert all(t.grad.dtype == torch.float32 for t in vectors.values())


# --- layouts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("geometry", [REFLECT, GEOMETRIES[3], GEOMETRIES[6]], ids=str)
@either_layout
def test_result_and_gradients_keep_the_layout_of_x(layout, geometry, backend, device):
    case = Case(geometry, residual=True, inputs=8, outputs=16)
    inputs = random_inputs(case, torch.float32, device).laid_out(layout)
    found = results(ours, case, inputs, backend=backend)
    for name in ("y", "grad_x", "grad_residual"):
        assert found[name].stride() == layout(found[name]).stride(), name


COPIES = {"aten::copy_", "aten::clone", "aten::contiguous", "aten::_to_copy"}


@either_layout
def test_a_residual_block_copies_no_image_forward_or_backward(layout, device):
    if device.type != "cpu":
        pytest.skip("the CPU kernels' promise")
    block = ResidualBlock(16, norm="instance", bias=True)
    x, grad = (layout(torch.randn(2, 16, 12, 10)) for _ in range(2))
    parameters = [p for name, p in block.named_parameters() if "weight" in name]
    x.requires_grad_()
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as recorded:
        torch.autograd.grad(block(x), (x, *parameters), grad)
    copied = [event.input_shapes[0] for event in recorded.events() if event.name in COPIES]
    assert all(shape == [16, 16, 3, 3] for shape in copied)  # the convolution may turn its weight


# --- the same bits ---------------------------------------------------------------------------------------


@either_layout
def test_the_norm_between_two_convolutions_gives_the_same_bits_for_any_number_of_threads(layout, device):
    deferred = Deferred(
        layout(torch.randn(2, 20, 64, 65, device=device)), "batch", act="relu", residual=torch.randn(2, 20, 64, 65)
    )
    # Each output pixel is one input pixel: whatever the convolution's order, there is nothing to sum.
    weight = torch.zeros(20, 20, 1, 1, device=device)
    weight[range(20), range(20)] = 1
    runs = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        runs.append(conv_norm_act(deferred, weight, padding=2, pad_mode="reflect", norm="instance", backend="native"))
    assert torch.equal(runs[0], runs[1])
    assert torch.equal(runs[0], runs[2])
