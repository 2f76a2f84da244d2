"""The gradient of the weight of ``label_conv2d`` in Triton: sums of grad_y over the pixels under which a label lies.

    grad_weight(o, l, t)     = sum over n, p where labels(n, q) = l of grad_y(n, o, p)
    grad_weight(o, L + d, t) = sum over n, p of dense(n, d, q) * grad_y(n, o, p)        (q: the pixel of p under tap t)

Bytes: grad_y is read once for each tap, from the cache but for the first; labels and dense channels likewise; the
partial sums, a copy of the weight for each split of the pixels, are written and read once.

Plan: one program per tap, block of input channels, block of output channels, and split of the pixels, so many splits
that the GPU is full. A program keeps its block of the sums in registers and goes through its tiles of pixels: for every
label that occurs in a tile, few in all but noise, it adds up the pixels that have it. The splits are added last. Both
orders are decided by the shapes alone, so every run gives the same bits.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from torchp2p.kernels._index import accumulator
from torchp2p.kernels._label_window import (
    WINDOW,
    gradient_layout,
    gradient_tile,
    known_labels,
    taps,
    under_tap,
    window,
)
from torchp2p.kernels._launch import launch
from torchp2p.kernels._sums import sum_rows

_PIXELS, _OUTPUTS, _INPUTS = 128, 16, 64  # of a tile; no more channels than there are
_PROGRAMS = 1024  # wanted

_NONE = tl.constexpr(2**31 - 1)  # a label that is none


def weight_gradient(
    grad_y: Tensor,
    labels: Tensor,
    weight: Tensor,
    dense: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    pad_mode: str,
) -> Tensor:
    """The gradient of the weight, laid out as the weight is; grad_y has any strides and is not empty."""
    outs, inputs = weight.shape[:2]
    outputs_block, inputs_block = _blocks(weight)
    columns = weight.shape[2] * weight.shape[3] * triton.cdiv(inputs, inputs_block)
    splits, tiles, per_split = splits_of(grad_y, weight)
    sums = grad_y.new_empty((splits, *weight.shape[2:], inputs, outs), dtype=accumulator(grad_y.dtype))
    launch(
        _label_weight_kernel, (columns, triton.cdiv(outs, outputs_block), splits), grad_y, labels, dense, sums,
        *window(labels, weight, dense, (grad_y.shape[2], grad_y.shape[3])), *grad_y.stride(),
        tiles, grad_y.shape[0] * tiles, per_split,
        **taps(weight, stride, padding, pad_mode), **gradient_layout(grad_y),
        PIXELS=_PIXELS, OUTPUTS=outputs_block, INPUTS=inputs_block,
    )  # fmt: skip
    total = sum_rows(sums.view(1, splits, -1))
    return torch.empty_like(weight).copy_(total.view(sums.shape[1:]).permute(3, 2, 0, 1))


def splits_of(grad_y: Tensor, weight: Tensor) -> tuple[int, int, int]:
    """(splits of the pixels, tiles of an output plane, tiles of a split)."""
    outputs_block, inputs_block = _blocks(weight)
    blocks = triton.cdiv(weight.shape[0], outputs_block) * triton.cdiv(weight.shape[1], inputs_block)
    tiles = triton.cdiv(grad_y.shape[2] * grad_y.shape[3], _PIXELS)
    all_tiles = grad_y.shape[0] * tiles
    per_split = triton.cdiv(all_tiles, triton.cdiv(_PROGRAMS, blocks * weight.shape[2] * weight.shape[3]))
    return triton.cdiv(all_tiles, per_split), tiles, per_split


def _blocks(weight: Tensor) -> tuple[int, int]:
    """(output, input) channels of a program."""
    outs, inputs = (triton.next_power_of_2(count) for count in weight.shape[:2])
    return min(_OUTPUTS, outs), min(_INPUTS, inputs)


@triton.jit(do_not_specialize=[*WINDOW, "gn", "gc", "gh", "gw", "tiles", "all_tiles", "per_split"])
def _label_weight_kernel(
    grad_y,
    labels,
    dense,
    sums,  # (split, tap, channel, o)
    h: tl.int32,
    w: tl.int32,
    ln: tl.int64,  # strides of labels
    lh: tl.int64,
    lw: tl.int64,
    dn: tl.int64,  # strides of dense
    dc: tl.int64,
    dh: tl.int64,
    dw: tl.int64,
    classes: tl.int32,
    channels: tl.int32,
    outs: tl.int32,
    plane: tl.int32,  # pixels of an output plane
    out_w: tl.int32,
    gn: tl.int64,  # strides of grad_y
    gc: tl.int64,
    gh: tl.int64,
    gw: tl.int64,
    tiles: tl.int32,  # of an output plane
    all_tiles: tl.int32,
    per_split: tl.int32,
    KH: tl.constexpr,
    KW: tl.constexpr,
    SH: tl.constexpr,
    SW: tl.constexpr,
    PH: tl.constexpr,
    PW: tl.constexpr,
    MODE: tl.constexpr,
    LAST: tl.constexpr,  # how grad_y lies: see gradient_layout
    ALIGNMENT: tl.constexpr,
    PIXELS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    INPUTS: tl.constexpr,
):
    ACC: tl.constexpr = sums.dtype.element_ty
    tap = tl.program_id(0) % (KH * KW)
    first = tl.program_id(0) // (KH * KW) * INPUTS
    k = first + tl.arange(0, INPUTS)  # (INPUTS,) channels of the input
    o = tl.program_id(1) * OUTPUTS + tl.arange(0, OUTPUTS)  # (OUTPUTS,)
    split = tl.program_id(2)
    total = tl.zeros((INPUTS, OUTPUTS), ACC)
    for tile in range(split * per_split, tl.minimum((split + 1) * per_split, all_tiles)):
        n = (tile // tiles).to(tl.int64)
        p = tile % tiles * PIXELS + tl.arange(0, PIXELS)  # (PIXELS,)
        row, column, inside = under_tap(p, tap, h, w, plane, out_w, KW, SH, SW, PH, PW, MODE)
        grad = gradient_tile(grad_y, n, p // out_w, p % out_w, inside, o, gn, gc, gh, gw, outs, LAST, ALIGNMENT).to(
            ACC
        )  # (PIXELS, OUTPUTS)
        ids, known = known_labels(labels + n * ln + row * lh + column * lw, inside, classes)
        ids = tl.where(known & (ids >= first) & (ids < first + INPUTS), ids, _NONE)
        label = tl.min(ids)
        while label < _NONE:
            added = tl.sum(tl.where((ids == label)[:, None], grad, 0.0), 0)  # (OUTPUTS,)
            total += tl.where((k == label)[:, None], added[None, :], 0.0)
            label = tl.min(tl.where(ids > label, ids, _NONE))
        if dense is not None:
            for d in range(tl.maximum(first - classes, 0), tl.minimum(first + INPUTS - classes, channels)):
                value = tl.load(dense + n * dn + d * dc + row * dh + column * dw, mask=inside, other=0.0)
                added = tl.sum(value.to(ACC)[:, None] * grad, 0)
                total += tl.where((k == classes + d)[:, None], added[None, :], 0.0)
    inputs = classes + channels
    at = ((split * KH * KW + tap) * inputs + k[:, None]).to(tl.int64) * outs + o[None, :]
    tl.store(sums + at, total, mask=(k < inputs)[:, None] & (o < outs)[None, :])
