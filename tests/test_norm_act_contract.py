"""``norm_act`` as a citizen of torch: registration, torch.compile, autocast, layouts, threads, and bad arguments."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from norm_act_case import NORMS, Case, eager, laid_out, ours, random_inputs
from op_testing import DTYPES, LAYOUTS, channels_last, is_dense_in_the_layout_of, leaf, recorded_calls

from torchp2p.ops import BackendUnavailableError, norm_act

OP = "norm_act"
pytestmark = pytest.mark.interpreted(one_in=12)
contiguous = LAYOUTS["contiguous"]
either_layout = pytest.mark.parametrize("layout", [contiguous, channels_last], ids=lambda f: f.__name__)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


# --- registration ----------------------------------------------------------------------------------------


def op_arguments(case: Case, inputs, backend: str) -> tuple:
    tensors = (inputs.x, inputs.weight, inputs.bias, inputs.residual, inputs.mean, inputs.var)
    return (*tensors, *case.options, backend)


@pytest.mark.parametrize("requires_grad", [False, True], ids=["plain", "grad"])
@pytest.mark.parametrize("case", [Case(pad=1, affine=True, residual=True), Case("batch", "tanh", given=True)], ids=str)
@either_layout
@every_dtype
def test_the_operator_is_registered_as_torch_wants_it(dtype, layout, case, requires_grad, backend, device):
    inputs = laid_out(random_inputs(case, dtype, device), layout)
    if requires_grad:
        for tensor in (inputs.x, inputs.weight, inputs.residual):
            if tensor is not None:
                tensor.requires_grad_()
    torch.library.opcheck(torch.ops.torchp2p.norm_act.default, op_arguments(case, inputs, backend))


@pytest.mark.parametrize("requires_grad", [False, True], ids=["plain", "grad"])
@pytest.mark.parametrize("case", [Case(pad=1, affine=True, residual=True), Case("none", "none")], ids=str)
@pytest.mark.parametrize(
    ("dtype", "layout"), [(torch.float32, channels_last), (torch.bfloat16, contiguous)], ids=["float32", "bfloat16"]
)
def test_the_backward_operator_is_registered_as_torch_wants_it(dtype, layout, case, requires_grad, backend, device):
    inputs = laid_out(random_inputs(case, dtype, device), layout)
    x, weight, bias, residual, *_, _ = op_arguments(case, inputs, backend)
    _, mean, var = torch.ops.torchp2p.norm_act(*op_arguments(case, inputs, backend))
    if requires_grad:
        for tensor in (inputs.grad_y, x, weight, bias, residual):
            if tensor is not None:
                tensor.requires_grad_()
    op = torch.ops.torchp2p.norm_act_backward.default
    tensors = (inputs.grad_y, x, weight, bias, residual, mean, var)
    torch.library.opcheck(op, (*tensors, *case.options, case.residual, backend))


def test_results_have_memory_of_their_own_even_where_there_is_nothing_to_do(backend, device):
    x = torch.randn(1, 1, 1, 5, device=device, requires_grad=True)
    residual = torch.randn_like(x).requires_grad_()
    plain = {"norm": "none", "backend": backend}
    assert norm_act(x, act="none", **plain).data_ptr() != x.data_ptr()
    grad_y = torch.randn(1, 1, 3, 7, device=device)
    y = norm_act(x, act="none", residual=residual, pad=1, pad_mode="zeros", **plain)
    storages = {t.untyped_storage().data_ptr() for t in (grad_y, *torch.autograd.grad(y, (x, residual), grad_y))}
    assert len(storages) == 3


# --- torch.compile and the context -----------------------------------------------------------------------


SIZES = ((2, 3, 9, 11), (4, 3, 12, 10), (6, 3, 7, 8))


@either_layout
@pytest.mark.parametrize(
    "case", [Case(pad=1, affine=True), Case("batch", "relu", residual=True), Case("batch", stat_groups=2)], ids=str
)
def test_one_compilation_of_the_whole_graph_serves_every_size(case, layout, fresh_compiler, device):
    vectors = random_inputs(case, torch.float32, device)

    def step(x, residual):
        y = norm_act(
            2 * x, vectors.weight, vectors.bias, norm=case.norm, act=case.act, pad=case.pad, residual=residual,
            stat_groups=case.stat_groups,
        )  # fmt: skip
        return y.square().sum()

    compiled = torch.compile(step, backend="aot_eager", fullgraph=True, dynamic=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for size in SIZES:
            x = layout(torch.randn(size, device=device))
            residual = layout(torch.randn(size, device=device)) if case.residual else None
            x.requires_grad_()
            found, expected = (torch.autograd.grad(f(x, residual), x)[0] for f in (compiled, step))
            torch.testing.assert_close(found, expected)
            assert found.stride() == expected.stride()


def test_inductor_compiles_a_training_step_with_running_statistics(fresh_compiler, device):
    def step(x, weight, mean, var):
        y = norm_act(x.sin(), weight, norm="batch", running_mean=mean, running_var=var, pad=1)
        return y.square().sum()

    compiled = torch.compile(step, fullgraph=True)
    x = channels_last(torch.randn(2, 3, 9, 11, device=device)).requires_grad_()
    weight = torch.randn(3, device=device, requires_grad=True)
    found_state, expected_state = ([torch.zeros(3, device=device), torch.ones(3, device=device)] for _ in range(2))
    for _ in range(2):
        found = torch.autograd.grad(compiled(x, weight, *found_state), (x, weight))
        expected = torch.autograd.grad(step(x, weight, *expected_state), (x, weight))
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(found_state, expected_state)


@pytest.mark.parametrize("fullgraph", [True, False])
def test_compiling_says_nothing(fullgraph, fresh_compiler, device, recwarn, capfd):
    compiled = torch.compile(lambda x: norm_act(x, pad=1), backend="aot_eager", fullgraph=fullgraph)
    compiled(torch.randn(2, 3, 4, 5, device=device, requires_grad=True)).sum().backward()
    assert [str(warning.message) for warning in recwarn] == []
    assert capfd.readouterr() == ("", "")


@every_dtype
def test_under_autocast_the_result_follows_the_dtype_of_x(dtype, backend, device):
    x, weight = torch.randn(2, 3, 8, 8, device=device, dtype=dtype), torch.randn(3, device=device)
    expected = norm_act(x, weight, pad=1, backend=backend)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        y = norm_act(x, weight, pad=1, backend=backend)
    assert y.dtype == dtype
    assert torch.equal(y, expected)


def test_under_autocast_a_convolution_hands_its_dtype_through(device):
    conv = torch.nn.Conv2d(3, 4, 3, device=device)
    x = torch.randn(2, 3, 8, 8, device=device, requires_grad=True)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        y = norm_act(conv(x), torch.ones(4, device=device), pad=1)
    assert y.dtype == torch.bfloat16
    y.float().square().sum().backward()
    assert x.grad.dtype == conv.weight.grad.dtype == torch.float32


def test_the_operator_exports(device):
    class Block(torch.nn.Module):
        def forward(self, x):
            return norm_act(x, pad=1)

    x = torch.randn(2, 3, 8, 8, device=device)
    sizes = {2: torch.export.Dim("height", min=2), 3: torch.export.Dim("width", min=2)}
    program = torch.export.export(Block(), (x,), dynamic_shapes=(sizes,))
    other = torch.randn(2, 3, 5, 11, device=device)
    assert torch.equal(program.module()(other), norm_act(other, pad=1))


# --- layouts ---------------------------------------------------------------------------------------------


@every_dtype
@pytest.mark.parametrize("pad", [0, 1])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_result_and_gradients_are_dense_in_the_layout_of_x(layout, pad, dtype, backend, device):
    case = Case(pad=pad, residual=True)
    inputs = laid_out(random_inputs(case, dtype, device), layout)
    expected = channels_last if "channels_last" in layout.__name__ else contiguous
    found = ours(case, inputs, backend)
    for name in ("y", "grad_x", "grad_residual"):
        assert found[name].stride() == expected(found[name]).stride(), name


@either_layout
@pytest.mark.parametrize("pad", [0, 1])
@pytest.mark.parametrize("grad_layout", ["contiguous", "channels_last", "channel_slice", "transposed", "expanded"])
def test_native_kernels_copy_no_image_forward_or_backward(grad_layout, pad, layout, device):
    if device.type != "cpu":
        pytest.skip("the CPU kernels' promise")
    case = Case("batch", pad=pad, affine=True, residual=True)
    inputs = laid_out(random_inputs(case, torch.float32, device), layout)
    grad_y = LAYOUTS[grad_layout](inputs.grad_y)
    x, residual = leaf(inputs.x), leaf(LAYOUTS["cropped"](inputs.residual))

    def step():
        y = norm_act(x, inputs.weight, inputs.bias, norm="batch", residual=residual, pad=pad, backend="native")
        torch.autograd.grad(y, (x, residual), grad_y)

    copies = {"aten::copy_", "aten::clone", "aten::contiguous", "aten::_to_copy"}
    assert copies.isdisjoint(recorded_calls(step))


# --- the same bits ---------------------------------------------------------------------------------------

PLANES = {"many_small_planes": (2, 20, 33, 65), "few_large_planes": (1, 2, 150, 301), "one_plane": (1, 1, 300, 301)}


@pytest.mark.interpreted(one_in=0)  # it has no threads
@either_layout
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", PLANES.values(), ids=PLANES.keys())
def test_one_thread_and_several_give_the_same_bits_in_every_run(shape, norm, dtype, layout, kernel, device):
    case = Case(norm, pad=2, affine=True, residual=True, shape=shape)
    inputs = laid_out(random_inputs(case, dtype, device), layout)
    runs = []
    for threads in (1, 2, 2, 3):
        torch.set_num_threads(threads)
        runs.append(ours(case, inputs, kernel))
    for other in runs[1:]:
        for name, value in runs[0].items():
            assert torch.equal(value, other[name]), name


@pytest.mark.interpreted(one_in=0)  # it has no threads
@pytest.mark.parametrize("shape", PLANES.values(), ids=PLANES.keys())
def test_several_threads_compute_what_eager_computes(shape, backend, device):
    torch.set_num_threads(2)
    case = Case(pad=1, affine=True, shape=shape)
    inputs = random_inputs(case, torch.float32, device)
    found, expected = ours(case, inputs, backend), eager(case, inputs)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-4)


# --- bad arguments ---------------------------------------------------------------------------------------

X = torch.zeros(2, 3, 4, 5)
POINT = torch.zeros(2, 3, 1, 1)
THREE, META = torch.ones(3), torch.ones(3, device="meta")
TOGETHER = "running_mean and running_var must be given together, got only one of them"
CHANNELS = "must have shape (3,), one value per channel of x, got"
VECTOR_DTYPE = "must be torch.float32 like x or torch.float32, got"
DTYPE = "x must be float32, bfloat16, float16 or float64, got"


def bad(error: type[Exception], sentence: str, **arguments: object):
    return pytest.param(arguments, error, sentence, id=sentence)


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        bad(TypeError, "x must be a Tensor, got list", x=[1.0]),
        bad(TypeError, f"{DTYPE} torch.int32", x=X.int()),
        bad(TypeError, f"{DTYPE} torch.complex64", x=X.to(torch.complex64)),
        bad(ValueError, "x must be (N, C, H, W), got shape (3, 4, 5)", x=X[0]),
        bad(ValueError, f"weight {CHANNELS} (4,)", weight=torch.ones(4)),
        bad(ValueError, f"weight {CHANNELS} (3, 1)", weight=torch.ones(3, 1)),
        bad(ValueError, f"bias {CHANNELS} ()", bias=torch.tensor(0.0)),
        bad(TypeError, "weight must be a Tensor or None, got float", weight=1.0),
        bad(TypeError, f"weight {VECTOR_DTYPE} torch.float16", weight=THREE.half()),
        bad(TypeError, f"bias {VECTOR_DTYPE} torch.int64", bias=THREE.long()),
        bad(ValueError, "bias must be on the device of x (cpu), got meta", bias=META),
        bad(ValueError, "norm must be one of instance, batch, none, got 'layer'", norm="layer"),
        bad(ValueError, "norm must be one of instance, batch, none, got None", norm=None),
        bad(ValueError, "act must be one of leaky_relu, relu, none, tanh, got 'gelu'", act="gelu"),
        bad(ValueError, "pad_mode must be one of reflect, replicate, zeros, got 'circular'", pad_mode="circular"),
        bad(ValueError, "backend must be one of native, triton, compile, reference or None, got ''", backend=""),
        bad(ValueError, "pad must not be negative, got -1", pad=-1),
        bad(TypeError, "pad must be an int, got float", pad=1.0),
        bad(TypeError, "pad must be an int, got tuple", pad=(1, 1)),
        bad(ValueError, "pad must be smaller than height and width for pad_mode 'reflect', got pad=4", pad=4),
        bad(ValueError, "'replicate' needs a pixel to repeat", x=X[:, :, :0], pad=1, pad_mode="replicate"),
        bad(ValueError, "residual must have the shape of x (2, 3, 4, 5), got (1, 3, 4, 5)", residual=X[:1]),
        bad(TypeError, "residual must be torch.float32 like x, got torch.float64", residual=X.double()),
        bad(TypeError, "residual must be a Tensor or None, got bool", residual=True),
        bad(ValueError, "residual must be on the device of x (cpu), got meta", residual=X.to("meta")),
        bad(ValueError, "stat_groups must divide the 2 samples of x, got 3", norm="batch", stat_groups=3),
        bad(ValueError, "stat_groups must divide the 2 samples of x, got 0", norm="batch", stat_groups=0),
        bad(ValueError, "stat_groups belongs to norm 'batch', got 2 with norm 'instance'", stat_groups=2),
        bad(TypeError, "stat_groups must be an int, got float", norm="batch", stat_groups=2.0),
        bad(ValueError, "got x of shape (2, 3, 1, 1) in 2 groups", x=POINT, norm="batch", stat_groups=2),
        bad(ValueError, TOGETHER, running_mean=THREE),
        bad(ValueError, TOGETHER, running_var=THREE, training=False),
        bad(ValueError, f"running_var {CHANNELS} (2,)", running_mean=THREE, running_var=THREE[:2]),
        bad(ValueError, "instance statistics need more than one value per channel, got x of", x=POINT),
        bad(ValueError, "batch statistics need more than one value per channel", x=POINT[:1], norm="batch"),
        bad(ValueError, "instance statistics need more than one value per channel", x=POINT, training=False),
    ],
)
def test_a_bad_argument_is_named_with_what_was_expected_and_what_came(arguments, error, sentence):
    with pytest.raises(error, match=re.escape(sentence)):
        norm_act(**{"x": X, **arguments})


def dimensions(sizes):
    return st.lists(st.integers(0, sizes), min_size=0, max_size=5)


tensors = st.builds(
    lambda shape, dtype: torch.ones(shape, dtype=dtype),
    st.one_of(st.tuples(*[st.integers(0, 6)] * 4), dimensions(4)),
    st.sampled_from([*DTYPES, torch.int64, torch.bool]),
)
vectors = st.one_of(
    st.none(), tensors, st.builds(lambda n, d: torch.ones(n, dtype=d), st.integers(0, 6), st.sampled_from(DTYPES))
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    x=tensors,
    weight=vectors,
    bias=vectors,
    statistics=st.one_of(st.none(), vectors),
    residual=st.one_of(st.none(), st.just("x"), tensors),
    norm=st.sampled_from([*NORMS, "group", None]),
    act=st.sampled_from(["leaky_relu", "relu", "none", "tanh", "gelu"]),
    training=st.booleans(),
    pad=st.one_of(st.integers(-1, 7), st.floats(0, 2)),
    pad_mode=st.sampled_from(["reflect", "replicate", "zeros", "circular"]),
    slope=st.floats(allow_nan=True),
    stat_groups=st.integers(-1, 3),
    eps=st.floats(0, 1),
    backend=st.sampled_from([None, "native", "reference", "triton", "vulkan"]),
)
def test_any_arguments_give_a_result_or_a_documented_error(x, statistics, residual, **options):
    residual = x.clone() if residual == "x" else residual
    try:
        y = norm_act(x, running_mean=statistics, running_var=statistics, residual=residual, **options)
    except (TypeError, ValueError, BackendUnavailableError):
        return
    n, c, h, w = x.shape
    assert y.shape == (n, c, h + 2 * options["pad"], w + 2 * options["pad"])
    assert y.dtype == x.dtype
    assert is_dense_in_the_layout_of(y, x)
