"""Convolution of one-hot labels and dense channels in Triton, without the one-hot tensor.

    y(n, o, p) = bias(o) + sum over taps t, at the pixel q under t:
                 weight(o, labels(n, q), t) + sum over d of weight(o, L + d, t) * dense(n, d, q)

Bytes: labels and dense channels are read once from memory (for the other taps from the caches), y is written once. The
weight is first laid out as (tap, channel, o), a copy of its size.

Plan: one program per tile of (pixels, output channels) of a sample. Each tap adds a row of the weight to each pixel, a
gather from the caches, for labels are constant over areas; and for each dense channel an outer product. A border is
index arithmetic, and an id that is none of the L classes adds no row. Sums are taken in float32 (float64), in an order
that the shapes decide. The gradients: `_label_conv2d_weight`, `_label_conv2d_dense`.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import torch
import triton
import triton.language as tl
from torch import Tensor

from torchp2p.kernels._index import accumulator, common_alignment, layout_of
from torchp2p.kernels._label_conv2d_dense import dense_gradient
from torchp2p.kernels._label_conv2d_weight import splits_of, weight_gradient
from torchp2p.kernels._label_window import WINDOW, aligned, by_tap, known_labels, output_size, taps, under_tap, window
from torchp2p.kernels._launch import Example, launch

_TILE, _OUTPUTS = 1024, 64  # values, and output channels at most, of a tile


def label_conv2d(
    labels: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    dense: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    pad_mode: str,
) -> Tensor:
    """``conv2d(pad(cat(one_hot(labels), dense)), weight, bias)``, dtype of the weight; y must not be empty.

    channels_last where dense or the weight is that, else contiguous.
    """
    size = output_size(labels, weight, stride, padding)
    last = any(t is not None and layout_of(t) == torch.channels_last for t in (weight, dense))
    y = torch.empty(
        labels.shape[0], weight.shape[0], *size, dtype=weight.dtype, device=weight.device,
        memory_format=torch.channels_last if last else torch.contiguous_format,
    )  # fmt: skip
    outputs = min(_OUTPUTS, triton.next_power_of_2(y.shape[1]))
    pixels = _TILE // outputs
    tiles = triton.cdiv(size[0] * size[1], pixels)
    launch(
        _label_conv2d_kernel, (y.shape[0] * tiles, triton.cdiv(y.shape[1], outputs)),
        labels, dense, by_tap(weight), None if bias is None else bias.contiguous(), y,
        *window(labels, weight, dense, size), tiles,
        **taps(weight, stride, padding, pad_mode), LAST=last,
        ALIGNMENT=common_alignment(y.shape[1]), PIXELS=pixels, OUTPUTS=outputs,
    )  # fmt: skip
    return y


def label_conv2d_backward(
    grad_y: Tensor,
    labels: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    dense: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    pad_mode: str,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of weight, bias and dense; those that ``needs`` does not ask for, or that do not exist, are empty."""
    layer = (stride, padding, pad_mode)
    grad_weight = grad_bias = grad_dense = weight.new_empty(0)
    if needs[0]:
        grad_weight = weight_gradient(grad_y, labels, weight, dense, *layer)
    if needs[1] and bias is not None:
        grad_bias = grad_y.sum((0, 2, 3), dtype=accumulator(grad_y.dtype)).to(bias.dtype)
    if needs[2] and dense is not None:
        grad_dense = dense_gradient(grad_y, weight, dense, *layer)
    return grad_weight, grad_bias, grad_dense


