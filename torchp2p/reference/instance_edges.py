"""The boundary map of instances in plain PyTorch (spec section 6.4)."""

from __future__ import annotations

import torch
from torch import Tensor


def instance_edges(ids: Tensor, dtype: torch.dtype) -> Tensor:
    """1 where an id of (N, 1, H, W) differs from that of one of the four neighbours in the image, else 0; dense."""
    ids = ids.to(torch.int64)
    # Beyond the border of the image the pixel itself stands for the neighbour that is not there.
    above = torch.cat((ids[:, :, :1], ids[:, :, :-1]), 2)
    below = torch.cat((ids[:, :, 1:], ids[:, :, -1:]), 2)
    left = torch.cat((ids[..., :1], ids[..., :-1]), 3)
    right = torch.cat((ids[..., 1:], ids[..., -1:]), 3)
    edges = (ids != above) | (ids != below) | (ids != left) | (ids != right)
    return edges.to(dtype).contiguous()
