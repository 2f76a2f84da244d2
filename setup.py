"""Builds torchp2p._C with CMake. Everything else about the package stands in pyproject.toml.

TORCHP2P_NATIVE=AUTO (default) builds the compiled module and installs without it, saying so, when the build
fails; ON makes a failure an error; OFF does not try. Without it every op runs on its PyTorch fallback.
"""

from __future__ import annotations

import os
import subprocess
import sys
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


class CMakeBuild(build_ext):
    """Configures and builds CMakeLists.txt, and puts the module where setuptools expects it."""

    def build_extension(self, ext: Extension) -> None:
        target = Path(self.get_ext_fullpath(ext.name)).resolve().parent
        try:
            self._build(target)
        except (OSError, subprocess.CalledProcessError) as error:
            if native_choice() == "ON":
                raise SystemExit(f"torchp2p._C could not be built: {error}") from error
            print(
                f"warning: torchp2p._C could not be built ({error}); installing without compiled kernels. "
                "`torchp2p doctor` shows what runs instead.",
                file=sys.stderr,
            )

    def copy_extensions_to_source(self) -> None:
        """For editable installs; a module that was not built is not copied."""
        if all(Path(self.get_ext_fullpath(ext.name)).exists() for ext in self.extensions) or self._built():
            super().copy_extensions_to_source()

    def _built(self) -> bool:
        return any(Path(self.build_lib).glob("torchp2p/_C*"))

    def _build(self, target: Path) -> None:
        import pybind11

        target.mkdir(parents=True, exist_ok=True)
        work = Path(self.build_temp).resolve() / "cmake"
        configure = [
            "cmake", "-S", str(ROOT), "-B", str(work), "-G", "Ninja",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={target}",
            f"-DTORCHP2P_SANITIZE={os.environ.get('TORCHP2P_SANITIZE', 'OFF')}",
        ]  # fmt: skip
        subprocess.run(configure, check=True)
        subprocess.run(["cmake", "--build", str(work)], check=True)


extensions = [] if native_choice() == "OFF" else [Extension("torchp2p._C", sources=[], optional=native_choice() != "ON")]
setup(ext_modules=extensions, cmdclass={"build_ext": CMakeBuild})
