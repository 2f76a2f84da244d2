"""Training on a GPU that gives the same bits every time. On the CPU it does so by itself."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch
import torch.utils.deterministic

from torchp2p.train.run_config import ConfigError

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
WORKSPACES = (":4096:8", ":16:8")
"""Its values with which cuBLAS adds up in one order; cuBLAS reads it when it starts, which may long have been."""


@contextlib.contextmanager
def deterministic(wanted: bool, device: torch.device) -> Iterator[None]:
    """Within this context, where ``wanted``, torch on a GPU takes only algorithms with the same result every time.

    An operation that has none raises a RuntimeError that names it. Nothing is chosen by measuring: neither cuDNN's
    algorithms nor, in ``conv_norm_act``, the fused convolution for shapes without a row in the shipped table. On the
    CPU nothing is changed, all that is used there being deterministic. What it costs has not been measured.

    Raises:
        ConfigError: the environment does not tell cuBLAS to be deterministic.
    """
    if not wanted or device.type != "cuda":
        yield
        return
    if os.environ.get(WORKSPACE) not in WORKSPACES:
        raise ConfigError(
            f"deterministic on {device} needs the environment variable {WORKSPACE} to be one of "
            f"{', '.join(WORKSPACES)} from the start of the process, got {os.environ.get(WORKSPACE)!r}"
        )
    cudnn, settings = torch.backends.cudnn, _settings()
    before = (
        torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled(),
        cudnn.deterministic, cudnn.benchmark, settings.fill_uninitialized_memory,
    )  # fmt: skip
    try:
        _set(True, False, True, False, False)  # our ops write all of what they allocate
        yield
    finally:
        _set(*before)


def _set(algorithms: bool, warn_only: bool, cudnn: bool, benchmark: bool, fill: bool) -> None:
    torch.use_deterministic_algorithms(algorithms, warn_only=warn_only)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn, benchmark
    _settings().fill_uninitialized_memory = fill


def _settings() -> Any:
    return torch.utils.deterministic  # a module whose attributes are properties, which type checkers do not see
