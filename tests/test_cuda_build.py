"""Whether the build makes CUDA kernels: what is asked for, what it finds, and what it says."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pybind11
import pytest
from cuda_on_cpu.build import tool

ROOT = Path(__file__).resolve().parent.parent


def configure(folder: Path, **options: str) -> subprocess.CompletedProcess[str]:
    given = {
        "CMAKE_MAKE_PROGRAM": tool("ninja"),
        "pybind11_DIR": pybind11.get_cmake_dir(),
        "Python_EXECUTABLE": sys.executable,
        **options,
    }
    command = [tool("cmake"), "-S", str(ROOT), "-B", str(folder), "-G", "Ninja"]
    return subprocess.run(
        [*command, *(f"-D{name}={value}" for name, value in given.items())],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "compiler", "line"),
    [
        ("AUTO", "/bin/false", "torchp2p: no CUDA kernels (/bin/false does not run)"),
        ("OFF", "nvcc", "torchp2p: no CUDA kernels (TORCHP2P_CUDA=OFF)"),
    ],
)
def test_without_cuda_the_build_goes_on_and_says_why_in_one_line(
    tmp_path: Path, asked: str, compiler: str, line: str
) -> None:
    done = configure(tmp_path, TORCHP2P_CUDA=asked, TORCHP2P_NVCC=compiler)
    assert done.returncode == 0, done.stdout
    assert [said for said in done.stdout.splitlines() if "torchp2p:" in said] == [f"-- {line}"]


def test_cuda_kernels_that_are_demanded_and_cannot_be_built_are_an_error(tmp_path: Path) -> None:
    done = configure(tmp_path, TORCHP2P_CUDA="ON", TORCHP2P_NVCC="/bin/false")
    assert done.returncode != 0
    assert "TORCHP2P_CUDA=ON, but /bin/false does not run" in done.stdout


def test_an_unknown_choice_is_refused(tmp_path: Path) -> None:
    done = configure(tmp_path, TORCHP2P_CUDA="MAYBE")
    assert done.returncode != 0
    assert "TORCHP2P_CUDA must be one of AUTO, ON, OFF, got MAYBE" in done.stdout


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc on the PATH")
def test_kernels_are_compiled_for_the_architectures_asked_for(tmp_path: Path) -> None:
    done = configure(tmp_path, TORCHP2P_CUDA="ON", TORCHP2P_CUDA_ARCHS="75;86")
    assert done.returncode == 0, done.stdout
    assert "torchp2p: CUDA kernels for 75;86, compiled by " in done.stdout
    rules = (tmp_path / "build.ninja").read_text()
    assert "code=[sm_75]" in rules
    assert "code=[compute_86,sm_86]" in rules
