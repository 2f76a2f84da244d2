"""``conv_norm_act`` refuses what it cannot take, in one sentence, and takes or refuses whatever comes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from op_testing import DTYPES, LAYOUTS

from torchp2p.ops import BackendUnavailableError, Deferred, _dispatch, conv_norm_act

OP = "conv_norm_act"

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
    "no such algorithm": ({"algorithm": "fft"}, ValueError, "winograd, gemm, phased, fused or None, got 'fft'"),
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


def test_a_dtype_that_an_algorithm_does_not_know_is_its_reason():
    with pytest.raises(BackendUnavailableError, match=r"algorithm 'winograd' cannot run: .*, not torch\.float16$"):
        conv_norm_act(X.half(), WEIGHT.half(), algorithm="winograd")


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