@triton.jit(do_not_specialize=[*WINDOW, "tiles"])
def _label_conv2d_kernel(
    labels,
    dense,
    weight,  # (tap, channel, o)
    bias,
    y,
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
    tiles: tl.int32,  # of an output plane
    KH: tl.constexpr,
    KW: tl.constexpr,
    SH: tl.constexpr,
    SW: tl.constexpr,
    PH: tl.constexpr,
    PW: tl.constexpr,
    MODE: tl.constexpr,
    LAST: tl.constexpr,  # whether y is channels_last
    ALIGNMENT: tl.constexpr,  # of outs
    PIXELS: tl.constexpr,
    OUTPUTS: tl.constexpr,
):
    ACC: tl.constexpr = tl.float64 if weight.dtype.element_ty == tl.float64 else tl.float32
    outs = aligned(outs, ALIGNMENT)
    n = (tl.program_id(0) // tiles).to(tl.int64)
    p = tl.program_id(0) % tiles * PIXELS + tl.arange(0, PIXELS)  # (PIXELS,)
    o = tl.program_id(1) * OUTPUTS + tl.arange(0, OUTPUTS)  # (OUTPUTS,)
    total = tl.zeros((PIXELS, OUTPUTS), ACC)
    if bias is not None:
        total += tl.load(bias + o, mask=o < outs, other=0.0).to(ACC)[None, :]
    for tap in range(KH * KW):
        row, column, inside = under_tap(p, tap, h, w, plane, out_w, KW, SH, SW, PH, PW, MODE)
        ids, known = known_labels(labels + n * ln + row * lh + column * lw, inside, classes)
        rows = weight + tap * (classes + channels) * outs + o[None, :]
        added = tl.load(rows + ids[:, None] * outs, mask=known[:, None] & (o < outs)[None, :], other=0.0)
        total += added.to(ACC)  # (PIXELS, OUTPUTS)
        if dense is not None:
            for d in range(channels):
                value = tl.load(dense + n * dn + d * dc + row * dh + column * dw, mask=inside, other=0.0)
                factor = tl.load(rows + (classes + d) * outs, mask=(o < outs)[None, :], other=0.0)
                total += value.to(ACC)[:, None] * factor.to(ACC)  # (PIXELS, 1) times (1, OUTPUTS)
    used = (p < plane)[:, None] & (o < outs)[None, :]
    if LAST:
        tl.store(y + (n * plane + p[:, None]) * outs + o[None, :], total, mask=used)
    else:
        tl.store(y + (n * outs + o[None, :]) * plane + p[:, None], total, mask=used)


def examples() -> Iterator[Example]:
    """The first layers of pix2pixHD at 2048 x 1024: the 7x7 of a generator, the 4x4 of a discriminator."""
    for dtype, layout in ((torch.float32, torch.contiguous_format), (torch.bfloat16, torch.channels_last)):
        lies = f"{str(dtype)[6:]}, {'contiguous' if layout == torch.contiguous_format else 'channels_last'}"
        for (outs, inputs, kernel), d, stride, pad, mode in (
            ((32, 36, 7), 1, 1, 3, "reflect"),
            ((64, 39, 4), 4, 2, 2, "zeros"),
        ):
            empty = partial(torch.empty, dtype=dtype, device="meta")
            labels = torch.empty(1, 1, 1024, 2048, dtype=torch.uint8, device="meta")
            weight, bias = empty(outs, inputs, kernel, kernel), empty(outs)
            dense = empty(1, d, 1024, 2048, memory_format=layout)
            layer = ((stride, stride), (pad, pad))
            y = empty(1, outs, *output_size(labels, weight, *layer), memory_format=layout)
            arguments = (labels, weight, bias, dense, *layer, mode)
            name = f"{kernel}x{kernel}, {inputs - d} labels + {d} to {outs}, {lies}"
            read, written = (sum(t.numel() * t.element_size() for t in ts) for ts in ((labels, dense, weight), (y,)))
            by_tap = 2 * weight.numel() * dtype.itemsize
            yield Example(
                f"forward, {name}", partial(label_conv2d, *arguments), read + written + by_tap, read + written
            )
            # Of the backward: grad_y for three gradients, and the dense channels once more, as their own gradient.
            backward = partial(label_conv2d_backward, y, *arguments, [True] * 3)
            least = read + written + dense.numel() * dtype.itemsize
            sums = splits_of(y, weight)[0] * weight.numel() * 4
            yield Example(f"backward, {name}", backward, least + 2 * written + by_tap + 2 * sums, least)
