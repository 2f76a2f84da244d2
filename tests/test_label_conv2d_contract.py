"""``label_conv2d`` as a citizen of torch: torch.compile, autocast, layouts, threads, bad arguments."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from label_conv2d_case import INPUTS, Case, ours, random_inputs
from op_testing import DTYPES, LAYOUTS, channels_last, leaf, recorded_calls

from torchp2p.ops import BackendUnavailableError, label_conv2d

OP = "label_conv2d"
contiguous = LAYOUTS["contiguous"]
either_layout = pytest.mark.parametrize("layout", [contiguous, channels_last], ids=lambda f: f.__name__)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)

# --- registration and torch.compile ----------------------------------------------------------------------


def op_options(case: Case) -> tuple:
    return (list(case.stride), list(case.padding), case.pad_mode)


@pytest.mark.interpreted(one_in=0)
@pytest.mark.parametrize("requires_grad", [False, True], ids=["plain", "grad"])
@pytest.mark.parametrize("case", [Case(dense=2), Case(dense=0, bias=False, stride=(2, 2))], ids=str)
@either_layout
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_operators_are_registered_as_torch_wants_them(dtype, layout, case, requires_grad, backend, device):
    inputs = random_inputs(case, dtype, device)
    dense = None if inputs.dense is None else layout(inputs.dense)
    tensors = [inputs.weight, inputs.bias, dense]
    if requires_grad:
        tensors = [leaf(tensor) for tensor in tensors]
        inputs.grad_y.requires_grad_()
    forward, backward = torch.ops.torchp2p.label_conv2d.default, torch.ops.torchp2p.label_conv2d_backward.default
    torch.library.opcheck(forward, (inputs.labels, *tensors, *op_options(case), False, backend))
    torch.library.opcheck(
        backward, (layout(inputs.grad_y), inputs.labels, *tensors, *op_options(case), [True] * 3, backend)
    )


@either_layout
def test_one_compilation_of_the_whole_graph_serves_every_size(layout, fresh_compiler, device):
    weight = torch.randn(6, 7, 3, 3, device=device, requires_grad=True)

    def step(labels, dense):
        y = label_conv2d(labels, weight, dense=2 * dense, padding=1, pad_mode="reflect")
        return y.square().sum()

    compiled = torch.compile(step, backend="aot_eager", fullgraph=True, dynamic=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for n, h, w in ((4, 9, 11), (5, 12, 10), (8, 7, 8)):
            labels = torch.randint(0, 5, (n, 1, h, w), device=device)
            dense = layout(torch.randn(n, 2, h, w, device=device)).requires_grad_()
            found, expected = (torch.autograd.grad(f(labels, dense), (weight, dense)) for f in (compiled, step))
            torch.testing.assert_close(found, expected)
            assert [grad.stride() for grad in found] == [grad.stride() for grad in expected]


def test_inductor_compiles_a_training_step(fresh_compiler, device):
    weight = torch.randn(6, 7, 3, 3, device=device, requires_grad=True)

    def step(labels, dense):
        return label_conv2d(labels, weight, dense=dense.sin(), stride=2, padding=1).relu().square().sum()

    compiled = torch.compile(step, fullgraph=True)
    labels, dense = torch.randint(0, 5, (2, 9, 11), device=device), torch.randn(2, 2, 9, 11, device=device)
    for _ in range(2):
        found, expected = (torch.autograd.grad(f(labels, dense), weight) for f in (compiled, step))
        torch.testing.assert_close(found, expected)


def test_an_id_out_of_range_is_an_error_in_a_compiled_graph_too(fresh_compiler, device):
    weight = torch.randn(6, 3, 3, 3, device=device)
    compiled = torch.compile(lambda labels: label_conv2d(labels, weight), backend="aot_eager", fullgraph=True)
    compiled(torch.zeros(1, 5, 5, dtype=torch.long, device=device))
    with pytest.raises(ValueError, match=re.escape("got 3 at (n, y, x) = (0, 0, 0)")):
        compiled(torch.full((1, 5, 5), 3, device=device))


def test_the_operator_exports(device):
    class Block(torch.nn.Module):
        def forward(self, labels, weight):
            return label_conv2d(labels, weight, padding=1)

    weight = torch.randn(4, 5, 3, 3, device=device)
    sizes = {2: torch.export.Dim("height", min=2), 3: torch.export.Dim("width", min=2)}
    labels, other = (torch.randint(0, 5, (2, 1, h, w), device=device) for h, w in ((8, 8), (5, 11)))
    program = torch.export.export(Block(), (labels, weight), dynamic_shapes=(sizes, None))
    assert torch.equal(program.module()(other, weight), label_conv2d(other, weight, padding=1))


# --- autocast --------------------------------------------------------------------------------------------


@pytest.mark.interpreted(one_in=3)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_under_autocast_tensors_are_cast_as_for_a_convolution(dtype, backend, device):
    case = Case()
    inputs = random_inputs(case, dtype, device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        found = ours(case, replace(inputs, grad_y=inputs.grad_y.to(expected := cast(dtype))), backend)
    assert found["y"].dtype == expected
    assert found["grad_weight"].dtype == dtype
    lower = {name: getattr(inputs, name).to(expected) for name in (*INPUTS, "grad_y")}
    for name, value in ours(case, replace(inputs, **lower), backend).items():
        assert torch.equal(found[name], value.to(found[name].dtype)), name


def cast(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.bfloat16


def test_autocast_compiles(fresh_compiler, device):
    weight, labels = torch.randn(4, 5, 3, 3, device=device), torch.randint(0, 5, (1, 6, 6), device=device)

    def step(labels):
        with torch.autocast(device.type, dtype=torch.bfloat16):
            return label_conv2d(labels, weight)

    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    assert compiled(labels).dtype == torch.bfloat16
    assert torch.equal(compiled(labels), step(labels))


# --- layouts ---------------------------------------------------------------------------------------------


@pytest.mark.interpreted(one_in=0)
@every_dtype
@pytest.mark.parametrize("name", LAYOUTS)
def test_results_take_the_layout_of_the_dense_channels(name, dtype, backend, device):
    case = Case(dense=3)
    inputs = random_inputs(case, dtype, device)
    found = ours(case, replace(inputs, dense=LAYOUTS[name](inputs.dense)), backend)
    expected = channels_last if "channels_last" in name else contiguous
    for result in ("y", "grad_dense"):
        assert found[result].stride() == expected(found[result]).stride(), result
    assert found["grad_weight"].stride() == inputs.weight.stride()


@pytest.mark.interpreted(one_in=4)
@pytest.mark.parametrize("dense", [0, 1, 2])
def test_a_channels_last_weight_gives_a_channels_last_result_as_in_torch(dense, backend, device):
    case = Case(dense=dense)
    inputs = random_inputs(case, torch.float32, device)
    found = ours(case, replace(inputs, weight=channels_last(inputs.weight)), backend)
    assert found["y"].is_contiguous(memory_format=torch.channels_last)
    assert found["grad_weight"].is_contiguous(memory_format=torch.channels_last)
    for name, value in ours(case, inputs, backend).items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-5)


def test_native_kernels_build_no_one_hot_tensor_and_copy_nothing(device):
    if device.type != "cpu":
        pytest.skip("the CPU kernels' promise")
    inputs = random_inputs(Case(dense=3), torch.float32, device)
    dense, grad_y = leaf(LAYOUTS["cropped"](inputs.dense)), LAYOUTS["channel_slice"](inputs.grad_y)
    weight = leaf(inputs.weight)

    def step():
        y = label_conv2d(inputs.labels, weight, dense=dense, padding=1, pad_mode="reflect", backend="native")
        torch.autograd.grad(y, (weight, dense), grad_y)

    copies = {"aten::copy_", "aten::clone", "aten::contiguous", "aten::_to_copy", "aten::scatter", "aten::pad"}
    assert copies.isdisjoint(recorded_calls(step))


# --- the same bits ---------------------------------------------------------------------------------------


@pytest.mark.interpreted(one_in=0)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "case",
    [
        Case((7, 7), (1, 1), (3, 3), classes=4, dense=1, out=65, size=(1, 50, 60)),
        Case((4, 4), (2, 2), (2, 2), "zeros", classes=4, dense=4, out=130, size=(3, 41, 43), labels="noise"),
    ],
    ids=str,
)
def test_one_thread_and_several_give_the_same_bits_in_every_run(case, dtype, kernel, device):
    inputs = random_inputs(case, dtype, device)
    runs = []
    for threads in (1, 2, 2, 3):
        torch.set_num_threads(threads)
        runs.append(ours(case, inputs, kernel))
    for other in runs[1:]:
        for name, value in runs[0].items():
            assert torch.equal(value, other[name]), name


# --- bad arguments ---------------------------------------------------------------------------------------

LABELS = torch.zeros(2, 1, 4, 5, dtype=torch.uint8)
WEIGHT = torch.zeros(6, 7, 3, 3)
DENSE = torch.zeros(2, 3, 4, 5)
DTYPE = "must be float32, bfloat16, float16 or float64, got"
PAIR = "must be an int or (height, width), got"


def bad(error: type[Exception], sentence: str, **arguments: object):
    return pytest.param(arguments, error, sentence, id=sentence)


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        bad(TypeError, "labels must be a Tensor, got list", labels=[[0]]),
        bad(TypeError, "labels must have an integer dtype, got torch.float32", labels=LABELS.float()),
        bad(TypeError, "labels must have an integer dtype, got torch.bool", labels=LABELS.bool()),
        bad(ValueError, "labels must be (N, 1, H, W) or (N, H, W), got shape (4, 5)", labels=LABELS[0, 0]),
        bad(ValueError, "labels must be (N, 1, H, W) or (N, H, W), got shape (2, 2,", labels=LABELS.expand(2, 2, 4, 5)),
        bad(TypeError, "weight must be a Tensor, got NoneType", weight=None),
        bad(TypeError, f"weight {DTYPE} torch.int64", weight=WEIGHT.long()),
        bad(ValueError, "weight must be (O, L + D, kh, kw), got shape (7, 3, 3)", weight=WEIGHT[0]),
        bad(
            ValueError, "weight must have a kernel of at least one tap, got shape (6, 7, 0, 3)", weight=WEIGHT[:, :, :0]
        ),
        bad(
            ValueError,
            "weight must have more input channels than dense (3), got shape (6, 3, 3, 3)",
            weight=WEIGHT[:, :3],
            dense=DENSE,
        ),
        bad(
            ValueError,
            "weight must have more input channels than dense (0), got shape (6, 0, 3, 3)",
            weight=WEIGHT[:, :0],
        ),
        bad(
            ValueError,
            "weight must have a kernel that fits into the padded labels, got (3, 3) for labels of",
            labels=LABELS[:, :, :2],
        ),
        bad(TypeError, "bias must be a Tensor, got float", bias=1.0),
        bad(ValueError, "bias must have shape (6,) as weight has, got (7,)", bias=torch.zeros(7)),
        bad(
            TypeError,
            "bias must be torch.float32 like weight or torch.float32, got torch.float16",
            bias=torch.zeros(6).half(),
        ),
        bad(ValueError, "bias must be on the device of weight (cpu), got meta", bias=torch.zeros(6, device="meta")),
        bad(TypeError, "dense must be a Tensor, got int", dense=1),
        bad(TypeError, "dense must be torch.float32 like weight, got torch.float64", dense=DENSE.double()),
        bad(ValueError, "dense must be (N, C, H, W), got shape (3, 4, 5)", dense=DENSE[0]),
        bad(
            ValueError,
            "dense must be (N, D, H, W) with N, H, W of labels (2, 1, 4, 5), got (1, 3, 4, 5)",
            dense=DENSE[:1],
        ),
        bad(ValueError, "dense must be on the device of weight (cpu), got meta", dense=DENSE.to("meta")),
        bad(ValueError, "labels must be on the device of weight (cpu), got meta", labels=LABELS.to("meta")),
        bad(ValueError, "stride must be at least 1, got 0", stride=0),
        bad(ValueError, "stride must be an int or (height, width), got (1, 1, 1)", stride=(1, 1, 1)),
        bad(TypeError, f"stride {PAIR} 1.5", stride=1.5),
        bad(TypeError, f"padding {PAIR} 'same'", padding="same"),
        bad(ValueError, "padding must be at least 0, got (0, -1)", padding=(0, -1)),
        bad(
            ValueError,
            "padding must be smaller than height and width for pad_mode 'reflect', got (4, 4)",
            padding=4,
            pad_mode="reflect",
        ),
        bad(
            ValueError, "'replicate' needs a pixel to repeat", labels=LABELS[:, :, :0], padding=3, pad_mode="replicate"
        ),
        bad(ValueError, "pad_mode must be one of reflect, replicate, zeros, got 'circular'", pad_mode="circular"),
        bad(TypeError, "ignore_out_of_range must be True or False, got int", ignore_out_of_range=1),
        bad(ValueError, "backend must be one of native, triton, compile, reference or None, got ''", backend=""),
        bad(
            ValueError,
            "labels must be ids in 0..6, the label channels of weight, got 7 at (n, y, x) = (0, 0, 0)",
            labels=LABELS + 7,
        ),
    ],
)
def test_a_bad_argument_is_named_with_what_was_expected_and_what_came(arguments, error, sentence):
    with pytest.raises(error, match=re.escape(sentence)):
        label_conv2d(**{"labels": LABELS, "weight": WEIGHT, **arguments})


sides = st.integers(0, 7)
shapes = st.one_of(st.tuples(sides, st.integers(0, 4), sides, sides), st.lists(sides, max_size=5))


def tensors(dtypes):
    return st.builds(lambda shape, dtype: torch.ones(tuple(shape), dtype=dtype), shapes, st.sampled_from(dtypes))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    n_h_w=st.tuples(st.integers(0, 2), sides, sides),
    out_classes=st.tuples(st.integers(0, 20), st.integers(1, 4)),
    kernel=st.tuples(*[st.integers(0, 5)] * 2),
    dense_channels=st.integers(0, 3),
    dtype=st.sampled_from(DTYPES),
    odd_labels=st.one_of(st.none(), tensors([torch.uint8, torch.int64, torch.float32])),
    odd_dense=st.one_of(st.none(), tensors([*DTYPES, torch.int32])),
    stride=st.one_of(st.integers(0, 4), st.tuples(st.integers(1, 3), st.integers(1, 3))),
    padding=st.one_of(st.integers(-1, 8), st.tuples(sides, sides)),
    pad_mode=st.sampled_from(["reflect", "replicate", "zeros", "circular"]),
    ignore_out_of_range=st.booleans(),
    backend=st.sampled_from([None, "native", "reference", "triton", "vulkan"]),
)
def test_any_arguments_give_a_result_or_a_documented_error(
    n_h_w, out_classes, kernel, dense_channels, dtype, odd_labels, odd_dense, **options
):
    (n, h, w), (out, classes) = n_h_w, out_classes
    labels = torch.zeros(n, 1, h, w, dtype=torch.int32) if odd_labels is None else odd_labels
    dense = torch.ones(n, dense_channels, h, w, dtype=dtype) if odd_dense is None else odd_dense
    dense.requires_grad_(dense.is_floating_point())
    weight = torch.ones(out, classes + dense_channels, *kernel, dtype=dtype, requires_grad=True)
    try:
        y = label_conv2d(labels, weight, dense=dense, **options)
    except (TypeError, ValueError, BackendUnavailableError):
        return
    pair = [(o, o) if isinstance(o, int) else o for o in (options["stride"], options["padding"])]
    expected = [(labels.shape[-2 + i] + 2 * pair[1][i] - kernel[i]) // pair[0][i] + 1 for i in range(2)]
    assert y.shape == (labels.shape[0], out, *expected)
    assert y.dtype == dtype
    for tensor, grad in zip((weight, dense), torch.autograd.grad(y.sum(), (weight, dense)), strict=True):
        assert grad.shape == tensor.shape
