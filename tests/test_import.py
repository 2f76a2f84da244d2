"""``import torchp2p``: silent, quick, and without side effects."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import lru_cache
from typing import Any

import pytest

# Runs in an interpreter of its own and reports as JSON on stderr; stdout belongs to what is tested.
PROBE = """
import json, sys, time

processes = []
STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty")
sys.addaudithook(lambda event, args: processes.append(repr(args)) if event in STARTS else None)

import torch
modules, started = set(sys.modules), time.process_time()
processes.clear()
import torchp2p
report = {
    "seconds": time.process_time() - started,
    "processes": processes,
    "modules": sorted(set(sys.modules) - modules),
    "cuda": torch.cuda.is_initialized(),
}
print(json.dumps(report), file=sys.stderr)
"""
HEAVY = ("triton", "tensorboard", "skimage", "rich", "jsonargparse", "PIL", "yaml", "tifffile", "torch._inductor")


@lru_cache(maxsize=1)
def probe() -> tuple[str, list[str]]:
    run = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
    return run.stdout, run.stderr.splitlines()


def report() -> dict[str, Any]:
    result: dict[str, Any] = json.loads(probe()[1][-1])
    return result


def test_importing_prints_nothing() -> None:
    stdout, stderr = probe()
    assert stdout == ""
    assert len(stderr) == 1, stderr  # the probe's own report


def test_importing_starts_no_process_and_so_no_compiler() -> None:
    assert report()["processes"] == []


def test_importing_does_not_touch_a_gpu() -> None:
    assert report()["cuda"] is False


@pytest.mark.parametrize("module", HEAVY)
def test_importing_does_not_import(module: str) -> None:
    loaded = report()["modules"]
    assert [name for name in loaded if name == module or name.startswith(module + ".")] == []
    assert "torchp2p.ops" in loaded  # the probe sees what is loaded


def test_importing_takes_less_than_a_second_and_a_half_beyond_torch() -> None:
    assert report()["seconds"] < 1.5  # processor time: other programs do not count
