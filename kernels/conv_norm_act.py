"""``conv_norm_act`` as implicit matrix products: what is given to the kernels of ``_conv_*.py``, and how they are tiled.

Every kernel reads pixels by their strides, so either layout is right; channels_last is the one that is fast. Weights
are read in the order of channels_last and turned to it where they are not. Sizes of images are run-time arguments.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from torchp2p.kernels._conv_data_gradient import data_gradient_kernel, norm_gradient_kernel
from torchp2p.kernels._conv_forward import forward_kernel
from torchp2p.kernels._conv_statistics import empty_parts, merge, parts_kernel
from torchp2p.kernels._conv_tiles import Tile
from torchp2p.kernels._conv_weight_gradient import weight_gradient_kernel

# Of the elementwise kernels: pixels and channels.
_ROWS, _COLUMNS = 64, 32
# That many programs fill every machine of today.
_PROGRAMS = 512


class Source(NamedTuple):
    """What stands before a convolution: act(norm(x) * weight + bias + residual).

    x, residual: (N, C, H, W). mean, var: (G, C) in float32, or None; weight, bias: (C,) or None.
    """

    x: Tensor
    residual: Tensor | None = None
    mean: Tensor | None = None
    var: Tensor | None = None
    weight: Tensor | None = None
    bias: Tensor | None = None
    eps: float = 0.0
    act: str = "none"
    slope: float = 0.0

    @property
    def samples_per_group(self) -> int:
        """How many consecutive samples share statistics."""
        return self.x.shape[0] if self.mean is None else self.x.shape[0] // self.mean.shape[0]


class Window(NamedTuple):
    """How a convolution reads: its kernel, stride, padding on every side, ``pad_mode``, and whether transposed."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: int
    pad_mode: str
    transposed: bool


def forward(
    source: Source, weight: Tensor, bias: Tensor | None, out: Tensor, window: Window, groups: int, tile: Tile
) -> tuple[Tensor, Tensor] | None:
    """Write the convolution of ``source`` into ``out``; with ``groups``, mean and variance (groups, O) of it."""
    (n, channels_in, height, width), x = source.x.shape, source.x
    tiles, phases = _tiles(out, window, tile)
    parts: tuple[Tensor | None, ...] = (None, None, None)
    if groups:
        parts = empty_parts(x, n * phases * tiles, out.shape[1])
    strides, units = _strides(x, x if source.residual is None else source.residual, out)
    with _device_of(x):
        forward_kernel[(n * phases * tiles, triton.cdiv(out.shape[1], tile.columns))](
            x, source.residual, source.mean, source.var, source.weight, source.bias,
            channels_last(weight), bias, out, *parts, *strides,
            source.samples_per_group, channels_in, out.shape[1], height, width, out.shape[2], out.shape[3], tiles,
            source.eps, source.slope,
            source.act, window.padding, window.pad_mode, window.transposed, *window.kernel, *window.stride,
            tile.rows, tile.columns, tile.depth, *units, _index(x, source.residual, out), *_arithmetic(x),
            num_warps=tile.warps, num_stages=tile.stages,
        )  # fmt: skip
        return merge(*parts, groups) if groups else None  # type: ignore[arg-type]


