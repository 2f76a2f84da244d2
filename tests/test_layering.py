"""Who may know whom: every import of every Python file and every #include of every C++ file is held to it."""

from __future__ import annotations

from pathlib import Path

import pytest
from layering import (
    COLUMN,
    INCLUDE,
    bench_faults,
    column_faults,
    include_faults,
    ops_in,
    python_faults,
    python_files,
    room_of,
)

ROOT = Path(__file__).resolve().parent.parent

# --- the house as it stands ------------------------------------------------------------------------------


def test_every_python_file_imports_only_what_its_room_may_know() -> None:
    assert python_faults(ROOT) == []


def test_every_cpp_file_includes_only_what_its_room_may_know() -> None:
    assert include_faults(ROOT) == []


def test_benchmarks_use_public_names_only() -> None:
    assert bench_faults(ROOT) == []


def test_the_column_of_every_op_is_complete() -> None:
    assert column_faults(ROOT) == []


def test_there_are_files_to_check() -> None:
    assert {room_of(module) for _, module in python_files(ROOT)} >= {"reference", "ops", "nn", "models", "kernels"}
    assert set(ops_in(ROOT)) >= {"norm_act", "gan_loss"}
    assert any(INCLUDE.findall(path.read_text()) for path in (ROOT / "csrc/cpu").glob("*.cpp"))


# --- the checker finds planted faults --------------------------------------------------------------------


def plant(root: Path, place: str, text: str) -> None:
    path = root / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("place", "text", "fault"),
    [
        ("torchp2p/reference/a.py", "from torchp2p.ops import a", "reference must not know ops"),
        ("torchp2p/reference/a.py", "import numpy", "reference knows torch only, not numpy"),
        ("torchp2p/ops/a.py", "import torch\nfrom torchp2p import nn", ":2: ops must not know nn"),
        ("torchp2p/ops/a.py", "from ..models import unet", "ops must not know models"),
        ("torchp2p/ops/a.py", "def f():\n    import torchp2p.train", "ops must not know train"),
        ("torchp2p/ops/a.py", "from torchp2p import kernels", "kernels are imported lazily"),
        ("torchp2p/ops/a.py", "def f():\n    import triton", "ops must not know triton"),
        ("torchp2p/ops/a.py", "import importlib\nimportlib.import_module('torchp2p.cli')", "ops must not know cli"),
        ("torchp2p/nn/a.py", "import torchp2p", "nn must not know torchp2p"),
        ("torchp2p/data/a.py", "from torchp2p.train import config", "data must not know train"),
        ("torchp2p/data/a.py", "from skimage import color", "skimage.color is imported inside the function"),
        ("torchp2p/data/a.py", "import pandas", "pandas is no dependency"),
        ("torchp2p/train/a.py", "from torchp2p.cli import main", "train must not know cli"),
        ("torchp2p/train/a.py", "from torch.utils.tensorboard import SummaryWriter", "inside the function"),
        ("torchp2p/utils.py", "import torch", "utils is not a known room"),
        ("kernels/a.py", "from torchp2p import ops", "kernels must not know ops"),
        ("kernels/a.py", "import numpy", "kernels knows torch only, not numpy"),
    ],
)
def test_a_forbidden_import_is_found(tmp_path: Path, place: str, text: str, fault: str) -> None:
    plant(tmp_path, place, text)
    (found,) = python_faults(tmp_path)
    assert fault in found
    assert found.startswith(place)


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("torchp2p/ops/a.py", "import torch\nfrom torchp2p import _C\nfrom torchp2p.reference import a"),
        ("torchp2p/ops/a.py", "def f():\n    from torchp2p import kernels"),
        ("torchp2p/data/a.py", "def f():\n    from skimage import color"),
        ("torchp2p/data/a.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import tifffile"),
        ("torchp2p/cli/a.py", "from torchp2p import __version__, train"),
        ("kernels/a.py", "import torch\nimport triton.language as tl"),
    ],
)
def test_an_allowed_import_is_left_alone(tmp_path: Path, place: str, text: str) -> None:
    plant(tmp_path, place, text)
    assert python_faults(tmp_path) == []


