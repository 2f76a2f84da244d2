"""``conv_norm_act`` as a citizen of torch: registration, compilation, autocast, layouts, threads, bad arguments."""

from __future__ import annotations

import pytest
import torch
from conv_norm_act_case import GEOMETRIES, REFLECT, Case, Geometry, Inputs, ours, random_inputs, results
from hypothesis import given, settings
from hypothesis import strategies as st
from op_testing import DTYPES, HALF_DTYPES, LAYOUTS, channels_last, contiguous, leaf
from torch.profiler import ProfilerActivity, profile

from torchp2p.models.layers import ResidualBlock
from torchp2p.ops import BackendUnavailableError, Deferred, _dispatch, conv_norm_act

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


# --- bad arguments ---------------------------------------------------------------------------------------

X, WEIGHT = torch.zeros(2, 3, 4, 5), torch.zeros(6, 3, 3, 3)
UP = {"transposed": True, "weight": torch.zeros(3, 6, 3, 3)}

BAD_ARGUMENTS = {
    "x is no tensor": ({"x": 1}, TypeError, "x must be a Tensor, got int"),
    "x has three dimensions": ({"x": X[0]}, ValueError, r"x must be \(N, C, H, W\), got shape \(3, 4, 5\)"),
    "x is an integer": ({"x": X.int()}, TypeError, "x must be float32.*got torch.int32"),
    "x has other channels": ({"x": torch.zeros(2, 6, 4, 5)}, ValueError, "x must have the 3 input channels of weight"),
    "x has no pixels": ({"x": X[:, :, :0], "padding": 2}, ValueError, r"x must have pixels, got shape \(2, 3, 0, 5\)"),
    "x is smaller than the kernel": ({"x": X[:, :, :2]}, ValueError, "x with its padding must hold the kernel"),
    "weight is no tensor": ({"weight": None}, TypeError, "weight must be a Tensor, got NoneType"),
    "weight is a matrix": ({"weight": WEIGHT[0, 0]}, ValueError, r"weight must have four dim.*got shape \(3, 3\)"),
    "weight is empty": ({"weight": WEIGHT[:0]}, ValueError, r"no empty one, got shape \(0, 3, 3, 3\)"),
    "weight has another dtype": ({"weight": WEIGHT.double()}, TypeError, "weight must be torch.float32 like x, got"),
    "weight is elsewhere": ({"weight": WEIGHT.to("meta")}, ValueError, "weight must be on the device of x.*got meta"),
    "bias has another length": ({"bias": torch.zeros(3)}, ValueError, r"bias must have shape \(6,\), got \(3,\)"),
    "bias is a number": ({"bias": 0.0}, TypeError, "bias must be a Tensor, got float"),
    "bias has another dtype": ({"bias": torch.zeros(6).half()}, TypeError, "bias must be torch.float32 like x, got"),
    "stride is zero": ({"stride": 0}, ValueError, r"stride must be at least 1, got \(0, 0\)"),
    "stride is a float": ({"stride": 1.0}, TypeError, "stride must be an int or a pair of ints, got 1.0"),
    "stride is a triple": ({"stride": (1, 1, 1)}, TypeError, "stride must be an int or a pair"),
    "padding is negative": ({"padding": -1}, ValueError, "padding must not be negative, got -1"),
    "padding is a pair": ({"padding": (1, 1)}, TypeError, "padding must be an int, got tuple"),
    "no such pad_mode": ({"pad_mode": "circular"}, ValueError, "pad_mode must be one of.*, got 'circular'"),
    "reflect padding is the height": (
        {"padding": 4, "pad_mode": "reflect"}, ValueError, "padding must be smaller than height and width.*got 4",
    ),
    "transposed reflects": ({**UP, "pad_mode": "reflect"}, ValueError, "pad_mode must be 'zeros' for a transposed"),
    "transposed weight is the other way round": ({"transposed": True}, ValueError, "x must have the 6 input channels"),
    "transposed padding takes all": ({**UP, "padding": 5}, ValueError, "x with its padding must hold the kernel"),
    "output_padding without transposed": ({"output_padding": 1}, ValueError, "output_padding belongs to a transposed"),
    "output_padding is the stride": (
        {**UP, "stride": 2, "output_padding": 2}, ValueError, r"output_padding must be less than stride, got \(2, 2\)",
    ),
    "output_padding is negative": ({**UP, "output_padding": -1}, ValueError, r"output_padding must.*got \(-1, -1\)"),
    "no such norm": ({"norm": "layer"}, ValueError, "norm must be one of instance, batch, none, got 'layer'"),
    "no such act": ({"act": "gelu"}, ValueError, "act must be one of leaky_relu, relu, none, tanh, got 'gelu'"),
    "norm_weight has another length": (
        {"norm_weight": torch.ones(3)}, ValueError, r"norm_weight must have shape \(6,\), .* of raw, got \(3,\)",
    ),
    "norm_bias is a number": ({"norm_bias": 0.0}, TypeError, "norm_bias must be a Tensor or None, got float"),
    "running_var is missing": ({"running_mean": torch.zeros(6)}, ValueError, "must be given together"),
    "residual has the shape of x": (
        {"residual": X}, ValueError, r"residual must have the shape of raw \(2, 6, 2, 3\), got \(2, 3, 4, 5\)",
    ),
    "residual has another dtype": (
        {"residual": torch.zeros(2, 6, 2, 3).double()}, TypeError, "residual must be torch.float32 like raw, got",
    ),
    "one value per channel": (
        {"x": X[:, :, :3, :3]}, ValueError, r"instance statistics need more than .* raw of shape \(2, 6, 1, 1\)",
    ),
    "groups do not divide": ({"norm": "batch", "stat_groups": 3}, ValueError, "stat_groups must divide the 2 samples"),
    "no such algorithm": ({"algorithm": "fft"}, ValueError, "winograd_4x4, gemm, phased, fused or None, got 'fft'"),
    "no such backend": ({"backend": "cuda"}, ValueError, "backend must be one of native, .* or None, got 'cuda'"),
    "weight is a list": ({"weight": [WEIGHT]}, TypeError, "weight must be a Tensor, got list"),
    "winograd with stride": (
        {"algorithm": "winograd", "stride": 3}, BackendUnavailableError, "'winograd' cannot run: .* strides of 1 and 2",
    ),
    "phased with stride": (
        {"algorithm": "phased", "stride": 2}, BackendUnavailableError, "'phased' cannot run: .* for stride 1",
    ),
    "gemm of one image": ({"algorithm": "gemm", "x": X[0]}, ValueError, r"x must be \(N, C, H, W\), got shape"),
}  # fmt: skip


