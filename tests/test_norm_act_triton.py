"""``norm_act`` in Triton, with tiles so small that small images have many, with rests on every side.

Everywhere else tiles have their usual size, which one small image does not fill.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from norm_act_case import Case, eager, laid_out, oracle, ours, random_inputs
from op_testing import DTYPES, LAYOUTS, assert_as_exact_as_eager, channels_last, contiguous

_tiles = pytest.importorskip("torchp2p.kernels._tiles", reason="triton is not installed")
from torchp2p.kernels import _index, _launch, _statistics, _sums  # noqa: E402
from torchp2p.kernels import norm_act as kernels  # noqa: E402
from torchp2p.reference.norm_act import memory_format_of, statistics_dtype  # noqa: E402

# Tiles of 2 x 8 pixels, or of 8 pixels x 2 channels, leave a rest along every axis; some borders are wider than they.
SHAPE = (2, 3, 6, 9)

CASES = [
    (Case(pad=1, affine=True, residual=True), torch.float32, contiguous),
    (Case("instance", "tanh"), torch.float64, channels_last),
    (Case("instance", "relu", 5, "reflect", affine=True), torch.float32, channels_last),
    (Case("instance", "relu", 5, "reflect", residual=True), torch.float64, contiguous),
    (Case("instance", "none", 1, "replicate", residual=True), torch.float16, contiguous),
    (Case("batch", "leaky_relu", 1, "reflect", affine=True), torch.bfloat16, contiguous),
    (Case("batch", "tanh", 0, affine=True, residual=True), torch.float32, channels_last),
    (Case("batch", "leaky_relu", 1, "replicate", affine=True, stat_groups=2), torch.float32, channels_last),
    (Case("batch", "relu", 1, "zeros", affine=True, given=True), torch.bfloat16, channels_last),
    (Case("instance", "leaky_relu", 0, given=True), torch.float32, contiguous),
    (Case("none", "leaky_relu", 9, "zeros", affine=True, residual=True), torch.float32, contiguous),
    (Case("none", "tanh", 0), torch.float16, channels_last),
    (Case("none", "relu", 5, "replicate", shape=(1, 2, 2, 3)), torch.float32, channels_last),
]
name = {"ids": lambda value: str(value).removeprefix("torch.") if not callable(value) else value.__name__}


@pytest.fixture(params=["whole", "split"])
def small_tiles(request, monkeypatch):
    """Planes are taken whole, tile by tile, or split among programs that take two tiles or less."""
    monkeypatch.setattr(_tiles, "TILE", 32)  # 16 where there are borders
    monkeypatch.setattr(_tiles, "LINE", 8)
    monkeypatch.setattr(_tiles, "CHANNELS", 2)
    monkeypatch.setattr(_statistics, "PROGRAMS", 8)
    monkeypatch.setattr(_statistics, "MERGED", (4, 4))
    monkeypatch.setattr(_sums, "SUMMED", (4, 4))
    monkeypatch.setattr(kernels, "ENOUGH_PROGRAMS", 1)
    monkeypatch.setattr(kernels, "CACHED_BYTES", 2**20 if request.param == "whole" else 0)


def assert_exact(case, inputs):
    found, exact, in_eager = ours(case, inputs, "triton"), oracle(case, inputs), eager(case, inputs)
    for result, value in exact.results.items():
        assert_as_exact_as_eager(result, found[result], in_eager[result], value, exact.magnitudes.get(result))


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize(("case", "dtype", "layout"), CASES, **name)
def test_many_tiles_give_what_one_gives(case, dtype, layout, device):
    case = case if case.shape[1] == 2 else replace(case, shape=SHAPE)
    assert_exact(case, laid_out(random_inputs(case, dtype, device), layout))


STRIDED = ["cropped", "channel_slice", "channel_slice_channels_last", "transposed", "every_second", "expanded"]


@pytest.mark.parametrize("pad", [0, 1])
@pytest.mark.parametrize("layout", STRIDED)
def test_strides_are_arguments(layout, pad, device):
    case = Case("instance", "tanh", pad, residual=True, shape=(2, 3, 4, 5))
    inputs, lie = random_inputs(case, torch.float32, device), LAYOUTS[layout]
    assert_exact(case, replace(inputs, x=lie(inputs.x)))
    assert_exact(case, replace(inputs, residual=lie(inputs.residual), grad_y=lie(inputs.grad_y)))


# --- what is decided before a kernel starts --------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 1, 4, 5), (2, 3, 1, 1)], ids=str)
def test_kernels_and_reference_mean_the_same_layout_and_precision(layout, shape):
    for dtype in DTYPES:
        x = layout(torch.zeros(shape, dtype=dtype))
        assert _index.layout_of(x) == memory_format_of(x)
        assert _index.accumulator(dtype) == statistics_dtype(dtype)


def test_offsets_have_64_bits_where_32_do_not_reach_the_last_element():
    def offsets(*shape):
        return str(_index.offset_type(torch.empty(shape, device="meta"), None))

    assert offsets(2, 64, 1024, 1024) == "int32"
    assert offsets(32, 64, 1024, 1024) == "int64"  # 2^31 elements


@pytest.mark.parametrize("shape", [(32, 64, 1024, 1024), (2, 64, 1024, 1024), (1, 5, 7, 9)], ids=str)
@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
def test_nothing_is_read_to_decide_what_is_launched(norm, shape):
    """On tensors without memory everything but the kernels runs: nothing waits for a GPU or reads from it."""
    x = torch.empty(shape, device="meta", dtype=torch.bfloat16)
    options = (norm, 1e-5, "relu", 0.2, 1, "reflect", 1)
    with _launch.recorded() as launches:
        y, mean, var = kernels.norm_act(x, None, None, None, None, None, *options)
        grads = kernels.norm_act_backward(y, x, None, None, None, *((mean, var) if norm != "none" else (None, None)),
                                          *options, False)  # fmt: skip
    assert y.shape[2:] == (shape[2] + 2, shape[3] + 2)
    assert grads[0].shape == x.shape
    wide = x.numel() >= 2**31
    offsets = {str(launch.options["OFFSET"]) for launch in launches if "OFFSET" in launch.options}
    assert offsets == {"int64" if wide else "int32"}


COMPILATIONS = """
import sys, torch
from torchp2p.kernels import aot, norm_act
from torchp2p.kernels._launch import recorded