@pytest.mark.parametrize(
    ("place", "header", "fault"),
    [
        ("csrc/cpu/a.cpp", "<torch/torch.h>", "csrc/cpu must not include <torch/torch.h>"),
        ("csrc/cpu/a.cpp", "<vector>", "csrc/cpu must not include <vector>"),
        ("csrc/cpu/a.cpp", "<Python.h>", "csrc/cpu must not include <Python.h>"),
        ("csrc/cpu/a.cpp", '"../bindings/b.h"', "csrc/cpu must not include csrc/bindings/b.h"),
        ("csrc/include/torchp2p/a.h", "<omp.h>", "csrc/include must not include <omp.h>"),
        ("csrc/include/torchp2p/a.h", "<string>", "csrc/include must not include <string>"),
        ("csrc/include/torchp2p/a.h", '"../../cpu/c.h"', "csrc/include must not include csrc/cpu/c.h"),
        ("csrc/bindings/a.cpp", "<torch/extension.h>", "csrc/bindings must not include <torch/extension.h>"),
        ("csrc/bindings/a.cpp", '"../cpu/isa.h"', "csrc/bindings must not include csrc/cpu/isa.h"),
        ("csrc/bindings/a.cpp", '"missing.h"', '"missing.h" is no header of ours'),
        ("csrc/cuda/a.cu", "<ATen/ATen.h>", "csrc/cuda must not include <ATen/ATen.h>"),
    ],
)
def test_a_forbidden_include_is_found(tmp_path: Path, place: str, header: str, fault: str) -> None:
    for other in ("csrc/bindings/b.h", "csrc/cpu/c.h", "csrc/cpu/isa.h"):
        plant(tmp_path, other, "")
    plant(tmp_path, place, f"#pragma once\n#include {header}\n")
    assert include_faults(tmp_path) == [f"{place}:2: {fault}"]


def test_allowed_includes_are_left_alone(tmp_path: Path) -> None:
    plant(tmp_path, "csrc/include/torchp2p/a.h", "#include <cstdint>\n")
    plant(tmp_path, "csrc/cpu/isa.h", "#include <immintrin.h>\n#include <omp.h>\n")
    plant(tmp_path, "csrc/cpu/a.cpp", '#include "isa.h"\n#include "torchp2p/a.h"\n#include <cmath>\n')
    plant(tmp_path, "csrc/bindings/module.cpp", '#include <pybind11/pybind11.h>\n#include "../cpu/isa.h"\n')
    assert include_faults(tmp_path) == []


def test_a_benchmark_of_private_names_is_found(tmp_path: Path) -> None:
    plant(tmp_path, "benchmarks/bench_a.py", "from torchp2p.ops import _native")
    assert bench_faults(tmp_path) == ["benchmarks/bench_a.py:1: benchmarks use public names, not torchp2p.ops._native"]


def test_an_incomplete_column_is_found(tmp_path: Path) -> None:
    for place in COLUMN:
        plant(tmp_path, place.replace("<op>", "whole"), "")
    plant(tmp_path, "torchp2p/nn/__init__.py", "from torchp2p.nn.whole import Whole")
    plant(tmp_path, "torchp2p/ops/_helper.py", "")
    plant(tmp_path, "docs/adding_an_op.md", "\n".join(COLUMN))
    assert column_faults(tmp_path) == []
    plant(tmp_path, "torchp2p/ops/lonely.py", "")
    faults = column_faults(tmp_path)
    assert "lonely has no csrc/cpu/lonely.cpp" in faults
    assert "torchp2p/nn/__init__.py exports nothing of torchp2p.nn.lonely" in faults
    assert len(faults) == len(COLUMN)  # all but ops/lonely.py, and the export
