"""``GANLoss``: the adversarial loss of both original projects, as one fused reduction."""

from __future__ import annotations

from torch import Tensor, nn

from torchp2p import ops
from torchp2p.ops.gan_loss import MODES, Predictions


class GANLoss(nn.Module):
    """Adversarial loss on raw discriminator outputs, see :func:`torchp2p.ops.gan_loss`.

    It has no target tensors: the labels are 1 for real and 0 for fake.

    Args:
        gan_mode: ``lsgan``, ``vanilla`` (with logits), ``hinge``, ``wgan``; ``wgangp`` means ``wgan``, its
            gradient penalty being a term of its own.

    Raises:
        ValueError: an unknown mode.
    """

    def __init__(self, gan_mode: str = "lsgan") -> None:
        super().__init__()
        if gan_mode != "wgangp" and gan_mode not in MODES:
            raise ValueError(f"gan_mode must be one of {', '.join(MODES)}, wgangp, got {gan_mode!r}")
        self.gan_mode = gan_mode

    def forward(self, prediction: Predictions, target_is_real: bool, for_discriminator: bool = True) -> Tensor:
        """A scalar: mean over each map, summed over scales."""
        mode = "wgan" if self.gan_mode == "wgangp" else self.gan_mode
        return ops.gan_loss(prediction, target_is_real, mode, for_discriminator=for_discriminator)

    def extra_repr(self) -> str:
        """The mode."""
        return f"gan_mode={self.gan_mode}"