@pytest.mark.parametrize("defer", [False, True], ids=["at once", "deferred"])
@pytest.mark.parametrize(("arguments", "error", "words"), BAD_ARGUMENTS.values(), ids=BAD_ARGUMENTS.keys())
def test_a_bad_argument_is_named_with_what_was_expected_and_what_came(arguments, error, words, defer):
    with pytest.raises(error, match=words):
        conv_norm_act(**{"x": X, "weight": WEIGHT, "defer": defer, **arguments})


UNDER_AUTOCAST = {name: call for name, call in BAD_ARGUMENTS.items() if "another dtype" not in name}


@pytest.mark.parametrize(("arguments", "error", "words"), UNDER_AUTOCAST.values(), ids=UNDER_AUTOCAST.keys())
def test_under_autocast_a_bad_argument_is_named_likewise(arguments, error, words):
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(error, match=words):
        conv_norm_act(**{"x": X, "weight": WEIGHT, **arguments})


def test_autocast_leaves_a_float64_weight_as_it_is_and_so_it_is_refused():
    with (
        torch.autocast("cpu", dtype=torch.bfloat16),
        pytest.raises(TypeError, match=r"^weight must be torch\.bfloat16 like x, got torch\.float64$"),
    ):
        conv_norm_act(X, WEIGHT.double())


@pytest.mark.parametrize(
    ("algorithm", "dtype"), [("winograd", torch.float16), ("winograd_4x4", torch.bfloat16)], ids=str
)
def test_a_dtype_that_an_algorithm_does_not_know_is_its_reason(algorithm, dtype):
    with pytest.raises(BackendUnavailableError, match=rf"algorithm '{algorithm}' cannot run: .*, not {dtype}$"):
        conv_norm_act(X.to(dtype), WEIGHT.to(dtype), algorithm=algorithm)


