"""``norm_act`` in Triton: which kernels run, on what.

Where planes have statistics of their own and a cache holds them, the program that takes them then writes the plane: x
is read from memory once. Other statistics take two stages, partial results of chunks and their merger, and x is read
twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from torchp2p.kernels._index import accumulator, accumulator_type, layout_of
from torchp2p.kernels._launch import Example, launch
from torchp2p.kernels._norm_act_backward import walk_gradients
from torchp2p.kernels._norm_act_forward import write_planes, write_tiles
from torchp2p.kernels._statistics import chunking, statistics
from torchp2p.kernels._sums import sum_rows
from torchp2p.kernels._tiles import Walk, empty_like_layout, walk_over

CACHED_BYTES = 256 * 1024
"""A plane (block of planes) of at most so many bytes stays in the cache while its program reads it again."""
ENOUGH_PROGRAMS, FEW_TILES = 128, 4
"""Fewer programs than this leave a large GPU idle: planes of more than a few tiles are then split."""


def norm_act(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    norm: str,
    eps: float,
    act: str,
    slope: float,
    pad: int,
    pad_mode: str,
    stat_groups: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """y, and the mean and variance (G, C) that were taken, as ``torchp2p.reference.norm_act.norm_act``.

    Bytes: x and the residual read once, y written once; x once more where statistics of large planes are taken.
    """
    samples, channels, height, width = x.shape
    layout, acc = layout_of(x), accumulator(x.dtype)
    channels_last = layout == torch.channels_last
    y = empty_like_layout(x, height + 2 * pad, width + 2 * pad, layout)
    walk = walk_over((y.shape[2], y.shape[3]), [x, residual, y], channels_last=channels_last, padded=pad > 0)
    images = (*walk.sizes, pad, *walk.strides(x), *walk.strides(residual), *walk.strides(y))
    options = _options(walk, x, act, pad, pad_mode)
    taken, samples_each = x.new_empty(0, dtype=acc), samples
    taken_mean, taken_var = taken, torch.empty_like(taken)
    if norm == "none":
        mean = var = None
    elif mean is None or var is None:
        samples_each = 1 if norm == "instance" else samples // stat_groups
        if samples_each == 1 and _stays_cached(walk, x):
            taken_mean = torch.empty((samples, channels), dtype=acc, device=x.device)
            taken_var = torch.empty_like(taken_mean)
            launch(
                write_planes, (samples * walk.blocks,), x, residual, y, taken_mean, taken_var,
                _dense(weight), _dense(bias), *images, eps, slope, **options,
            )  # fmt: skip
            return y, taken_mean, taken_var
        mean, var = taken_mean, taken_var = statistics(x, samples // samples_each, channels_last=channels_last)
    elif mean.dim() == 2:
        samples_each = samples // mean.shape[0]
    launch(
        write_tiles, (samples * walk.blocks * walk.tiles,), x, residual, y, _dense(mean), _dense(var),
        _dense(weight), _dense(bias), *images, samples_each, eps, slope, **options,
    )  # fmt: skip
    return y, taken_mean, taken_var


def norm_act_backward(
    grad_y: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    norm: str,
    eps: float,
    act: str,
    slope: float,
    pad: int,
    pad_mode: str,
    stat_groups: int,
    residual_grad: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, weight, bias and residual, as ``torchp2p.reference.norm_act.norm_act_backward``.

    Bytes: grad_y, x and the residual read once, the gradients of both written once; what is read once more where
    statistics of large planes are those of x.
    """
    samples, channels, height, width = x.shape
    layout, acc = layout_of(x), accumulator(x.dtype)
    grad_x = empty_like_layout(x, height, width, layout)
    grad_residual = torch.empty_like(grad_x) if residual_grad else None
    residual = None if act == "none" else residual
    walk = walk_over(
        (height, width), [x, grad_y, residual, grad_x], channels_last=layout == torch.channels_last, padded=pad > 0
    )
    if norm == "none":
        mean = var = None
    moving = mean is not None and mean.dim() == 2
    samples_each = samples // mean.shape[0] if mean is not None and moving else samples
    inputs = (grad_y, x, residual, _dense(mean), _dense(var), _dense(weight), _dense(bias))
    images = (*walk.sizes, pad, *(stride for t in (grad_y, x, residual, grad_x) for stride in walk.strides(t)))
    options = _options(walk, x, act, pad, pad_mode)

    def go(sums: Tensor | None, chunks: int, steps: int, *, total: bool, own: bool, write: bool) -> Tensor | None:
        """Partial sums (2, N * chunks, C) of every chunk, if they are wanted."""
        partials = torch.empty((2, samples * chunks, channels), dtype=acc, device=x.device) if total else None
        launch(
            walk_gradients, (samples * walk.blocks * chunks,), *inputs, sums, partials, grad_x, grad_residual, *images,
            samples_each, chunks, steps, eps, slope, SUM=total, OWN=own, WRITE=write, **options,
        )  # fmt: skip
        return partials

    affine = weight is not None or bias is not None
    steps, chunks = chunking(walk)
    if moving and samples_each == 1 and _stays_cached(walk, x):
        sums = go(None, 1, walk.tiles, total=True, own=True, write=True)
    elif moving:
        partials = go(None, chunks, steps, total=True, own=False, write=False)
        assert partials is not None
        groups = samples // samples_each
        sums = sum_rows(partials.view(2 * groups, -1, channels)).view(2, groups, channels)
        go(sums, walk.tiles, 1, total=False, own=False, write=True)
    elif affine:
        sums = go(None, chunks, steps, total=True, own=False, write=True)
    else:
        sums = go(None, walk.tiles, 1, total=False, own=False, write=True)
    empty = x.new_empty(0)
    grad_weight = grad_bias = empty
    if affine and sums is not None:
        totals = sum_rows(sums)
        grad_weight = empty if weight is None else totals[1].to(weight.dtype)
        grad_bias = empty if bias is None else totals[0].to(bias.dtype)
    return grad_x, grad_weight, grad_bias, empty if grad_residual is None else grad_residual


