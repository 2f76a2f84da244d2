"""Compiles .cu files as C++ against the headers of this folder: all kernels behind their bindings, or one file."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FLAGS = ("-std=c++17", "-g0", "-O1", "-fPIC", "-shared", "-Wno-unknown-pragmas", "-U_FORTIFY_SOURCE")


def unavailable() -> str:
    """Why nothing can be compiled here; empty if it can."""
    compiler = os.environ.get("CXX", "g++")
    return "" if shutil.which(compiler) else f"no C++ compiler: {compiler!r} is not on the PATH"


def build_module(folder: Path) -> Path:
    """The module ``_C`` with its grids on the CPU, built in ``folder``; what is up to date there is kept.

    Raises:
        RuntimeError: it does not compile; the message is the compiler's.
    """
    import pybind11

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # test runs side by side share the folder
        cmake = tool("cmake")
        _run(
            cmake, "-S", str(HERE), "-B", str(folder), "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}", f"-DPython_EXECUTABLE={sys.executable}",
        )  # fmt: skip
        _run(cmake, "--build", str(folder))
    (module,) = folder.glob(f"_C{sysconfig.get_config_var('EXT_SUFFIX')}")
    return module


def build_library(source: Path, target: Path, *flags: str) -> Path:
    """One .cu file and the grid as a shared library.

    Raises:
        RuntimeError: it does not compile; the message is the compiler's.
    """
    grid = [str(HERE / name) for name in ("grid.cpp", "guarded.cpp", "lend.cpp")]
    device = str(ROOT / "csrc/cuda/device.cu")
    includes = [f"-I{folder}" for folder in (HERE / "include", ROOT / "csrc/include", ROOT / "csrc/cuda")]
    compiler = os.environ.get("CXX", "g++")
    _run(compiler, *FLAGS, *flags, *includes, *grid, "-x", "c++", device, str(source), "-o", str(target))
    return target


def tool(name: str) -> str:
    """The program beside this interpreter, whose environment may not be active, else the one on the PATH."""
    return shutil.which(name, path=sysconfig.get_path("scripts")) or name


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
