"""Every Triton kernel compiles for the GPUs it is tuned for, without one being there, and none spills registers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

aot = pytest.importorskip("torchp2p.kernels.aot", reason="triton is not installed")
KERNELS = Path(aot.__file__).parent


def report(tmp_path: Path, *arguments: str) -> str:
    """What the report prints; in a process of its own, because here kernels are interpreted."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.triton_report", *arguments],
        env=os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        cwd=Path(__file__).resolve().parents[1],
    )
    assert done.returncode == 0, done.stdout.splitlines()[-10:] + done.stderr.splitlines()[-10:]
    return done.stdout


def test_every_kernel_compiles_within_its_registers_and_shared_memory(tmp_path):
    printed = report(tmp_path, "--quick")
    assert re.search(r"\d+ compilations, none spills", printed)
    assert all(f" {op}, " in printed for op in aot.ops())


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_configuration_compiles_within_its_registers_and_shared_memory(tmp_path):
    report(tmp_path)


def test_every_op_with_kernels_is_in_the_report():
    public = {path.stem for path in KERNELS.glob("*.py") if not path.stem.startswith("_")}
    assert set(aot.ops()) == public - {"aot"}


@pytest.mark.parametrize("word", ["atomic", "inline_asm", "libdevice"])
def test_no_kernel_depends_on_the_order_of_programs_or_on_one_makers_gpus(word):
    assert [path.name for path in KERNELS.glob("*.py") if f"{word}" in path.read_text()] == []
