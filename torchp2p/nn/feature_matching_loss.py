"""``FeatureMatchingLoss``: pix2pixHD's feature matching over all scales and layers, and pix2pix's L1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from torchp2p import ops
from torchp2p.ops.feature_matching_loss import Features


class FeatureMatchingLoss(nn.Module):
    """L1 distance of discriminator features, see :func:`torchp2p.ops.feature_matching_loss` and spec section 4.4.

    Of every scale all entries but the last, the map of decisions, count, each as the mean over its elements times
    ``lambda_feat * (1 / num_D) * (4 / (n_layers_D + 1))``. A scale has ``n_layers_D + 2`` entries.

    Two tensors in place of lists are compared directly, times ``lambda_feat``: ``FeatureMatchingLoss(100.0)`` is
    the L1 term of pix2pix (spec section 4.3).

    Args:
        lambda_feat: weight of the whole.
        n_layers_D, num_D: of the discriminator. None takes them from the lists; given, the lists must fit.
    """

    def __init__(self, lambda_feat: float = 10.0, n_layers_D: int | None = None, num_D: int | None = None) -> None:
        super().__init__()
        self.lambda_feat = lambda_feat
        self.n_layers_D = n_layers_D
        self.num_D = num_D

    def forward(self, fake_features: Features, real_features: Features) -> Tensor:
        """A scalar; gradient for the fake features only.

        Args:
            fake_features, real_features: ``[scale][layer]``, as the multiscale discriminator returns them; or a
                tensor each.

        Raises:
            TypeError: not lists of lists, or what the op refuses.
            ValueError: a number of scales or layers that does not fit, or what the op refuses.
        """
        if isinstance(fake_features, Tensor) or isinstance(real_features, Tensor):
            return ops.feature_matching_loss(fake_features, real_features, [self.lambda_feat])
        fake, real = self._compared("fake_features", fake_features), self._compared("real_features", real_features)
        layers = len(fake[0])
        if (len(real), len(real[0])) != (len(fake), layers):
            raise ValueError(
                f"real_features must be {len(fake)} scales of {layers + 1} entries like fake_features, "
                f"got {len(real)} of {len(real[0]) + 1}"
            )
        weight = self.lambda_feat * (1 / len(fake)) * (4 / layers)
        return ops.feature_matching_loss(fake, real, [weight] * (len(fake) * layers))

    def _compared(self, name: str, features: Any) -> list[Sequence[Tensor]]:
        """All entries but the last of every scale, once the lists are known to be those of such a discriminator."""
        if not isinstance(features, (list, tuple)) or not all(isinstance(scale, (list, tuple)) for scale in features):
            raise TypeError(f"{name} must be a Tensor, or a list of scales that are lists of layers")
        sizes = [len(scale) for scale in features]
        scales = len(sizes) if self.num_D is None else self.num_D
        entries = max(sizes, default=0) if self.n_layers_D is None else self.n_layers_D + 2
        if not sizes or sizes != [entries] * scales or entries < 2:
            raise ValueError(
                f"{name} must be {max(scales, 1)} scales (num_D) of {max(entries, 2)} entries each (n_layers_D + 2: "
                f"features, and the map of decisions last), got {len(sizes)} scales of {sizes} entries"
            )
        return [scale[:-1] for scale in features]

    def extra_repr(self) -> str:
        """The weight, and the sizes where they are fixed."""
        sizes = (("n_layers_D", self.n_layers_D), ("num_D", self.num_D))
        return f"lambda_feat={self.lambda_feat}" + "".join(f", {k}={v}" for k, v in sizes if v is not None)