def _options(walk: Walk, x: Tensor, act: str, pad: int, pad_mode: str) -> dict[str, Any]:
    return {
        **walk.constexprs, "ACC": accumulator_type(x.dtype), "ACT": act, "PADDED": pad > 0,
        "PAD_MODE": pad_mode if pad else "zeros", "num_warps": walk.warps,
    }  # fmt: skip


def _dense(vector: Tensor | None) -> Tensor | None:
    return None if vector is None else vector.contiguous()


def _stays_cached(walk: Walk, x: Tensor) -> bool:
    """Whether one program should take a whole plane (block of planes), and read it twice."""
    size: int = x.shape[2] * x.shape[3] * walk.shape[2] * x.element_size()
    worthwhile: bool = walk.tiles <= FEW_TILES or walk.samples * walk.blocks >= ENOUGH_PROGRAMS
    return size <= CACHED_BYTES and worthwhile


# --- for the report --------------------------------------------------------------------------------------

LAYOUTS = (torch.contiguous_format, torch.channels_last)


def examples() -> Iterator[Example]:
    """Blocks of pix2pixHD at 2048x1024 and of pix2pix at 256x256, and what else compiles anew."""
    hd, trunk, small = (1, 32, 1024, 2048), (1, 1024, 32, 64), (16, 256, 32, 32)
    for dtype in (torch.bfloat16, torch.float32):
        for layout in LAYOUTS:
            for shape in (hd, trunk, small):
                yield from _both(shape, dtype, layout)
                yield from _both(shape, dtype, layout, act="relu", pad=1, residual=shape is trunk)
    yield from _both((1, 3, 1030, 2050), torch.bfloat16, LAYOUTS[0], norm="none", act="tanh")
    yield from _both((1, 32, 1021, 2045), torch.bfloat16, LAYOUTS[0], pad=3)
    yield from _both(
        (16, 512, 30, 31), torch.float32, LAYOUTS[1], norm="batch", affine=True, pad=1, pad_mode="replicate"
    )
    yield from _both((16, 128, 64, 64), torch.bfloat16, LAYOUTS[1], norm="none", affine=True, pad=1, pad_mode="zeros")
    yield from _both((64, 64, 1024, 1024), torch.bfloat16, LAYOUTS[1], norm="batch", affine=True)  # 2^32 values
    yield from _both((2, 16, 128, 128), torch.float64, LAYOUTS[0], affine=True, pad=1)


def _both(
    shape: tuple[int, int, int, int],
    dtype: torch.dtype,
    layout: torch.memory_format,
    *,
    norm: str = "instance",
    act: str = "leaky_relu",
    pad: int = 0,
    pad_mode: str = "reflect",
    affine: bool = False,
    residual: bool = False,
) -> Iterator[Example]:
    """Forward and backward of one block on tensors without memory."""

    def image(border: int) -> Tensor:
        size = (*shape[:2], shape[2] + 2 * border, shape[3] + 2 * border)
        return torch.empty(size, dtype=dtype, device="meta", memory_format=layout)

    x, grad = image(0), image(pad)
    weight, bias = (torch.empty(shape[1], device="meta") if affine else None for _ in range(2))
    added = image(0) if residual else None
    groups = shape[0] if norm == "instance" else 1
    mean, var = (None if norm == "none" else torch.empty(groups, shape[1], device="meta") for _ in range(2))
    options = (norm, 1e-5, act, 0.2, pad, pad_mode, 1)
    words = [norm, act, f"{pad_mode}{pad}" if pad else "", "affine" * affine, "residual" * residual]
    words += [str(dtype).removeprefix("torch."), "channels_last" * (layout == torch.channels_last)]
    label = " ".join(["x".join(map(str, shape)), *filter(None, words)])
    size, padded = x.numel() * x.element_size(), grad.numel() * grad.element_size()
    walk = walk_over((shape[2], shape[3]), [x], channels_last=layout == torch.channels_last, padded=pad > 0)
    again = 0 if norm == "none" or (groups == shape[0] and _stays_cached(walk, x)) else 1
    forward, backward = size + padded + size * residual, padded + 2 * size + 2 * size * residual
    yield Example(
        f"forward {label}",
        lambda: norm_act(x, weight, bias, added, None, None, *options),
        forward + again * size,
        forward,
    )
    yield Example(
        f"backward {label}",
        lambda: norm_act_backward(grad, x, weight, bias, added, mean, var, *options, residual),
        backward + again * (padded + size + size * residual),
        backward,
    )
