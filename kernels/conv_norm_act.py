"""``conv_norm_act`` as implicit matrix products: what is given to the kernels of ``_conv_*.py``, and how it is cut.

Every kernel reads pixels by their strides, so either layout is right; channels_last is the one that is fast. Weights
are read in the order of channels_last and turned to it where they are not. Sizes of images are run-time arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchp2p.kernels._conv_data_gradient import data_gradient_kernel, norm_gradient_kernel
from torchp2p.kernels._conv_forward import forward_kernel
from torchp2p.kernels._conv_statistics import empty_parts, merge
from torchp2p.kernels._conv_tiles import Tile, Tiles, arithmetic_of, candidates, default_tiles
from torchp2p.kernels._conv_weight_gradient import weight_gradient_kernel
from torchp2p.kernels._index import offset_type
from torchp2p.kernels._launch import Example, launch
from torchp2p.kernels._statistics import statistics
from torchp2p.kernels._sums import sum_rows
from torchp2p.kernels._tiles import cdiv

__all__ = [
    "Source", "Tile", "Tiles", "Window", "adjoint", "arithmetic_of", "candidates", "data_gradient", "default_tiles",
    "examples", "forward", "norm_gradient", "statistics", "weight_gradient",
]  # fmt: skip

# Of the elementwise kernel: pixels and channels.
ROWS, COLUMNS = 64, 32
# So many programs fill every GPU of today.
PROGRAMS = 512


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

    @property
    def added(self) -> Tensor:
        """The residual, or x in its place, where only strides matter."""
        return self.x if self.residual is None else self.residual


class Window(NamedTuple):
    """How a convolution reads: its kernel, stride, padding on every side, ``pad_mode``, and whether transposed."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: int
    pad_mode: str
    transposed: bool


def adjoint(window: Window) -> Window:
    """How the gradient of what ``window`` reads, its border included, is read from the gradient of its result."""
    padding = window.padding if window.pad_mode == "zeros" else 0
    return Window(window.kernel, window.stride, padding, "zeros", not window.transposed)


def forward(
    source: Source, weight: Tensor, bias: Tensor | None, out: Tensor, window: Window, groups: int, tile: Tile
) -> tuple[Tensor, Tensor] | None:
    """Write the convolution of ``source`` into ``out``; with ``groups``, mean and variance (groups, O) of it."""
    n, channels, height, width = source.x.shape
    outputs, out_height, out_width = out.shape[1:]
    tiles, phases = _tiles(out, window, tile)
    parts = empty_parts(out, n * phases * tiles, outputs) if groups else (None, None, None)
    strides, constants = _places(x=source.x, residual=source.added, out=out)
    launch(
        forward_kernel, (n * phases * tiles, cdiv(outputs, tile.columns)),
        source.x, source.residual, source.mean, source.var, source.weight, source.bias, _turned(weight), bias, out,
        *parts, *strides,
        source.samples_per_group, channels, outputs, height, width, out_height, out_width, tiles,
        source.eps, source.slope,
        ACT=source.act, PAD_MODE=window.pad_mode, **constants, **_constants(source.x, window, tile),
    )  # fmt: skip
    return merge(*parts, groups) if parts[0] is not None else None


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
    n, channels, height, width = source.x.shape
    window = adjoint(window)
    tiles, phases = _tiles(out, window, tile)
    sums = torch.empty((2, n * phases * tiles, channels), dtype=torch.float32, device=grad.device)
    strides, constants = _places(grad=grad, x=source.x, residual=source.added, out=out)
    launch(
        data_gradient_kernel, (n * phases * tiles, cdiv(channels, tile.columns)),
        grad, source.x, source.residual, source.mean, source.var, source.weight, source.bias, _turned(weight), out,
        sums[0], sums[1], *strides,
        source.samples_per_group, grad.shape[1], channels, grad.shape[2], grad.shape[3], height, width, tiles,
        source.eps, source.slope, ACT=source.act, **constants, **_constants(source.x, window, tile),
    )  # fmt: skip
    groups = n // source.samples_per_group
    sum_grad, sum_grad_xhat = sum_rows(sums.view(2 * groups, -1, channels)).view(2, groups, channels)
    return sum_grad, sum_grad_xhat


