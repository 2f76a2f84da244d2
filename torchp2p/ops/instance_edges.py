"""``instance_edges``: the boundary map of instances, in one pass over the ids.

Source: spec sections 6.4 (the map), 11.2 R17 and R20 (one pass, and small dtypes on the host).
"""

from __future__ import annotations

import torch
from torch import Tensor

from torchp2p.ops import _check, _native
from torchp2p.ops._dispatch import choose
from torchp2p.ops._library import LIBRARY, implementation, register
from torchp2p.reference import instance_edges as reference

# The bits of a 1.
_ONES = {
    torch.float32: 0x3F800000,
    torch.bfloat16: 0x3F80,
    torch.float16: 0x3C00,
    torch.float64: 0x3FF0000000000000,
    torch.uint8: 1,
    torch.bool: 1,
}


def instance_edges(ids: Tensor, *, dtype: torch.dtype = torch.float32, backend: str | None = None) -> Tensor:
    """Mark the pixels whose id differs from that of a neighbour to the left, right, above or below.

    Both pixels at a boundary are marked, so lines are two pixels wide; the border of the image is none.

    Args:
        ids: (N, 1, H, W) or (N, H, W), any integer dtype or bool, any values, any strides.
        dtype: of the result: float32, bfloat16, float16 or float64 for a network, uint8 or bool to be kept.
        backend: ``native``, ``triton``, ``compile``, ``reference``, or None for the first that can run.

    Returns:
        (N, 1, H, W), contiguous, 1 on edges and 0 elsewhere. It has no gradient.

    Autocast has no effect: the result has the dtype that is asked for.

    Raises:
        TypeError: ids that are no Tensor or not integers, or a dtype that is not supported.
        ValueError: ids of another shape.
        BackendUnavailableError: the backend asked for cannot run; the message says why.
    """
    ids = _check.id_map("ids", ids)
    if dtype not in _ONES:
        raise TypeError(f"dtype must be float32, bfloat16, float16, float64, uint8 or bool, got {dtype}")
    chosen = choose("instance_edges", ids, backend)
    result: Tensor = _OP(ids, dtype, chosen)
    return result


# --- schema and implementations ------------------------------------------------------------------------

LIBRARY.define("instance_edges(Tensor ids, ScalarType dtype, str backend) -> Tensor")


def _forward(ids: Tensor, dtype: torch.dtype, backend: str) -> Tensor:
    edges = _fake(ids, dtype, backend)
    if edges.numel() == 0:
        return edges
    if backend != "native":
        found: Tensor = implementation(reference.instance_edges, backend)(ids, dtype)
        return found
    status = _native.C.instance_edges(
        ids.data_ptr(), edges.data_ptr(), ids.shape, ids.stride(), ids.element_size(), edges.element_size(),
        _ONES[dtype], *_native.place(ids),
    )  # fmt: skip
    _native.raise_for_status(status, "instance_edges", f"ids of shape {tuple(ids.shape)}")
    return edges


def _fake(ids: Tensor, dtype: torch.dtype, backend: str) -> Tensor:
    return torch.empty(ids.shape, dtype=dtype, device=ids.device)


_OP = register("instance_edges", _forward, _fake)
