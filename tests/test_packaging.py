"""What gets installed: with the compiled module, without it, and where it cannot be built."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# An interpreter that sees the installed folder and the third-party packages, but no .pth file: an editable
# install of the project itself does not get in the way.
PRELUDE = """
import sys
sys.path[:0] = {paths!r}
"""
USE = """
import warnings
import torch, torchp2p
import torch.nn.functional as F
from torchp2p.ops import _native

assert torchp2p.__file__.startswith(sys.path[0]), torchp2p.__file__
x = torch.randn(2, 3, 8, 8)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    y = torchp2p.ops.norm_act(x)
torch.testing.assert_close(y, F.leaky_relu(F.instance_norm(x), 0.2))
print("module:", _native.C.__file__ if _native.C else None)
print("reason:", _native.REASON)
print("warnings:", [str(w.message) for w in caught])
"""


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what git knows, so that no build folder, new or old, plays a part."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs a git checkout, to tell the project's files from others")
    copy = tmp_path_factory.mktemp("sources")
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    return copy


def pip(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run pip without a network; its output is one text."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
    return subprocess.run(
        command,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def build(sources: Path, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Build a wheel of a fresh copy of ``sources`` into ``folder``, without CUDA kernels unless asked for."""
    copy = shutil.copytree(sources, folder / "sources")
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--verbose")
    return pip("wheel", *options, "--wheel-dir", folder, copy, **{"TORCHP2P_CUDA": "OFF", **environment})


def wheel_in(folder: Path) -> Path:
    (wheel,) = folder.glob("*.whl")
    return wheel


def names_in(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


def use(wheel: Path, folder: Path, **environment: str) -> dict[str, str]:
    """Install ``wheel`` into an empty folder and run an op in a fresh interpreter; what that printed."""
    target = folder / "target"
    installed = pip("install", "--no-deps", "--no-index", "--target", target, wheel)
    assert installed.returncode == 0, installed.stdout
    code = PRELUDE.format(paths=[str(target), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]) + USE
    run = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code],
        env={**os.environ, **environment},
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    return dict(line.split(": ", 1) for line in run.stdout.splitlines())


# --- with the compiled module ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def native_wheel(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("native")
    built = build(sources, folder, TORCHP2P_NATIVE="ON")
    assert built.returncode == 0, built.stdout
    return wheel_in(folder)


def test_the_wheel_has_one_package_at_its_top_level(native_wheel: Path) -> None:
    top = {name.split("/")[0] for name in names_in(native_wheel)}
    (info,) = top - {"torchp2p"}
    assert info.startswith("torchp2p-")
    assert info.endswith(".dist-info")


def test_the_wheel_holds_every_python_file_of_the_package(native_wheel: Path, sources: Path) -> None:
    expected = {path.relative_to(sources).as_posix() for path in (sources / "torchp2p").rglob("*.py")}
    for folder in ("kernels", "benchmarks"):
        expected |= {f"torchp2p/{path.relative_to(sources).as_posix()}" for path in (sources / folder).rglob("*.py")}
    assert expected == {name for name in names_in(native_wheel) if name.endswith(".py")}


def test_the_wheel_holds_the_compiled_module_and_the_types(native_wheel: Path) -> None:
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    assert names_in(native_wheel) >= {f"torchp2p/_C{suffix}", "torchp2p/_C.pyi", "torchp2p/py.typed"}


def test_the_installed_wheel_runs_natively_and_warns_of_nothing(native_wheel: Path, tmp_path: Path) -> None:
    printed = use(native_wheel, tmp_path, TORCHP2P_STRICT="1")
    assert printed["module"].startswith(str(tmp_path))
    assert printed["reason"] == ""
    assert printed["warnings"] == "[]"


# --- without it ------------------------------------------------------------------------------------------


def test_a_pure_wheel_installs_anywhere_and_falls_back_with_the_reason(sources: Path, tmp_path: Path) -> None:
    built = build(sources, tmp_path, TORCHP2P_NATIVE="OFF")
    assert built.returncode == 0, built.stdout
    wheel = wheel_in(tmp_path)
    assert wheel.name.endswith("-py3-none-any.whl")
    assert not [name for name in names_in(wheel) if name.endswith(".so")]
    printed = use(wheel, tmp_path, PATH="")  # no compiler on the PATH: torch.compile cannot step in
    assert printed["module"] == "None"
    assert "without its compiled module" in printed["reason"]
    assert "norm_act uses the 'reference' backend" in printed["warnings"]
    assert printed["reason"] in printed["warnings"]


def test_a_broken_compiler_leaves_a_pure_install_and_a_warning(sources: Path, tmp_path: Path) -> None:
    built = build(sources, tmp_path, TORCHP2P_NATIVE="AUTO", CXX="/bin/false")
    assert built.returncode == 0, built.stdout
    assert "warning: torchp2p._C could not be built" in built.stdout
    assert "installing without compiled kernels" in built.stdout
    assert not [name for name in names_in(wheel_in(tmp_path)) if name.endswith(".so")]


def test_a_broken_compiler_is_an_error_where_native_code_is_demanded(sources: Path, tmp_path: Path) -> None:
    built = build(sources, tmp_path, TORCHP2P_NATIVE="ON", CXX="/bin/false")
    assert built.returncode != 0
    assert "error: torchp2p._C could not be built (CMake ended with status 1" in built.stdout
    assert "Traceback" not in built.stdout


def test_an_unknown_choice_is_refused(sources: Path, tmp_path: Path) -> None:
    built = build(sources, tmp_path, TORCHP2P_NATIVE="MAYBE")
    assert built.returncode != 0
    assert "TORCHP2P_NATIVE must be one of AUTO, ON, OFF, got 'MAYBE'" in built.stdout


# --- the source distribution -----------------------------------------------------------------------------


def test_the_source_distribution_holds_all_that_a_build_needs(sources: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(sources, tmp_path / "sources")
    code = f"from setuptools import build_meta; build_meta.build_sdist({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=copy, check=True, capture_output=True)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        held = {name.split("/", 1)[1] for name in file.getnames() if "/" in name}
    needed = {path.relative_to(sources).as_posix() for path in (sources / "csrc").rglob("*") if path.is_file()}
    needed |= {"setup.py", "pyproject.toml", "CMakeLists.txt", "LICENSE", "README.md", "kernels/__init__.py"}
    assert needed - held == set()
