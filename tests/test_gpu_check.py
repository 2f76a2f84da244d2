"""``make gpu-check`` before a GPU sees it: how long it may take, and that what it names is there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "benchmarks" / "gpu_check.sh"


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[tuple[int, str]]]:
    """Limit and command of every part, by the status that each is made to end with; nothing of it is run."""
    found = {}
    for status in (0, 1):
        folder = tmp_path_factory.mktemp("gpu_check")
        log = folder / "parts.txt"
        stand_in = folder / "timeout"
        stand_in.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" | tr "\\n" " " >> {log}\necho >> {log}\nexit {status}\n')
        stand_in.chmod(0o755)
        environment = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}", "GPU_CHECK_OUT": str(folder / "logs")}
        ended = subprocess.run(["bash", SCRIPT], env=environment, capture_output=True, text=True)
        assert ended.returncode == status, ended.stderr
        lines = (line.partition(" ") for line in log.read_text().splitlines())
        found[status] = [(int(limit), command) for limit, _, command in lines]
    return found


def test_all_parts_together_take_less_than_ten_minutes(parts):
    assert 300 < sum(limit for limit, _ in parts[0]) < 600


def test_a_part_that_fails_keeps_none_from_being_run(parts):
    assert [limit for limit, _ in parts[0]] == [limit for limit, _ in parts[1]]


def test_every_benchmark_that_it_runs_is_there(parts):
    names = set(re.findall(r"\bbench (bench_\w+)", " ".join(command for _, command in parts[0])))
    assert {"bench_step", "bench_norm_act"} <= names
    assert all((ROOT / "benchmarks" / f"{name}.py").is_file() for name in names)


def test_every_file_for_the_sanitizers_has_tests_that_are_kept(parts):
    (sanitized,) = (command for _, command in parts[0] if "memcheck" in command)
    files, few = re.findall(r"tests/\w+\.py", sanitized), re.findall(r"-k '([^']+)'", sanitized)[0]
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-k", few, *files]
    collected = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
    assert len(files) > 3
    for file in files:
        kept = re.findall(rf"^{file}(?:::.*|: (\d+))$", collected, re.MULTILINE)
        assert kept, f"no test of {file} is kept by {few}"
