"""What the CUDA compiler made of every kernel: registers, shared memory, spills, how many threads a processor holds.

    python -m benchmarks.cuda_report                  # all ops, sm_80 and sm_90
    python -m benchmarks.cuda_report norm_act -a 90

Needs nvcc and no GPU. Ends with status 1 where a kernel spills registers.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "csrc/cuda"
ARCHITECTURES = ("80", "90")

# Of one multiprocessor, which both architectures have alike, and the shared memory, which they have not.
_REGISTERS, _THREADS, _BLOCKS = 65536, 2048, 32
_SHARED = {"80": 164 * 1024, "90": 228 * 1024}
_OF_EACH_BLOCK = 1024  # bytes of shared memory that the system takes


@dataclass(frozen=True)
class Kernel:
    """One instantiation as compiled for one architecture. Bytes are a thread's, but for ``shared``: a block's."""

    name: str
    architecture: str
    threads: int  # most in a block
    registers: int
    shared: int  # static; what a launch asks for comes on top
    stack: int
    spill_stores: int
    spill_loads: int

    @property
    def spills(self) -> bool:
        """Whether registers were moved to memory for want of them."""
        return self.spill_stores + self.spill_loads > 0

    @property
    def occupancy(self) -> float:
        """The part of the threads of a multiprocessor that registers and static shared memory leave room for."""
        warps = -(-self.threads // 32)
        of_a_warp = -(-self.registers * 32 // 256) * 256  # registers are given out by 256
        blocks = min(
            _REGISTERS // (of_a_warp * warps),
            _THREADS // (warps * 32),
            _SHARED[self.architecture] // (self.shared + _OF_EACH_BLOCK),
            _BLOCKS,
        )
        return blocks * warps * 32 / _THREADS


def find_nvcc() -> str | None:
    """The compiler on the PATH, or in CUDA_HOME."""
    home = os.environ.get("CUDA_HOME")
    return shutil.which("nvcc") or (shutil.which("nvcc", path=str(Path(home) / "bin")) if home else None)


def ops() -> list[str]:
    """The files of kernels, by name."""
    return sorted(path.stem for path in SOURCES.glob("*.cu"))


def compile_kernels(op: str, architecture: str) -> list[Kernel]:
    """Compile ``csrc/cuda/<op>.cu`` for an architecture (``"90"``) and read what the compiler says of its kernels.

    Raises:
        FileNotFoundError: there is no nvcc.
        RuntimeError: it does not compile; the message is the compiler's.
    """
    nvcc = find_nvcc()
    if nvcc is None:
        raise FileNotFoundError("there is no nvcc on the PATH or in CUDA_HOME")
    with tempfile.TemporaryDirectory() as folder:
        command = [
            nvcc, "-std=c++17", "-cubin", f"-arch=sm_{architecture}", "-Xptxas=-v", "--keep", "--keep-dir", folder,
            f"-I{ROOT / 'csrc/include'}", f"-I{SOURCES}", str(SOURCES / f"{op}.cu"), "-o", f"{folder}/kernels.cubin",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
        (ptx,) = Path(folder).glob("*.ptx")
        threads = _most_threads(ptx.read_text())
    return read_report(done.stdout + done.stderr, threads)


def _most_threads(ptx: str) -> dict[str, int]:
    """Threads in a block by kernel, from its launch bounds; 1024 where it has none."""
    found = {}
    for name, head in re.findall(r"\.entry (\w+)\((.*?)\n\{", ptx, re.DOTALL):
        bounds = re.search(r"\.maxntid (\d+)", head)
        found[name] = int(bounds[1]) if bounds else 1024
    return found


_ENTRY = re.compile(
    r"Compiling entry function '(?P<name>\w+)' for 'sm_(?P<architecture>\d+)'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)


def read_report(text: str, threads: dict[str, int]) -> list[Kernel]:
    """The kernels that ``ptxas -v`` speaks of in ``text``; ``threads`` by mangled name."""
    kernels = []
    for entry in _ENTRY.finditer(text):
        shared = re.search(r"(\d+) bytes smem", entry["rest"])
        numbers = (int(entry[name]) for name in ("stack", "stores", "loads"))
        kernels.append(
            Kernel(
                readable(entry["name"]), entry["architecture"], threads.get(entry["name"], 1024),
                int(entry["registers"]), int(shared[1]) if shared else 0, *numbers,
            )
        )  # fmt: skip
    return sorted(kernels, key=lambda kernel: kernel.name)


def readable(mangled: str) -> str:
    """``norm_act_plane_forward<float>`` for a mangled name; that itself where there is no c++filt."""
    if shutil.which("c++filt") is None:
        return mangled
    name = subprocess.run(["c++filt", mangled], capture_output=True, text=True, check=True).stdout.strip()
    name = name.removeprefix("void ").replace("torchp2p::", "").replace("(anonymous namespace)::", "")
    return re.sub(r"\((?!anonymous).*$", "", name).replace("__nv_bfloat16", "bfloat16").replace("__half", "half")


def table(kernels: list[Kernel]) -> str:
    """One line a kernel."""
    width = max(len(kernel.name) for kernel in kernels)
    head = (
        f"{'kernel':{width}}  {'sm':>3}  {'threads':>7}  {'registers':>9}  {'shared':>6}  {'stack':>5}  {'spills':>6}"
    )
    lines = [f"{head}  occupancy"]
    for k in kernels:
        spilled = k.spill_stores + k.spill_loads
        lines.append(
            f"{k.name:{width}}  {k.architecture:>3}  {k.threads:7}  {k.registers:9}  {k.shared:6}  {k.stack:5}  "
            f"{spilled:6}  {k.occupancy:9.0%}"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 1 where a kernel spills."""
    parser = argparse.ArgumentParser(description="Registers, shared memory and spills of every CUDA kernel.")
    parser.add_argument("op", nargs="*", help="files of csrc/cuda, without .cu (default: all)")
    parser.add_argument("-a", "--architecture", action="append", choices=ARCHITECTURES, help="default: 80 and 90")
    chosen = parser.parse_args(arguments)
    if find_nvcc() is None:
        print("cuda_report: there is no nvcc on the PATH or in CUDA_HOME", file=sys.stderr)
        return 1
    kernels: list[Kernel] = []
    for op in chosen.op or ops():
        for architecture in chosen.architecture or ARCHITECTURES:
            kernels += compile_kernels(op, architecture)
    print(table(kernels))
    return int(any(kernel.spills for kernel in kernels))


if __name__ == "__main__":
    sys.exit(main())
