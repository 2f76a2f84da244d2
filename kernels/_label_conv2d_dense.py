"""The gradient of the dense channels of ``label_conv2d`` in Triton.

    grad_dense(n, d, q) = sum over taps t, pixels p with q under t, and o of grad_y(n, o, p) * weight(o, L + d, t)

Bytes: grad_y is read once for each tap, from the cache but for the first; the gradient is written once. With a border
that repeats pixels (reflect, replicate) the gradient of the padded channels is written first, in float32 (float64), and
folded by a second kernel.

Plan: one program per tile of pixels and block of dense channels gathers what its pixels were read for. It keeps a sum
for each pixel, channel and output channel modulo the block in registers, and adds those up at the end. No two programs
add to one place: the same bits in every run.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from torchp2p.kernels._index import accumulator, is_inside, layout_of
from torchp2p.kernels._label_window import by_tap, gradient_layout, gradient_tile
from torchp2p.kernels._launch import launch

_PIXELS, _OUTPUTS, _CHANNELS = 64, 16, 4  # of a tile
_FOLDED = 512  # pixels of a tile of the second kernel


def dense_gradient(
    grad_y: Tensor,
    weight: Tensor,
    dense: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    pad_mode: str,
) -> Tensor:
    """The gradient of dense (N, D, H, W), in its dtype and layout; grad_y has any strides and is not empty."""
    grad = torch.empty(dense.shape, dtype=dense.dtype, device=dense.device, memory_format=layout_of(dense))
    if grad.numel() == 0:
        return grad
    if pad_mode == "zeros" or not any(padding):
        _gather(grad, padding, grad_y, weight, stride)
        return grad
    n, channels, h, w = dense.shape
    padded = dense.new_empty((n, channels, h + 2 * padding[0], w + 2 * padding[1]), dtype=accumulator(dense.dtype))
    _gather(padded, (0, 0), grad_y, weight, stride)
    images = [2 * pad + 1 if pad_mode == "replicate" else 3 for pad in padding]
    launch(
        _label_fold_kernel, (n * channels, triton.cdiv(h * w, _FOLDED)), padded, grad,
        h, w, channels, *grad.stride()[:2], grad.stride(3),
        PH=padding[0], PW=padding[1], MODE=pad_mode, ROWS=images[0], COLUMNS=images[1], PIXELS=_FOLDED,
    )  # fmt: skip
    return grad


def _gather(grad: Tensor, origin: Sequence[int], grad_y: Tensor, weight: Tensor, stride: Sequence[int]) -> None:
    """Fill ``grad``, the gradient of a window of the padded dense channels that begins at ``origin``."""
    n, channels, h, w = grad.shape
    block = min(_CHANNELS, triton.next_power_of_2(channels))
    tiles = triton.cdiv(h * w, _PIXELS)
    launch(
        _label_gather_kernel, (n * tiles, triton.cdiv(channels, block)), grad_y, by_tap(weight[:, -channels:]), grad,
        w, h * w, channels, *grad_y.shape[1:], *grad_y.stride(), *grad.stride()[:2], grad.stride(3), tiles,
        KH=weight.shape[2], KW=weight.shape[3], SH=stride[0], SW=stride[1], TOP=origin[0], LEFT=origin[1],
        **gradient_layout(grad_y),
        PIXELS=_PIXELS, OUTPUTS=_OUTPUTS, CHANNELS=block,
    )  # fmt: skip


_GATHER = ["w", "plane", "channels", "outs", "out_h", "out_w", "gn", "gc", "gh", "gw", "yn", "yc", "yp", "tiles"]


@triton.jit(do_not_specialize=_GATHER)
def _label_gather_kernel(
    grad_y,
    weight,  # (tap, d, o)
    grad,
    w: tl.int32,  # width of grad
    plane: tl.int32,  # its pixels
    channels: tl.int32,
    outs: tl.int32,
    out_h: tl.int32,
    out_w: tl.int32,
    gn: tl.int64,  # strides of grad_y
    gc: tl.int64,
    gh: tl.int64,
    gw: tl.int64,
    yn: tl.int64,  # strides of grad: of a sample, a channel, a pixel
    yc: tl.int64,
    yp: tl.int64,
    tiles: tl.int32,  # of a plane of grad
    KH: tl.constexpr,
    KW: tl.constexpr,
    SH: tl.constexpr,
    SW: tl.constexpr,
    TOP: tl.constexpr,
    LEFT: tl.constexpr,
    LAST: tl.constexpr,  # how grad_y lies: see gradient_layout
    ALIGNMENT: tl.constexpr,
    PIXELS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    ACC: tl.constexpr = tl.float64 if weight.dtype.element_ty == tl.float64 else tl.float32
    n = (tl.program_id(0) // tiles).to(tl.int64)
    p = tl.program_id(0) % tiles * PIXELS + tl.arange(0, PIXELS)  # (PIXELS,)
    d = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)  # (CHANNELS,)
    bottom, right = p // w + TOP, p % w + LEFT  # in the padded image
    total = tl.zeros((PIXELS, OUTPUTS, CHANNELS), ACC)
    for first in range(0, outs, OUTPUTS):
        o = first + tl.arange(0, OUTPUTS)  # (OUTPUTS,)
        for tap in range(KH * KW):
            # The window that has pixel (bottom, right) under this tap begins here, if a window does.
            top, left = bottom - tap // KW, right - tap % KW
            row, column = top // SH, left // SW
            inside = (p < plane) & (top >= 0) & (left >= 0) & (top % SH == 0) & (left % SW == 0)
            inside &= (row < out_h) & (column < out_w)
            value = gradient_tile(grad_y, n, row, column, inside, o, gn, gc, gh, gw, outs, LAST, ALIGNMENT)
            factors = weight + (tap * channels + d[None, :]) * outs + o[:, None]
            factor = tl.load(factors, mask=(o < outs)[:, None] & (d < channels)[None, :], other=0.0)
            total += value.to(ACC)[:, :, None] * factor.to(ACC)[None, :, :]  # (PIXELS, OUTPUTS, CHANNELS)
    to = grad + n * yn + d[None, :] * yc + p[:, None] * yp
    tl.store(to, tl.sum(total, 1), mask=(p < plane)[:, None] & (d < channels)[None, :])


@triton.jit(do_not_specialize=["h", "w", "channels", "yn", "yc", "yp"])
def _label_fold_kernel(
    padded,  # (N, D, H + 2 PH, W + 2 PW)
    grad,
    h: tl.int32,
    w: tl.int32,
    channels: tl.int32,
    yn: tl.int64,  # strides of grad: of a sample, a channel, a pixel
    yc: tl.int64,
    yp: tl.int64,
    PH: tl.constexpr,
    PW: tl.constexpr,
    MODE: tl.constexpr,
    ROWS: tl.constexpr,  # in how many places of the padded image a row may stand
    COLUMNS: tl.constexpr,
    PIXELS: tl.constexpr,
):
    """Every pixel gathers what flowed to the places of the border where it stands, and to its own."""
    n, d = tl.program_id(0) // channels, tl.program_id(0) % channels
    p = tl.program_id(1) * PIXELS + tl.arange(0, PIXELS)  # (PIXELS,)
    width = w + 2 * PW
    plane = padded + tl.program_id(0).to(tl.int64) * (h + 2 * PH) * width
    total = tl.zeros((PIXELS,), padded.dtype.element_ty)
    for i in range(ROWS):
        row, there = _place(p // w, h, i, PH, MODE)
        for j in range(COLUMNS):
            column, also = _place(p % w, w, j, PW, MODE)
            total += tl.load(plane + row * width + column, mask=(p < h * w) & there & also, other=0.0)
    tl.store(grad + n * yn + d * yc + p * yp, total, mask=p < h * w)


@triton.jit
def _place(i, size, which, PAD: tl.constexpr, MODE: tl.constexpr):
    """(where row or column ``i`` stands in the padded image, whether it does) for the first, second, ... place."""
    if MODE == "reflect":  # itself, before the image, behind it
        mirrored = tl.where(which == 1, -i, 2 * (size - 1) - i)
        place = tl.where(which == 0, i, mirrored) + PAD
        there = (which == 0) | (((place < PAD) | (place >= size + PAD)) & is_inside(place, size + 2 * PAD))
    else:  # itself, PAD times before the image, PAD times behind it
        before = (which > 0) & (which <= PAD)
        place = tl.where(which == 0, i + PAD, tl.where(before, PAD - which, size - 1 + which))
        there = (which == 0) | tl.where(before, i == 0, i == size - 1)
    return place, there
