"""Keeping freed CPU memory: what it does, where it does nothing, and that the trainer asks for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_training import draw_dataset, tiny_config

import torchp2p
from torchp2p import memory
from torchp2p.train import train, trainer

FAULTS = """
import resource, torch, torchp2p
{tune}
for _ in range(12):  # the first few settle
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty({megabytes} * 2**18).fill_(1.0)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults)
"""

needs_glibc = pytest.mark.skipif(
    bool(memory.memory_tuning_unavailable()), reason=memory.memory_tuning_unavailable() or "there is glibc"
)


def page_faults(megabytes: int, tune: str, **environment: str) -> int:
    """Faults of one more allocation of so many megabytes, in a process of its own."""
    code = FAULTS.format(tune=tune, megabytes=megabytes)
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, check=True, capture_output=True, text=True
    )
    return int(done.stdout)


@needs_glibc
@pytest.mark.parametrize("megabytes", [40, 100])
def test_a_large_tensor_is_page_faulted_anew_without_tuning_and_not_with_it(megabytes: int) -> None:
    pages = megabytes * 2**20 // os.sysconf("SC_PAGE_SIZE")
    assert page_faults(megabytes, "") > pages // 2
    assert page_faults(megabytes, "torchp2p.tune_cpu_memory()") < pages // 20


@needs_glibc
def test_the_environment_turns_it_off() -> None:
    assert page_faults(64, "torchp2p.tune_cpu_memory()", TORCHP2P_TUNE_MEMORY="0") > 64 * 2**7


@pytest.mark.parametrize("value", ["0", "false", "OFF"])
def test_turned_off_it_returns_false_and_the_reason_names_the_variable(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHP2P_TUNE_MEMORY", value)
    assert torchp2p.tune_cpu_memory() is False
    assert memory.memory_tuning_unavailable() == "TORCHP2P_TUNE_MEMORY turns it off"


def test_without_glibc_it_does_nothing_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    assert torchp2p.tune_cpu_memory() is False
    assert memory.memory_tuning_unavailable() == "the C library has no mallopt"


def test_a_malloc_that_refuses_is_said_by_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_mallopt", lambda: lambda parameter, value: 0)
    assert torchp2p.tune_cpu_memory() is False


def test_a_training_on_the_cpu_tunes_its_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(trainer, "tune_cpu_memory", lambda: asked.append(True))
    draw_dataset(tmp_path / "data")
    train(tiny_config(tmp_path, n_epochs=1, n_epochs_decay=0, no_html=True))
    assert asked == [True]
