"""What every test starts from: a device, a seed, one thread, and the sample frames where there are any."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from cuda_on_cpu import build, harness
from op_testing import backends_on

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", choices=("cpu", "cuda"), default="cpu", help="where the op tests run (default: cpu)")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--device") == "cuda" and not torch.cuda.is_available():
        raise pytest.UsageError("--device cuda: torch sees no CUDA device here")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """``backend`` takes every backend of an op, ``kernel`` those with code of their own.

    The test module names its op in ``OP``. On the CPU the CUDA kernels are one more, ``cuda_on_cpu``, where the module
    says ``ON_THE_GRID = True``: it tests what kernels compute, on tensors that are small enough.
    """
    device = metafunc.config.getoption("--device")
    if "backend" in metafunc.fixturenames:
        names = backends_on(device, metafunc.module.OP)
        metafunc.parametrize("backend", [*names, *_cuda_on_cpu(device, metafunc.module)], indirect=True)
    if "kernel" in metafunc.fixturenames:
        names = [name for name in backends_on(device, metafunc.module.OP) if name != "reference"]
        metafunc.parametrize("kernel", [*names, *_cuda_on_cpu(device, metafunc.module)], indirect=True)


def _cuda_on_cpu(device: str, module: ModuleType) -> list[object]:
    """The extra value of modules that ask for it, where their tests run on the CPU."""
    if device != "cpu" or not getattr(module, "ON_THE_GRID", False):
        return []
    reason = build.unavailable()
    return [pytest.param("cuda_on_cpu", marks=pytest.mark.skip(reason=reason) if reason else ())]


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    yield from _named(request)


@pytest.fixture
def kernel(request: pytest.FixtureRequest) -> Iterator[str]:
    yield from _named(request)


def _named(request: pytest.FixtureRequest) -> Iterator[str]:
    """The name to ask for; in a test on the grid the native backend is the CUDA kernels."""
    if request.param != "cuda_on_cpu":
        yield request.param
        return
    with harness.installed(request.getfixturevalue("cuda_on_cpu")):
        yield "native"


@pytest.fixture(scope="session")
def cuda_on_cpu() -> harness.Native:
    """The CUDA kernels, compiled to run on the CPU; kept from one session to the next."""
    return harness.load(build.build_module(REPOSITORY / "build/cuda_on_cpu"))


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.config.getoption("--device"))


@pytest.fixture(autouse=True)
def _same_start_for_every_test():
    """One thread: two that wait for each other on tiny tensors are slow where the machine is shared.

    Tests of what threads do set their own number.
    """
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def cityscapes() -> Path:
    """Folder of the Cityscapes sample frames (``train_img``, ``train_label``, ...)."""
    folder = Path(os.environ.get("TORCHP2P_CITYSCAPES") or REPOSITORY.parent / "shared/data/cityscapes")
    if not (folder / "train_img").is_dir():
        pytest.skip(f"no Cityscapes sample frames in {folder} (set TORCHP2P_CITYSCAPES)")
    return folder