BAD_DEFERRED = {
    "raw is no tensor": ({"raw": None}, TypeError, "raw must be a Tensor, got NoneType"),
    "raw is a vector": ({"raw": torch.zeros(3)}, ValueError, r"raw must be \(N, C, H, W\)"),
    "no such norm": ({"norm": "group"}, ValueError, "norm must be one of"),
    "norm_weight is too long": ({"norm_weight": torch.ones(5)}, ValueError, r"norm_weight must have shape \(3,\)"),
    "residual broadcasts": ({"residual": X[:1]}, ValueError, "residual must have the shape of raw"),
    "running_mean alone": ({"norm": "batch", "running_mean": torch.zeros(3)}, ValueError, "given together"),
}


@pytest.mark.parametrize(("attributes", "error", "words"), BAD_DEFERRED.values(), ids=BAD_DEFERRED.keys())
def test_a_deferred_activation_made_by_hand_is_checked_before_it_is_read(attributes, error, words):
    deferred = Deferred(**{"raw": X, **attributes})
    with pytest.raises(error, match=words):
        conv_norm_act(deferred, WEIGHT)
    with pytest.raises(error, match=words):
        deferred.tensor()


def test_a_backend_that_cannot_run_says_why(monkeypatch):
    monkeypatch.setattr(_dispatch, "triton_unavailable", lambda op, device_type: "there is no GPU")
    with pytest.raises(BackendUnavailableError, match="backend 'triton' cannot run: there is no GPU"):
        conv_norm_act(X, WEIGHT, backend="triton")


sizes = st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 6), st.integers(0, 6))
some_tensors = st.builds(
    lambda shape, dtype, layout: LAYOUTS[layout](torch.ones(shape, dtype=dtype)),
    sizes,
    st.sampled_from([torch.float32, torch.float32, torch.float32, *DTYPES]),
    st.sampled_from(["contiguous", "channels_last", "cropped", "channel_slice_channels_last", "transposed"]),
)
some_weights = st.tuples(*[st.integers(1, 3)] * 4).map(torch.ones)
some_vectors = st.one_of(st.none(), st.none(), st.integers(0, 4).map(torch.ones))
pairs = st.one_of(st.integers(0, 3), st.tuples(st.integers(-1, 3), st.integers(0, 3)))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    x=some_tensors,
    weight=st.one_of(
        some_tensors,
        st.tuples(*[st.integers(1, 4)] * 4).map(torch.ones),
        st.tuples(*[st.integers(1, 3)] * 4).map(torch.ones),
    ),
    before=st.sampled_from(["none", "instance", "batch"]),
    read=st.booleans(),
    bias=some_vectors,
    norm_weight=some_vectors,
    statistics=some_vectors,
    training=st.booleans(),
    stride=pairs,
    padding=st.integers(-1, 3),
    pad_mode=st.sampled_from(["zeros", "reflect", "replicate", "circular"]),
    transposed=st.booleans(),
    output_padding=st.one_of(st.just(0), pairs),
    norm=st.sampled_from(["instance", "batch", "none", "layer"]),
    act=st.sampled_from(["leaky_relu", "relu", "none", "tanh"]),
    residual=st.one_of(st.none(), st.none(), some_tensors),
    stat_groups=st.sampled_from([1, 1, 1, 0, 2]),
    defer=st.booleans(),
    backend=st.sampled_from([None, "native", "reference"]),
)
def test_any_arguments_give_a_result_or_a_documented_error(x, weight, before, read, statistics, backend, **options):
    source = Deferred(x, before, act="relu") if read else x
    try:
        y = conv_norm_act(
            source, weight, running_mean=statistics, running_var=statistics, backend=backend, **options
        )  # fmt: skip
        y = y.tensor(backend=backend) if isinstance(y, Deferred) else y
    except (TypeError, ValueError, BackendUnavailableError):
        return
    stride, padding, transposed = options["stride"], options["padding"], options["transposed"]
    bare = torch.empty(x.shape, device="meta"), torch.empty(weight.shape, device="meta"), None, stride
    if transposed:
        expected = torch.conv_transpose2d(*bare, padding, options["output_padding"])
    else:
        expected = torch.conv2d(*bare, padding)
    assert y.shape == expected.shape
    assert y.dtype == x.dtype
