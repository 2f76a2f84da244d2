"""The boundary map of instances in plain PyTorch (spec section 6.4)."""

from __future__ import annotations

import torch
from torch import Tensor


def instance_edges(ids: Tensor, dtype: torch.dtype) -> Tensor:
    """1 where an id of (N, 1, H, W) differs from that of one of the four neighbours in the image, else 0."""
    ids = ids.to(torch.int64)
    across, down = ids[..., 1:] != ids[..., :-1], ids[..., 1:, :] != ids[..., :-1, :]
    edges = torch.zeros(ids.shape, dtype=torch.bool, device=ids.device)
    edges[..., 1:] |= across
    edges[..., :-1] |= across
    edges[..., 1:, :] |= down
    edges[..., :-1, :] |= down
    return edges.to(dtype, copy=True)