def data_gradient(
    grad: Tensor, source: Source, weight: Tensor, window: Window, out: Tensor, tile: Tile
) -> tuple[Tensor, Tensor]:
    """Write into ``out`` the gradient of what is activated; ``window`` is the convolution's, and reads no border.

    Args:
        grad: of the convolution's output.
        out: as x; as it is, it is the gradient of the residual.

    Returns:
        The sums (G, C) of it and of its product with the normalised x: by groups the gradients of bias and weight.
    """
    (n, channels, height, width), x = source.x.shape, source.x
    window = adjoint(window)
    tiles, phases = _tiles(x, window, tile)
    sums = torch.empty((2, n * phases * tiles, channels), dtype=torch.float32, device=x.device)
    strides, units = _strides(grad, x, x if source.residual is None else source.residual, out)
    with _device_of(x):
        data_gradient_kernel[(n * phases * tiles, triton.cdiv(channels, tile.columns))](
            grad, x, source.residual, source.mean, source.var, source.weight, source.bias,
            channels_last(weight), out, *sums, *strides,
            source.samples_per_group, grad.shape[1], channels, grad.shape[2], grad.shape[3], height, width, tiles,
            source.eps, source.slope,
            source.act, window.padding, window.transposed, *window.kernel, *window.stride,
            tile.rows, tile.columns, tile.depth, *units, _index(grad, x, source.residual, out), *_arithmetic(x),
            num_warps=tile.warps, num_stages=tile.stages,
        )  # fmt: skip
    sum_grad, sum_grad_xhat = sums.unflatten(1, (n // source.samples_per_group, -1)).sum(2)
    return sum_grad, sum_grad_xhat


def norm_gradient(grad: Tensor, source: Source, means: tuple[Tensor, Tensor] | None, out: Tensor) -> None:
    """Write into ``out``, which may be ``grad``, the gradient of x, from that of what is activated.

    Args:
        means: of ``grad`` and of its product with the normalised x, (G, C), where statistics move with x.
    """
    (n, channels, height, width), x = source.x.shape, source.x
    strides, units = _strides(grad, x, out)
    tiles = triton.cdiv(height * width, _ROWS)
    with _device_of(x):
        norm_gradient_kernel[(n * tiles, triton.cdiv(channels, _COLUMNS))](
            grad, x, source.mean, source.var, source.weight, *(means or (None, None)), out, *strides,
            source.samples_per_group, channels, height, width, tiles, source.eps,
            _ROWS, _COLUMNS, *units, _index(grad, x, out),
        )  # fmt: skip


def weight_gradient(grad: Tensor, source: Source, weight: Tensor, window: Window, tile: Tile) -> Tensor:
    """The gradient of ``weight``, in its dtype and layout; ``grad`` is that of the convolution's output."""
    (n, _, height, width), x = source.x.shape, source.x
    first, second = weight.shape[:2]
    (left_height, left_width), right = (height, width), grad.shape[2:]
    if not window.transposed:
        (left_height, left_width), right = grad.shape[2:], (height, width)
    tiles = triton.cdiv(left_height * left_width, tile.depth)
    blocks = (triton.cdiv(first, tile.rows), weight[0, 0].numel() * triton.cdiv(second, tile.columns))
    steps = n * tiles
    steps_a_split = triton.cdiv(steps, min(steps, triton.cdiv(_PROGRAMS, blocks[0] * blocks[1])))
    splits = triton.cdiv(steps, steps_a_split)
    parts = torch.empty((splits, first, *window.kernel, second), dtype=torch.float32, device=x.device)
    strides, units = _strides(grad, x, x if source.residual is None else source.residual)
    with _device_of(x):
        weight_gradient_kernel[(*blocks, splits)](
            grad, x, source.residual, source.mean, source.var, source.weight, source.bias, parts, *strides,
            source.samples_per_group, first, second, left_height, left_width, *right, steps, tiles, steps_a_split,
            source.eps, source.slope,
            source.act, window.padding, window.pad_mode, window.transposed, *window.kernel, *window.stride,
            tile.rows, tile.columns, tile.depth, *units, _index(grad, x, source.residual), *_arithmetic(x),
            num_warps=tile.warps, num_stages=tile.stages,
        )  # fmt: skip
    total = parts[0] if splits == 1 else parts.sum(0)
    return torch.empty_like(weight).copy_(total.permute(0, 3, 1, 2))


def statistics(x: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Mean and biased variance (groups, C) of a tensor that no fused convolution has made."""
    n, channels, height, width = x.shape
    tiles = triton.cdiv(height * width, _ROWS)
    parts = empty_parts(x, n * tiles, channels)
    strides, units = _strides(x)
    with _device_of(x):
        parts_kernel[(n * tiles, triton.cdiv(channels, _COLUMNS))](
            x, *parts, *strides, channels, height, width, tiles, _ROWS, _COLUMNS, *units, _index(x)
        )
        return merge(*parts, groups)


def adjoint(window: Window) -> Window:
    """How the gradient of what ``window`` reads, its border included, is read from the gradient of its result."""
    padding = window.padding if window.pad_mode == "zeros" else 0
    return Window(window.kernel, window.stride, padding, "zeros", not window.transposed)


def channels_last(weight: Tensor) -> Tensor:
    """``weight`` as the kernels read it; a copy where it is not so already."""
    return weight.contiguous(memory_format=torch.channels_last)


def _device_of(x: Tensor) -> AbstractContextManager[object]:
    return torch.cuda.device(x.device) if x.device.type == "cuda" else nullcontext()


def _tiles(out: Tensor, window: Window, tile: Tile) -> tuple[int, int]:
    """How many tiles the pixels of one phase need, and how many phases there are."""
    sh, sw = window.stride if window.transposed else (1, 1)
    pixels = triton.cdiv(out.shape[2], sh) * triton.cdiv(out.shape[3], sw)
    return triton.cdiv(pixels, tile.rows), sh * sw


def _strides(*images: Tensor) -> tuple[list[int], list[int]]:
    """Of every image the strides (n, c, h, w), and its unit: how many elements those of n, h and w count in.

    The unit stands in the code, so that the compiler knows how addresses are aligned whatever the size of the image.
    """
    strides, units = [], []
    for image in images:
        n, c, h, w = image.stride()
        unit = next(unit for unit in (16, 8, 4, 2, 1) if not (n % unit or h % unit or w % unit))
        strides += [n // unit, c, h // unit, w // unit]
        units.append(unit)
    return strides, units


def _index(*images: Tensor | None) -> Any:
    """The integers that count within one sample."""
    extents = (
        sum((size - 1) * step for size, step in zip(t.shape[1:], t.stride()[1:], strict=True))
        for t in images
        if t is not None
    )
    return tl.int64 if max(extents) >= 2**31 else tl.int32


def _arithmetic(x: Tensor) -> tuple[Any, str]:
    """The dtype that is multiplied, and how exactly float32 is: as torch's own convolutions are allowed to."""
    dtype = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}[x.dtype]
    if os.environ.get("TRITON_INTERPRET") == "1":
        dtype = tl.float32  # the interpreter cannot multiply bfloat16
    tf32 = x.device.type == "cuda" and torch.backends.cudnn.allow_tf32
    return dtype, "tf32" if tf32 else "ieee"
