"""The boundary map of instances in Triton: one gather pass.

    edge(n, y, x) = 1 where ids(n, y, x) differs from the pixel above, below, to the left or to the right, else 0

Bytes: every id is read once (its neighbours come from the caches), every edge is written once.

Plan: one program per tile of 8 x 128 pixels, whose loads along a row are contiguous. Ids are told apart by their bits,
so one kernel serves signed and unsigned ids of a width.
"""

from collections.abc import Iterator
from functools import partial

import torch
import triton
import triton.language as tl
from torch import Tensor

from torchp2p.kernels._launch import Example, launch

_ROWS, _COLUMNS = 8, 128
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def instance_edges(ids: Tensor, dtype: torch.dtype) -> Tensor:
    """1 where an id of (N, 1, H, W) differs from that of one of the four neighbours in the image, else 0; dense."""
    edges = torch.empty(ids.shape, dtype=dtype, device=ids.device)
    n, _, h, w = ids.shape
    if edges.numel() == 0:
        return edges
    tiles = (triton.cdiv(h, _ROWS), triton.cdiv(w, _COLUMNS))
    launch(
        _instance_edges_kernel, (n * tiles[0] * tiles[1],),
        ids.view(_BITS[ids.element_size()]), edges.view(torch.uint8) if dtype == torch.bool else edges,
        h, w, *tiles, ids.stride(0), ids.stride(2), ids.stride(3),
        ROWS=_ROWS, COLUMNS=_COLUMNS,
    )  # fmt: skip
    return edges


@triton.jit(do_not_specialize=["h", "w", "tiles_y", "tiles_x", "sn", "sh", "sw"])
def _instance_edges_kernel(
    ids,
    edges,
    h: tl.int32,
    w: tl.int32,
    tiles_y: tl.int32,
    tiles_x: tl.int32,
    sn: tl.int64,  # strides of ids
    sh: tl.int64,
    sw: tl.int64,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    tile = tl.program_id(0)
    n = tile // (tiles_y * tiles_x)
    y = tile // tiles_x % tiles_y * ROWS + tl.arange(0, ROWS)[:, None]  # (ROWS, 1)
    x = tile % tiles_x * COLUMNS + tl.arange(0, COLUMNS)[None, :]  # (1, COLUMNS)
    inside = (y < h) & (x < w)
    image = ids + n.to(tl.int64) * sn
    # Beyond the border of the image the pixel itself stands for the neighbour that is not there.
    above, below = tl.maximum(y - 1, 0), tl.minimum(y + 1, h - 1)
    left, right = tl.maximum(x - 1, 0), tl.minimum(x + 1, w - 1)
    here = tl.load(image + y * sh + x * sw, mask=inside, other=0)  # (ROWS, COLUMNS)
    edge = here != tl.load(image + above * sh + x * sw, mask=inside, other=0)
    edge |= here != tl.load(image + below * sh + x * sw, mask=inside, other=0)
    edge |= here != tl.load(image + y * sh + left * sw, mask=inside, other=0)
    edge |= here != tl.load(image + y * sh + right * sw, mask=inside, other=0)
    out = edges + (n.to(tl.int64) * h + y) * w + x
    tl.store(out, tl.where(edge, 1.0, 0.0).to(edges.dtype.element_ty), mask=inside)


def examples() -> Iterator[Example]:
    """A street at 2048 x 1024, as labels are read from files and as networks take edges."""
    for ids_dtype, dtype in ((torch.int32, torch.float32), (torch.int16, torch.bfloat16), (torch.uint8, torch.uint8)):
        ids = torch.empty(1, 1, 1024, 2048, dtype=ids_dtype, device="meta")
        least = ids.numel() * (ids_dtype.itemsize + dtype.itemsize)
        yield Example(f"{str(ids_dtype)[6:]} to {str(dtype)[6:]}", partial(instance_edges, ids, dtype), least, least)