def keys(n, c, h, w, norm, pad, layout):
    x = torch.empty(n, c, h, w, device="meta", dtype=torch.bfloat16, memory_format=layout)
    grad = torch.empty(n, c, h + 2 * pad, w + 2 * pad, device="meta", dtype=torch.bfloat16, memory_format=layout)
    options = (norm, 1e-5, "relu", 0.2, pad, "reflect", 1)
    stats = [torch.empty(n if norm == "instance" else 1, c, device="meta") for _ in range(2)]
    with recorded() as launches:
        norm_act.norm_act(x, None, None, None, None, None, *options)
        norm_act.norm_act_backward(grad, x, None, None, None, *stats, *options, False)
    return {aot.compilation_of(launch, 90).key for launch in launches}

for norm in ("instance", "batch"):
    for layout in (torch.contiguous_format, torch.channels_last):
        for sizes in ([(512, 512), (1024, 2048), (480, 640)], [(511, 513), (1021, 2047), (405, 719)]):
            for pad in (0, 1):
                found = [keys(n, 64, h, w, norm, pad, layout) for h, w in sizes for n in (1, 3)]
                assert all(other == found[0] for other in found), (norm, layout, pad)
                print(len(found[0]))
"""


def test_a_new_image_size_or_batch_size_compiles_nothing():
    """Sizes that are multiples of 16 and sizes that are not are told apart where rows are loaded 16 bytes at a time."""
    done = subprocess.run(
        [sys.executable, "-c", COMPILATIONS],
        env=os.environ | {"TRITON_INTERPRET": "0"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert all(int(count) <= 6 for count in done.stdout.split())
