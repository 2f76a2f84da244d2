"""Argument checks that ops share: one sentence, naming the argument, what was expected and what came."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torchp2p.ops._native import DTYPE_CODES, ID_DTYPES


def one_of(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raise ValueError unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def tensor(name: str, value: Any) -> Tensor:
    """``value``; raise TypeError unless it is a Tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a Tensor, got {type(value).__name__}")
    return value


def floating_tensor(name: str, value: Any) -> None:
    """Raise TypeError unless ``value`` is a Tensor of a dtype that the kernels know."""
    tensor(name, value)
    if value.dtype not in DTYPE_CODES:
        raise TypeError(f"{name} must be float32, bfloat16, float16 or float64, got {value.dtype}")


def image_batch(name: str, value: Any) -> None:
    """Raise unless ``value`` is a floating (N, C, H, W) tensor."""
    floating_tensor(name, value)
    if value.dim() != 4:
        raise ValueError(f"{name} must be (N, C, H, W), got shape {tuple(value.shape)}")


def id_map(name: str, value: Any) -> Tensor:
    """``value``, ids of shape (N, 1, H, W) or (N, H, W), as (N, 1, H, W); raise if it is anything else."""
    ids = tensor(name, value)
    if ids.dtype not in ID_DTYPES:
        raise TypeError(f"{name} must be integers, got {ids.dtype}")
    if ids.dim() == 3:
        return ids.unsqueeze(1)
    if ids.dim() != 4 or ids.shape[1] != 1:
        raise ValueError(f"{name} must be (N, 1, H, W) or (N, H, W), got shape {tuple(ids.shape)}")
    return ids


def same_device(name: str, value: Tensor, x: Tensor, of: str = "x") -> None:
    """Raise ValueError unless ``value`` is where ``x`` is."""
    if value.device != x.device:
        raise ValueError(f"{name} must be on the device of {of} ({x.device}), got {value.device}")


def per_channel(name: str, value: Any, x: Tensor, of: str = "x") -> None:
    """Raise unless ``value`` is None or a (C,) vector of the dtype of ``x`` or float32, on its device."""
    if value is None:
        return
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a Tensor or None, got {type(value).__name__}")
    if value.dim() != 1 or value.shape[0] != x.shape[1]:
        raise ValueError(
            f"{name} must have shape ({x.shape[1]},), one value per channel of {of}, got {tuple(value.shape)}"
        )
    if value.dtype != x.dtype and value.dtype != torch.float32:
        raise TypeError(f"{name} must be {x.dtype} like {of} or torch.float32, got {value.dtype}")
    same_device(name, value, x, of)


def same_as(name: str, value: Any, x: Tensor, of: str = "x") -> None:
    """Raise unless ``value`` is None or a tensor of the shape, dtype and device of ``x``."""
    if value is None:
        return
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a Tensor or None, got {type(value).__name__}")
    if value.shape != x.shape:
        raise ValueError(f"{name} must have the shape of {of} {tuple(x.shape)}, got {tuple(value.shape)}")
    same_kind(name, value, x, of)


def same_kind(name: str, value: Any, x: Tensor, of: str = "x") -> None:
    """Raise unless ``value`` is a tensor of the dtype and device of ``x``."""
    tensor(name, value)
    if value.dtype != x.dtype:
        raise TypeError(f"{name} must be {x.dtype} like {of}, got {value.dtype}")
    same_device(name, value, x, of)
