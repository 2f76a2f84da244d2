"""No CUDA kernel spills registers, each leaves room for enough threads; and the report reads the compiler rightly."""

from __future__ import annotations

import pytest

from benchmarks import cuda_report
from benchmarks.cuda_report import ARCHITECTURES, Kernel, compile_kernels, find_nvcc, main, ops, read_report, table

needs_nvcc = pytest.mark.skipif(find_nvcc() is None, reason="no nvcc on the PATH or in CUDA_HOME")

# Both take a core a good while; the newer one stands for both in the default run.
both = [pytest.param(name, marks=pytest.mark.slow if name != ARCHITECTURES[-1] else ()) for name in ARCHITECTURES]


@needs_nvcc
@pytest.mark.parametrize("architecture", both)
@pytest.mark.parametrize("op", ops())
def test_no_kernel_spills_registers_and_an_eighth_of_the_threads_are_there(op: str, architecture: str) -> None:
    kernels = compile_kernels(op, architecture)
    assert kernels
    assert [kernel for kernel in kernels if kernel.spills or kernel.occupancy < 1 / 8] == []


SAID = """
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_ZN8torchp2p3sumIfEEvPKfPfi' for 'sm_80'
ptxas info    : Function properties for _ZN8torchp2p3sumIfEEvPKfPfi
    16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 64 registers, used 1 barriers, 16 bytes cumulative stack size, 1024 bytes smem, 372 bytes cmem[0]
ptxas info    : Compiling entry function 'plain' for 'sm_80'
ptxas info    : Function properties for plain
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 20 registers, used 0 barriers, 352 bytes cmem[0]
"""


def test_the_compilers_words_are_read() -> None:
    plain, spilling = sorted(read_report(SAID, {"plain": 256}), key=lambda kernel: kernel.registers)
    assert plain == Kernel("plain", "80", 256, 20, 0, 0, 0, 0)
    assert not plain.spills
    assert spilling.spills
    assert (spilling.registers, spilling.shared, spilling.stack, spilling.threads) == (64, 1024, 16, 1024)


@pytest.mark.parametrize(
    ("threads", "registers", "shared", "expected"),
    [(256, 32, 0, 1.0), (256, 64, 0, 0.5), (256, 128, 0, 0.25), (128, 168, 0, 3 / 16), (1024, 65, 0, 0.0),
     (256, 32, 48 * 1024, 3 / 8), (32, 16, 0, 0.5)],
)  # fmt: skip
def test_occupancy_follows_from_registers_threads_and_shared_memory(
    threads: int, registers: int, shared: int, expected: float
) -> None:
    assert Kernel("k", "80", threads, registers, shared, 0, 0, 0).occupancy == expected


def test_the_table_has_a_line_for_each_kernel() -> None:
    lines = table(read_report(SAID, {})).splitlines()
    assert lines[0].split() == ["kernel", "sm", "threads", "registers", "shared", "stack", "spills", "occupancy"]
    assert lines[1].split() == ["plain", "80", "1024", "20", "0", "0", "0", "100%"]
    assert len(lines) == 3


def test_without_nvcc_the_report_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(cuda_report, "find_nvcc", lambda: None)
    assert main([]) == 1
    assert "there is no nvcc on the PATH or in CUDA_HOME" in capsys.readouterr().err


def test_a_spilling_kernel_fails_the_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cuda_report, "find_nvcc", lambda: "nvcc")
    monkeypatch.setattr(cuda_report, "compile_kernels", lambda op, architecture: read_report(SAID, {}))
    assert main(["norm_act", "-a", "80"]) == 1
    assert "plain" in capsys.readouterr().out