def norm_gradient(grad: Tensor, source: Source, means: tuple[Tensor, Tensor] | None, out: Tensor) -> None:
    """Write into ``out``, which may be ``grad``, the gradient of x, from that of what is activated.

    Args:
        means: of ``grad`` and of its product with the normalised x, (G, C), where statistics move with x.
    """
    n, channels, height, width = source.x.shape
    tiles = cdiv(height * width, ROWS)
    strides, constants = _places(grad=grad, x=source.x, out=out)
    launch(
        norm_gradient_kernel, (n * tiles, cdiv(channels, COLUMNS)),
        grad, source.x, source.mean, source.var, source.weight, *(means or (None, None)), out, *strides,
        source.samples_per_group, channels, height, width, tiles, source.eps,
        BLOCK_M=ROWS, BLOCK_N=COLUMNS, **constants,
    )  # fmt: skip


def weight_gradient(grad: Tensor, source: Source, weight: Tensor, window: Window, tile: Tile) -> Tensor:
    """The gradient of ``weight``, in its dtype and layout; ``grad`` is that of the convolution's output."""
    left, right = (source.x, grad) if window.transposed else (grad, source.x)
    (n, first, height, width), second = left.shape, right.shape[1]
    tiles = cdiv(height * width, tile.depth)
    steps, taps = n * tiles, window.kernel[0] * window.kernel[1]
    blocks = (cdiv(first, tile.rows), taps * cdiv(second, tile.columns))
    steps_a_split = cdiv(steps, min(steps, cdiv(PROGRAMS, blocks[0] * blocks[1])))
    splits = cdiv(steps, steps_a_split)
    parts = torch.empty((splits, first, *window.kernel, second), dtype=torch.float32, device=grad.device)
    strides, constants = _places(grad=grad, x=source.x, residual=source.added)
    launch(
        weight_gradient_kernel, (*blocks, splits),
        grad, source.x, source.residual, source.mean, source.var, source.weight, source.bias, parts, *strides,
        source.samples_per_group, first, second, height, width, right.shape[2], right.shape[3],
        steps, tiles, steps_a_split, source.eps, source.slope,
        ACT=source.act, PAD_MODE=window.pad_mode, **constants, **_constants(source.x, window, tile),
    )  # fmt: skip
    total = parts[0] if splits == 1 else parts.sum(0)
    return torch.empty_like(weight).copy_(total.permute(0, 3, 1, 2))


def _turned(weight: Tensor) -> Tensor:
    """``weight`` as the kernels read it; a copy where it is not so already."""
    return weight.contiguous(memory_format=torch.channels_last)


def _tiles(out: Tensor, window: Window, tile: Tile) -> tuple[int, int]:
    """How many tiles the pixels of one phase need, and how many phases there are."""
    down, across = window.stride if window.transposed else (1, 1)
    pixels = cdiv(out.shape[2], down) * cdiv(out.shape[3], across)
    return cdiv(pixels, tile.rows), down * across


