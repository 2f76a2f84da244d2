"""Which backend runs an op: asked for by name, or the first that can. Every refusal comes with its reason.

Order when nobody asks: native, triton (CUDA tensors), compile, reference. Somebody asks by the ``backend=``
argument, else by the ``torchp2p.backend(...)`` context, else by ``TORCHP2P_BACKEND``; a request that cannot
be met raises. A fallback that nobody asked for is said once; ``TORCHP2P_STRICT=1`` makes it raise too.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import shutil
import warnings
from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

from torchp2p.ops import _native

BACKENDS = ("native", "triton", "compile", "reference")

# A plain global, not a context variable: torch.compile guards on it and recompiles when it changes.
_requested: str | None = None
# Read once; a wrong name is said by the first op, for importing never fails.
_environment: str | None = os.environ.get("TORCHP2P_BACKEND") or None
_warned: set[tuple[str, str]] = set()


class BackendUnavailableError(RuntimeError):
    """A backend was asked for by name, or ``TORCHP2P_STRICT=1`` is set, and it cannot run."""


@contextlib.contextmanager
def backend(name: str | None) -> Iterator[None]:
    """Within this context every op of the process uses backend ``name`` (None: the usual order).

    Raises:
        ValueError: ``name`` is not one of ``native``, ``triton``, ``compile``, ``reference``.
        BackendUnavailableError: raised by an op inside the context that cannot use the backend.
    """
    global _requested
    _check_name(name)
    before, _requested = _requested, name
    try:
        yield
    finally:
        _requested = before


def choose(op: str, x: Tensor, asked: str | None) -> str:
    """The backend that ``op`` uses on ``x``.

    Raises:
        ValueError: the asked name is no backend.
        BackendUnavailableError: a request, or any fallback in strict mode, that cannot be met.
    """
    return _choose(op, x.device.type, x.dtype, _requested if asked is None else asked)


def _choose(op: str, device_type: str, dtype: torch.dtype, asked: str | None) -> str:
    if asked is None and _environment is not None:
        _check_name(_environment, "TORCHP2P_BACKEND")
        asked = _environment
    if asked is not None:
        _check_name(asked)
        reason = why_not(op, asked, device_type, dtype)
        if reason:
            raise BackendUnavailableError(f"{op}: backend {asked!r} cannot run: {reason}")
        return asked
    if not _native.unavailable(device_type, dtype):
        return "native"
    return "reference" if device_type == "meta" else _fall_back(op, device_type, dtype)


# torch.compile calls it and keeps the answer, for it looks at files and programs, which cannot be traced. This is
# all that torch.compiler.assume_constant_result does, but that would import the compiler together with the package.
_choose._dynamo_marked_constant = True  # type: ignore[attr-defined]


def first_available(op: str, device_type: str, dtype: torch.dtype) -> tuple[str, list[str]]:
    """The backend that runs ``op`` when nobody asks, and why those before it in the order cannot."""
    reasons: list[str] = []
    for name in BACKENDS:
        if name == "triton" and device_type != "cuda":
            continue
        reason = why_not(op, name, device_type, dtype)
        if not reason:
            return name, reasons
        reasons.append(f"{name}: {reason}")
    raise AssertionError("the reference backend always runs")


def why_not(op: str, name: str, device_type: str, dtype: torch.dtype) -> str:
    """Why backend ``name`` cannot run ``op`` on such tensors; empty if it can."""
    if name == "native":
        return _native.unavailable(device_type, dtype)
    if name == "triton":
        return triton_unavailable(op, device_type)
    if name == "compile":
        return compile_unavailable(device_type)
    return ""


@cache
def triton_unavailable(op: str, device_type: str) -> str:
    """Why the Triton kernel of ``op`` cannot run on a device of this type; empty if it can."""
    if importlib.util.find_spec(f"torchp2p.kernels.{op}") is None:
        return f"there is no Triton kernel for {op} yet"
    reason: str = importlib.import_module("torchp2p.kernels").unavailable(device_type)
    return reason


@cache
def compile_unavailable(device_type: str) -> str:
    """Why torch.compile cannot build the reference for this device; empty if it can."""
    if device_type == "cpu":
        compiler = os.environ.get("CXX", "g++")
        if shutil.which(compiler) is None and shutil.which("clang++") is None:
            return f"torch.compile needs a C++ compiler on the CPU, and {compiler!r} is not on the PATH"
        return ""
    if importlib.util.find_spec("triton") is None:
        return f"torch.compile needs triton for {device_type} tensors, and it is not installed"
    return ""


def _fall_back(op: str, device_type: str, dtype: torch.dtype) -> str:
    name, reasons = first_available(op, device_type, dtype)
    if strict():
        raise BackendUnavailableError(f"{op}: would fall back to {name}: " + "; ".join(reasons))
    _warn_once(op, f"{op} uses the {name!r} backend: " + "; ".join(reasons))
    return name


def _warn_once(op: str, message: str) -> None:
    if (op, message) in _warned:
        return
    _warned.add((op, message))
    warnings.warn(message, RuntimeWarning, stacklevel=5)  # as coming from the op's own module


def _check_name(name: str | None, given_as: str = "backend") -> None:
    if name is not None and name not in BACKENDS:
        raise ValueError(f"{given_as} must be one of {', '.join(BACKENDS)} or None, got {name!r}")


def strict() -> bool:
    """Whether ``TORCHP2P_STRICT=1`` is set: then a fallback raises instead of warning."""
    return os.environ.get("TORCHP2P_STRICT", "") == "1"
