"""``InstanceAvgPool2d``: instance-wise average pooling, as the feature encoder of pix2pixHD ends with."""

from __future__ import annotations

from torch import Tensor, nn

from torchp2p import ops


class InstanceAvgPool2d(nn.Module):
    """Replace every pixel by the mean over its instance, see :func:`torchp2p.ops.instance_avg_pool`.

    ``forward``: x (N, C, H, W), floating, and integer ids (N, 1, H, W) or (N, H, W) of any values to the shape, dtype
    and layout of x. Source: spec sections 2.7 (the encoder of pix2pixHD ends with it) and 7.1.

    Raises:
        TypeError, ValueError: in ``forward``, what the op raises.
    """

    def forward(self, x: Tensor, ids: Tensor) -> Tensor:
        """x (N, C, H, W) and integer ids (N, 1, H, W) or (N, H, W) to the shape of x."""
        return ops.instance_avg_pool(x, ids)