def _places(**images: Tensor) -> tuple[list[int], dict[str, Any]]:
    """Strides (n, c, h, w) of all images, those but c in units, and the constants that say how to use them.

    A unit of many elements stands in the code, so the compiler knows how addresses are aligned whatever the size of
    the image. Programs work within a sample, so offsets are wide only where those of one sample are.
    """
    strides, constants = [], {}
    for name, image in images.items():
        n, c, h, w = image.stride()
        unit = next(unit for unit in (16, 8, 4, 2, 1) if not (n % unit or h % unit or w % unit))
        strides += [n // unit, c, h // unit, w // unit]
        constants[f"{name.upper()}_UNIT"] = unit
    return strides, constants | {"OFFSET": offset_type(*(image[:1] for image in images.values()))}


def _constants(x: Tensor, window: Window, tile: Tile) -> dict[str, Any]:
    """What is compiled into every kernel that multiplies; float32 as exactly as torch's own convolutions have to."""
    return {
        "PAD": window.padding, "TRANSPOSED": window.transposed,
        "KH": window.kernel[0], "KW": window.kernel[1], "SH": window.stride[0], "SW": window.stride[1],
        "BLOCK_M": tile.rows, "BLOCK_N": tile.columns, "BLOCK_K": tile.depth,
        "PRECISION": "ieee" if arithmetic_of(x) == "ieee" else "tf32",
        "num_warps": tile.warps, "num_stages": tile.stages,
    }  # fmt: skip


# --- for the report -------------------------------------------------------------------------------------------

_KINDS = {
    "3x3 reflect": Window((3, 3), (1, 1), 1, "reflect", False),
    "3x3 stride 2": Window((3, 3), (2, 2), 1, "zeros", False),
    "4x4 stride 2": Window((4, 4), (2, 2), 1, "zeros", False),
    "4x4 stride 1": Window((4, 4), (1, 1), 2, "zeros", False),
    "7x7 reflect": Window((7, 7), (1, 1), 3, "reflect", False),
    "transposed 3x3": Window((3, 3), (2, 2), 1, "zeros", True),
    "transposed 4x4": Window((4, 4), (2, 2), 1, "zeros", True),
}


def examples() -> Iterator[Example]:
    """Every kernel with every tile, and every kind of convolution with one, on channels_last images of 64x128x256."""
    for dtype, tf32 in ((torch.bfloat16, True), (torch.float32, True), (torch.float32, False)):
        with torch.backends.cudnn.flags(allow_tf32=tf32):
            tiles = {use: candidates(_image(1, (1, 1), dtype), use) for use in Tiles._fields}
        for use, several in tiles.items():
            for tile in several:
                yield _example(use, "transposed 4x4", dtype, tile, tf32)
                if use != "data":  # a border's data gradient is a forward without anything fused
                    yield _example(use, "3x3 reflect", dtype, tile, tf32)
    for kind, window in _KINDS.items():
        for use, tile in default_tiles(_image(1, (1, 1), torch.float16))._asdict().items():
            if use != "data" or window.pad_mode == "zeros":
                yield _example(use, kind, torch.float16, tile)
    x, vector = _image(256, (64, 128), torch.bfloat16), torch.empty((1, 256), device="meta")
    source = Source(x, None, vector, vector, vector[0])
    yield Example("norm gradient", partial(norm_gradient, x, source, (vector, vector), x), 3 * x.nbytes, 3 * x.nbytes)


def _example(use: str, kind: str, dtype: torch.dtype, tile: Tile, tf32: bool = True) -> Example:
    """One launch of a kernel whose source has everything there is."""

    def call(function: Callable[..., object], *arguments: object) -> Callable[[], object]:
        def run() -> None:
            with torch.backends.cudnn.flags(allow_tf32=tf32):
                function(*arguments)

        return run

    window, channels, size = _KINDS[kind], 256, (64, 128)
    x, vector = _image(channels, size, dtype), torch.empty((1, channels), device="meta")
    source = Source(x, x, vector, vector, vector[0], vector[0], 1e-5, "leaky_relu", 0.2)
    weight = torch.empty((channels, channels, *window.kernel), dtype=dtype, device="meta")
    weight = weight.contiguous(memory_format=torch.channels_last)
    grown = [(each + 2 * window.padding - edge) for each, edge in zip(size, window.kernel, strict=True)]
    down, across = window.stride
    out_size = (
        (size[0] * down, size[1] * across) if window.transposed else (grown[0] // down + 1, grown[1] // across + 1)
    )
    out = _image(channels, out_size, dtype)
    label = f"{use} {kind} {str(dtype).removeprefix('torch.')} {tile.rows}x{tile.columns}x{tile.depth}"
    label += "" if tf32 else " exact"
    least = 2 * x.nbytes + out.nbytes + weight.nbytes
    if use == "weight":
        return Example(label, call(weight_gradient, out, source, weight, window, tile), least, least)
    if use == "data":
        parts = 16 * channels * cdiv(x[0, 0].numel(), tile.rows)
        least += x.nbytes
        return Example(label, call(data_gradient, out, source, weight, window, x, tile), least + parts, least)
    parts = 16 * channels * cdiv(out[0, 0].numel(), tile.rows)
    return Example(label, call(forward, source, weight, None, out, window, 1, tile), least + parts, least)


def _image(channels: int, size: tuple[int, int], dtype: torch.dtype) -> Tensor:
    image = torch.empty((1, channels, *size), dtype=dtype, device="meta")
    return image.contiguous(memory_format=torch.channels_last)
