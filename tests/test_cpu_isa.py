"""The CPU kernels on every instruction set they are compiled for: conversions, tanh, sigmoid, and the ops' bounds.

The tests of this file run under the instruction set of this process; the last one runs them, and the tests of the
ops against their oracles, under the others.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from op_testing import HALF_DTYPES, ulps_from

from torchp2p.ops import _native, norm_act

NAMES = {"baseline": "baseline", "v3": "x86-64-v3 (AVX2)", "v4": "x86-64-v4 (AVX-512)"}
TESTS = Path(__file__).parent


def every_half(dtype: torch.dtype) -> torch.Tensor:
    """All 65536 values of a 16-bit dtype, infinities and nans among them."""
    return torch.arange(65536, dtype=torch.int32).to(torch.uint16).view(dtype)


def floats_to_round(dtype: torch.dtype) -> torch.Tensor:
    """float32 values that are hard to round to ``dtype``: its own, all midpoints between them, and their neighbours."""
    own = every_half(dtype).float()
    own = own[own.isfinite() & (own >= 0)].sort().values
    above = torch.cat([own[1:], 2 * own[-1:] - own[-2:-1]])
    ties = own + (above - own) / 2
    exact = torch.cat([own, ties])
    infinity = torch.tensor(float("inf"))
    near = torch.cat([exact, exact.nextafter(infinity), exact.nextafter(-infinity)])
    special = torch.tensor([float("inf"), float("nan"), 65520.0, 65519.996, 3.4e38, 1e-45, 1e-40, 2.0**-25, 2.0**-24])
    everywhere = torch.arange(0, 2**31, 65521, dtype=torch.int64).to(torch.int32).view(torch.float32)
    positive = torch.cat([near, special, everywhere])
    return torch.cat([positive, -positive])


def in_whole_registers(values: torch.Tensor) -> torch.Tensor:
    """One pixel of many channels, channels_last: a row that the kernels take register by register."""
    count = values.numel()
    return values.as_strided((1, count, 1, 1), (count, 1, count, count))


def lane_by_lane(values: torch.Tensor) -> torch.Tensor:
    """One pixel of many channels, contiguous: each a row of a single value."""
    return values.view(1, -1, 1, 1)


either_way = pytest.mark.parametrize("as_image", [in_whole_registers, lane_by_lane], ids=lambda f: f.__name__)
every_half_dtype = pytest.mark.parametrize("dtype", HALF_DTYPES, ids=str)


def assert_same_bits(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal to the bit, but for the payload of a nan."""
    assert torch.equal(found.isnan(), expected.isnan())
    bits = {2: torch.int16, 4: torch.int32}[expected.element_size()]
    real = ~expected.isnan()
    assert torch.equal(found[real].view(bits), expected[real].view(bits))


@either_way
@every_half_dtype
def test_conversion_to_half_precision_rounds_as_torch_does(dtype, as_image):
    values = floats_to_round(dtype)
    ones = as_image(torch.ones(values.numel(), dtype=dtype))
    y = norm_act(ones, weight=values, norm="none", act="none", backend="native")
    assert_same_bits(y.flatten(), values.to(dtype))


@either_way
@every_half_dtype
def test_conversion_from_half_precision_is_exact(dtype, as_image):
    values = every_half(dtype)
    weight = torch.ones(values.numel(), requires_grad=True)
    y = norm_act(as_image(values), weight, norm="none", act="none", backend="native")
    (grad,) = torch.autograd.grad(y, weight, torch.ones_like(y))
    # A sum that starts at zero ends at zero, not minus zero.
    assert_same_bits(grad, values.float() + 0.0)
    assert_same_bits(y.detach().flatten(), values)


def floats_of_every_magnitude() -> torch.Tensor:
    """A million float32 values: every exponent, both signs, subnormals, infinities, nans; and some about one."""
    patterns = torch.arange(-(2**31), 2**31, 4099, dtype=torch.int64).to(torch.int32).view(torch.float32)
    special = torch.tensor([0.0, -0.0, 1e-45, -1e-45, float("inf"), -float("inf"), float("nan")])
    return torch.cat([patterns, torch.linspace(-12, 12, 200001), special])


def test_tanh_is_within_one_unit_in_the_last_place_of_every_float():
    x = floats_of_every_magnitude()
    y = norm_act(x.view(1, 1, 1, -1), norm="none", act="tanh", backend="native").flatten()
    assert torch.equal(y.isnan(), x.isnan())
    real = ~x.isnan()
    assert ulps_from(y[real], torch.tanh(x[real].double())).max() <= 1
    assert y[real].abs().max() == 1


@pytest.mark.parametrize("act", ["tanh", "none", "leaky_relu"])
def test_a_zero_keeps_its_sign(act):
    x = torch.tensor([0.0, -0.0]).repeat(20).view(1, 1, 1, -1)
    y = norm_act(x, norm="none", act=act, backend="native")
    assert torch.equal(y.signbit(), x.signbit())


def test_tanh_in_float64_is_that_of_the_c_library():
    x = floats_of_every_magnitude().double()
    y = norm_act(x.view(1, 1, 1, -1), norm="none", act="tanh", backend="native").flatten()
    torch.testing.assert_close(y, torch.tanh(x), rtol=4e-16, atol=0, equal_nan=True)


@pytest.mark.parametrize("real", [True, False])
def test_the_sigmoid_of_every_float_is_relatively_exact(real):
    x = floats_of_every_magnitude()
    count = x.numel()
    _, (slopes,) = torch.ops.torchp2p.gan_loss([x], real, "vanilla", True, True, "native")
    assert torch.equal(slopes.isnan(), x.isnan())
    exact = (-torch.sigmoid(-x.double()) if real else torch.sigmoid(x.double())) / count
    told_apart = exact.abs() * count > 1e-37  # a slope below that is subnormal, or zero, before it is divided
    assert ulps_from(slopes[told_apart], exact[told_apart]).max() <= 4
    rest = ~(told_apart | x.isnan())
    assert slopes[rest].abs().max() <= 1e-37 / count * 1.01


def run(*command: str, isa: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"TORCHP2P_CPU_ISA": isa}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, cwd=TESTS.parent)


@pytest.mark.parametrize("isa", NAMES)
def test_under_another_instruction_set_all_bounds_hold_too(isa):
    print_name = "import torch; from torchp2p import _C; print(_C.cpu_isa())"
    name = run(sys.executable, "-c", print_name, isa=isa).stdout.strip()
    if name != NAMES[isa]:
        pytest.skip(f"neither this machine nor this build has {NAMES[isa]}: asked for it, got {name}")
    if name == _native.C.cpu_isa():
        pytest.skip(f"this process uses {name}, and so do the tests beside this one")
    tested = ("cpu_isa", "norm_act", "gan_loss", "feature_matching_loss")
    files = [str(TESTS / f"test_{name}.py") for name in tested]
    chosen = "not another and not reference and not cuda and (half or zero or tanh or sigmoid or oracle or registers)"
    done = run(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", chosen, *files, isa=isa)
    assert done.returncode == 0, done.stdout[-5000:]
    assert " passed" in done.stdout
