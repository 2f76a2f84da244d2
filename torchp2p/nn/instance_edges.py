"""``InstanceEdges``: the boundary map of instances, which pix2pixHD puts beside the one-hot labels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from torchp2p import ops


class InstanceEdges(nn.Module):
    """1 where the id of a pixel differs from a neighbour's, else 0, see :func:`torchp2p.ops.instance_edges`.

    Args:
        dtype: of the result.

    ``forward``: integer ids (N, 1, H, W) or (N, H, W) to (N, 1, H, W).

    Raises:
        TypeError, ValueError: in ``forward``, what the op raises.
    """

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, ids: Tensor) -> Tensor:
        """Integer ids (N, 1, H, W) or (N, H, W) to (N, 1, H, W)."""
        return ops.instance_edges(ids, dtype=self.dtype)

    def extra_repr(self) -> str:
        """The dtype of the result."""
        return f"dtype={self.dtype}"
