"""What the kernels of ``label_conv2d`` share: a window over a label map, its taps, and the tensors under it.

Pixels p are those of one output plane, row by row; tap t is row t // KW, column t % KW of the window.
"""

from collections.abc import Sequence
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from torchp2p.kernels._index import common_alignment, is_inside, source_index

WINDOW = ["h", "w", "ln", "lh", "lw", "dn", "dc", "dh", "dw", "classes", "channels", "outs", "plane", "out_w"]
"""The run-time arguments of `window`, by the names that kernels give them."""


def channels_of(weight: Tensor, dense: Tensor | None) -> tuple[int, int]:
    """(label channels, dense channels) of the weight (O, L + D, kh, kw)."""
    channels = 0 if dense is None else dense.shape[1]
    return weight.shape[1] - channels, channels


def output_size(labels: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int]) -> tuple[int, int]:
    """(H', W') of the convolution."""
    height, width = ((labels.shape[2 + i] + 2 * padding[i] - weight.shape[2 + i]) // stride[i] + 1 for i in range(2))
    return height, width


def by_tap(weight: Tensor) -> Tensor:
    """The weight as (tap, channel, o), so that what a tap adds for a label is a row of memory."""
    return weight.permute(2, 3, 1, 0).contiguous()


def window(labels: Tensor, weight: Tensor, dense: Tensor | None, size: tuple[int, int]) -> tuple[int, ...]:
    """The arguments `WINDOW` of a convolution whose output has ``size``."""
    label_strides = (labels.stride(0), labels.stride(2), labels.stride(3))
    dense_strides = (0, 0, 0, 0) if dense is None else dense.stride()
    sizes = (*channels_of(weight, dense), weight.shape[0], size[0] * size[1], size[1])
    return (*labels.shape[2:], *label_strides, *dense_strides, *sizes)


def taps(weight: Tensor, stride: Sequence[int], padding: Sequence[int], pad_mode: str) -> dict[str, Any]:
    """What a layer is built with, and therefore compiled in."""
    (kh, kw), (sh, sw), (ph, pw) = weight.shape[2:], stride, padding
    return {"KH": kh, "KW": kw, "SH": sh, "SW": sw, "PH": ph, "PW": pw, "MODE": pad_mode}


@triton.jit
def aligned(number, ALIGNMENT: tl.constexpr):
    """``number``, which ALIGNMENT divides: said in a way that the compiler understands."""
    return number // ALIGNMENT * ALIGNMENT


@triton.jit
def under_tap(p, tap, h, w, plane, out_w, KW: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
              PH: tl.constexpr, PW: tl.constexpr, MODE: tl.constexpr):  # fmt: skip
    """(row, column, whether there is one) of the pixel that lies under a tap of output pixels ``p`` (P,)."""
    y = p // out_w * SH - PH + tap // KW
    x = p % out_w * SW - PW + tap % KW
    inside = p < plane
    if MODE == "zeros":
        inside &= is_inside(y, h) & is_inside(x, w)
    return source_index(y, h, MODE), source_index(x, w, MODE), inside


@triton.jit
def known_labels(labels, inside, classes):
    """(ids, which of them are classes) at addresses ``labels``; whatever integers they are, their ids are int32."""
    ids = tl.load(labels, mask=inside, other=0).to(tl.int64)
    return ids.to(tl.int32), inside & (ids >= 0) & (ids < classes)


@triton.jit
def gradient_tile(grad_y, n, row, column, inside, o, gn, gc, gh, gw, outs, LAST: tl.constexpr, ALIGNMENT: tl.constexpr):
    """(P, O) values of grad_y at pixels (P,) of sample n and channels ``o`` (O,), read as they lie in memory."""
    gn, gh, gw = aligned(gn, ALIGNMENT), aligned(gh, ALIGNMENT), aligned(gw, ALIGNMENT)
    used = o < aligned(outs, ALIGNMENT)
    places = n * gn + row * gh + column * gw
    if LAST:
        mask = inside[:, None] & used[None, :]
        tile = tl.load(grad_y + places[:, None] + o[None, :], mask=mask, other=0.0)
    else:
        mask = used[:, None] & inside[None, :]
        tile = tl.trans(tl.load(grad_y + o[:, None] * gc + places[None, :], mask=mask, other=0.0))
    return tile


def gradient_layout(grad_y: Tensor) -> dict[str, Any]:
    """How `gradient_tile` reads grad_y: whether its channels are next to each other, and whether 16 at once."""
    last = grad_y.stride(1) == 1 and grad_y.stride(3) != 1
    n, _, h, w = grad_y.stride()
    return {"LAST": last, "ALIGNMENT": common_alignment(grad_y.shape[1], n, h, w) if last else 1}
