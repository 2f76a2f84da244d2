"""``conv_norm_act(algorithm="fused")`` as a citizen of torch and of a GPU: registration, refusals, sizes, offsets."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conv_norm_act_case import REFLECT, Case, chain_inputs, ours, random_inputs
from conv_norm_act_fused_case import FIRST, FUSED, SMALL, TILES, UP, kernels
from op_testing import channels_last, leaf

from torchp2p.ops import BackendUnavailableError, Deferred, _dispatch, conv_norm_act


@pytest.fixture(autouse=True)
def _tiny_tiles(monkeypatch):
    monkeypatch.setattr(kernels, "default_tiles", lambda x: TILES)


# --- only what is wanted ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "expected"), [("x", {"data_gradient", "norm_gradient"}), ("weight", {"weight_gradient"})]
)
def test_only_the_gradients_that_are_wanted_are_computed(wanted, expected, device, monkeypatch):
    tensors = {"x": torch.randn(2, 3, 5, 6, device=device), "weight": torch.randn(4, 3, 3, 3, device=device)}
    tensors[wanted].requires_grad_()
    deferred = Deferred(tensors["x"], "instance", act="relu")
    y = conv_norm_act(deferred, tensors["weight"], norm="none", act="none", **FUSED)
    ran = set()
    for name in ("data_gradient", "norm_gradient", "weight_gradient", "forward"):
        function = getattr(kernels, name)
        monkeypatch.setattr(kernels, name, lambda *a, name=name, function=function: ran.add(name) or function(*a))
    y.sum().backward()
    assert ran == expected


# --- as an operator --------------------------------------------------------------------------------------


@pytest.mark.parametrize("geometry", [REFLECT, UP], ids=str)
def test_the_operator_is_registered_as_torch_wants_it(geometry, device):
    case = Case(geometry, affine=True, bias=True)
    inputs = random_inputs(case, torch.float32, device, SMALL).laid_out(channels_last)
    x, vector = leaf(inputs.x), torch.rand(4, device=device, requires_grad=True)
    source = (x, vector, vector, torch.randn_like(x), None, None, "instance", 1e-5, "tanh", 0.2, 1)
    weight = leaf(inputs.tensors["weight"])
    up = geometry.transposed
    convolution = ([2, 2] if up else [1, 1], 1, geometry.pad_mode, up, [1, 1] if up else [0, 0])
    how = ("fused", "reference")
    arguments = (*source, weight, inputs.tensors["bias"], *convolution, 2, *how)
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(torch.ops.torchp2p.conv_norm_act.default, arguments, test_utils=tests)
    raw, mean, var, *_ = torch.ops.torchp2p.conv_norm_act(*arguments)
    wanted = (True, True, True, True)
    arguments = (torch.randn_like(raw), *source[:4], mean, var, *source[6:], weight, *convolution, *wanted, *how)
    torch.library.opcheck(torch.ops.torchp2p.conv_norm_act_backward.default, arguments, test_utils=tests)


def test_a_compiled_chain_gives_the_same_numbers(device):
    cases = [FIRST, Case(REFLECT, inputs=4)]
    blocks, _ = chain_inputs(cases, torch.float32, device, SMALL)

    def chain(x):
        h = ours(cases[0], x, blocks[0].tensors, defer=True, **FUSED)
        return ours(cases[1], h, blocks[1].tensors, **FUSED)

    torch._dynamo.reset()
    compiled = torch.compile(chain, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(blocks[0].x), chain(blocks[0].x))
    torch._dynamo.reset()


def test_without_a_gpu_and_without_the_interpreter_it_raises_and_says_why(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(_dispatch, "triton_unavailable", _dispatch.triton_unavailable.__wrapped__)
    with pytest.raises(BackendUnavailableError, match="'fused' cannot run: Triton kernels run on GPU tensors, not cpu"):
        conv_norm_act(torch.zeros(1, 3, 4, 5), torch.zeros(2, 3, 3, 3), **FUSED)


def test_float64_is_refused_with_the_reason():
    x, weight = torch.zeros(1, 3, 4, 5, dtype=torch.float64), torch.zeros(2, 3, 3, 3, dtype=torch.float64)
    reason = "the fused convolution multiplies float32, bfloat16 and float16, not float64"
    with pytest.raises(BackendUnavailableError, match=f"algorithm 'fused' cannot run: {reason}"):
        conv_norm_act(x, weight, **FUSED)


# --- sizes -----------------------------------------------------------------------------------------------


def launches(channels: int, size: tuple[int, int], samples: int = 1) -> list:
    """What a block on channels_last images without memory launches."""
    x = torch.empty((samples, channels, *size), device="meta").contiguous(memory_format=torch.channels_last)
    window = kernels.Window((3, 3), (1, 1), 1, "reflect", False)
    weight, tile = torch.empty((channels, channels, 3, 3), device="meta"), kernels.Tile(64, 64, 32, 4, 2)
    with importlib.import_module("torchp2p.kernels._launch").recorded() as found:
        kernels.forward(kernels.Source(x), weight, None, torch.empty_like(x), window, samples, tile)
        kernels.weight_gradient(torch.empty_like(x), kernels.Source(x), weight, window, tile)
    return found


COUNT_COMPILATIONS = """
import sys
from test_conv_norm_act_fused_contract import launches
from torchp2p.kernels.aot import compilation_of
for channels in (3, 8, 12, 64):
    keys = [{compilation_of(launch, 80).key for launch in launches(channels, size)} for size in ((64, 128), (37, 1001))]
    print(channels, len(keys[0]), len(keys[0] | keys[1]))
"""


def test_an_image_of_another_size_compiles_nothing():
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    ran = subprocess.run([sys.executable, "-c", COUNT_COMPILATIONS], env=environment, capture_output=True, text=True)
    assert ran.stdout.splitlines() == ["3 3 3", "8 3 3", "12 3 3", "64 3 3"], ran.stderr


@pytest.mark.parametrize(("allowed", "precision"), [(True, "tf32"), (False, "ieee")])
def test_float32_is_as_exact_as_torch_allows_its_own_convolutions_to_be(allowed, precision, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", allowed)
    assert launches(8, (8, 8))[0].options["PRECISION"] == precision


def test_offsets_are_wide_where_one_sample_needs_it_and_samples_may_be_many():
    (forward, *_), (huge, *_) = launches(64, (1024, 1024), samples=64), launches(1024, (2048, 1024))
    assert [str(launch.options["OFFSET"]) for launch in (forward, huge)] == ["int32", "int64"]
