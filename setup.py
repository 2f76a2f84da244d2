"""Builds torchp2p._C with CMake. Everything else about the package stands in pyproject.toml.

TORCHP2P_NATIVE=AUTO (default) builds the compiled module and installs without it, saying so, when the build
fails; ON makes a failure an error; OFF does not try. Without it every op runs on its PyTorch fallback.
TORCHP2P_CUDA=AUTO (default), ON or OFF decides likewise about the CUDA kernels in it, which need nvcc and no GPU;
TORCHP2P_CUDA_ARCHS="80;90" says for which architectures (default: those of the machine's GPUs, else these two).
TORCHP2P_SANITIZE=ON builds it with AddressSanitizer and UndefinedBehaviorSanitizer (`make sanitize`).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
CHOICES = ("AUTO", "ON", "OFF")


def native_choice() -> str:
    choice = os.environ.get("TORCHP2P_NATIVE", "AUTO").upper()
    if choice not in CHOICES:
        raise SystemExit(f"TORCHP2P_NATIVE must be one of {', '.join(CHOICES)}, got {choice!r}")
    return choice


def native_sources() -> list[str]:
    """What the module is built from; as paths relative to here, which is how they enter the sdist."""
    csrc = (path for path in (ROOT / "csrc").rglob("*") if path.is_file())
    return ["CMakeLists.txt", *sorted(path.relative_to(ROOT).as_posix() for path in csrc)]


def tool(name: str) -> str:
    """The program on the PATH, else the one beside this interpreter, whose environment may not be active."""
    return shutil.which(name) or shutil.which(name, path=sysconfig.get_path("scripts")) or name


def reason(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        return f"CMake ended with status {error.returncode}, see its messages above; a C++17 compiler is needed"
    return str(error)


class CMakeBuild(build_ext):
    """Configures and builds CMakeLists.txt, and puts the module where setuptools expects it."""

    def build_extension(self, ext: Extension) -> None:
        try:
            self._build(Path(self.get_ext_fullpath(ext.name)).resolve().parent)
        except (ImportError, OSError, subprocess.CalledProcessError) as error:
            message = f"torchp2p._C could not be built ({reason(error)})"
            if native_choice() == "ON":
                raise SystemExit(f"error: {message}.") from error
            print(f"warning: {message}; installing without compiled kernels.", file=sys.stderr)

    def _build(self, target: Path) -> None:
        """With CUDA kernels if they are wanted; once more without, where they are to blame and nobody demands them."""
        cuda = os.environ.get("TORCHP2P_CUDA", "AUTO").upper()
        try:
            self._run_cmake(target, cuda)
        except subprocess.CalledProcessError:
            if cuda != "AUTO":
                raise
            print("warning: torchp2p._C is built once more, without CUDA kernels.", file=sys.stderr)
            self._run_cmake(target, "OFF")

    def _run_cmake(self, target: Path, cuda: str) -> None:
        import pybind11

        work = Path(self.build_temp).resolve() / "cmake"
        cmake = tool("cmake")
        configure = [
            cmake, "-S", str(ROOT), "-B", str(work), "-G", "Ninja",
            f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={target}",
            f"-DTORCHP2P_SANITIZE={os.environ.get('TORCHP2P_SANITIZE', 'OFF')}",
            f"-DTORCHP2P_CUDA={cuda}",
            f"-DTORCHP2P_CUDA_ARCHS={os.environ.get('TORCHP2P_CUDA_ARCHS', '')}",
        ]  # fmt: skip
        subprocess.run(configure, check=True)
        subprocess.run([cmake, "--build", str(work)], check=True)


extensions = []
if native_choice() != "OFF":
    optional = native_choice() == "AUTO"
    extensions = [Extension("torchp2p._C", sources=[], depends=native_sources(), optional=optional)]
setup(ext_modules=extensions, cmdclass={"build_ext": CMakeBuild})
