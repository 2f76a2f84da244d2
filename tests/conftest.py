"""What every test starts from: a device, a seed, one thread, and the sample frames where there are any."""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
import torch
from cuda_on_cpu import build, harness
from op_testing import backends_on

if TYPE_CHECKING:
    from torchp2p.train import TrainConfig

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", choices=("cpu", "cuda"), default="cpu", help="where the op tests run (default: cpu)")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--device") == "cpu":  # before a kernel is imported: it decides what a kernel is
        os.environ["TRITON_INTERPRET"] = "1"
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


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In Triton's interpreter a test marked ``interpreted(one_in=n)`` takes one in n of its cases, n = 0 none of them.

    Which ones their names decide: the same in every run, and evenly over all parameters. Small cases that reach every
    branch of a kernel belong in ``test_<op>_triton.py``, which takes all of its cases.
    """
    if config.getoption("--device") != "cpu":
        return
    left_out = [item for item in items if not _is_interpreted(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if _is_interpreted(item)]


def _is_interpreted(item: pytest.Item) -> bool:
    callspec = getattr(item, "callspec", None)
    if callspec is None or "triton" not in (callspec.params.get("backend"), callspec.params.get("kernel")):
        return True
    marker = item.get_closest_marker("interpreted")
    one_in = 1 if marker is None else marker.kwargs["one_in"]
    return one_in > 0 and zlib.crc32(item.name.encode()) % one_in == 0


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


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    """torch.compile knows of nothing that was compiled before, nor is anything left to the next test."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture(scope="session")
def cityscapes() -> Path:
    """Folder of the Cityscapes sample frames (``train_img``, ``train_label``, ...)."""
    folder = Path(os.environ.get("TORCHP2P_CITYSCAPES") or REPOSITORY.parent / "shared/data/cityscapes")
    if not (folder / "train_img").is_dir():
        pytest.skip(f"no Cityscapes sample frames in {folder} (set TORCHP2P_CITYSCAPES)")
    return folder


@pytest.fixture(scope="session")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training that nothing stopped, see ``tiny_training.py``."""
    from tiny_training import train_straight

    return train_straight(tmp_path_factory.mktemp("straight"))


@pytest.fixture
def config(tmp_path: Path, straight: Path) -> TrainConfig:
    """The same training, somewhere else."""
    from tiny_training import tiny_config

    from torchp2p.models import load_config

    return tiny_config(tmp_path, dataroot=load_config(straight / "latest_net_G.pth")["dataroot"])


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the commands are tried on, see ``cli_workshop.py``."""
    from cli_workshop import fill_workshop

    root = tmp_path_factory.mktemp("cli")
    fill_workshop(root)
    return root


@pytest.fixture
def there(workshop: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The workshop as the current folder; a test must leave it as it was."""
    monkeypatch.chdir(workshop)
    return workshop


@pytest.fixture
def here(workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the workshop as the current folder, to work in."""
    copy = tmp_path / "copy"
    shutil.copytree(workshop, copy)
    monkeypatch.chdir(copy)
    return copy
