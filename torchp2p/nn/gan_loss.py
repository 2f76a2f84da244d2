"""``GANLoss``: the adversarial loss of both original projects, as one fused reduction."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from torchp2p import ops
from torchp2p.ops.gan_loss import MODES, Predictions, final_maps


class GANLoss(nn.Module):
    """Adversarial loss on raw discriminator outputs, see :func:`torchp2p.ops.gan_loss`.

    It takes the arguments of GANLoss in pix2pix and in pix2pixHD, so it replaces either by a change of import. It has
    no target tensors.

    Args:
        gan_mode: ``lsgan``, ``vanilla`` (with logits), ``hinge``, ``wgan``; ``wgangp`` means ``wgan``, its
            gradient penalty being a term of its own. A bool stands for ``use_lsgan``, which comes first in pix2pixHD.
        target_real_label, target_fake_label: what the discriminator should answer; other values than 1 and 0
            (smoothed labels) with ``lsgan`` and ``vanilla`` only. ``wgan`` has none, and they are not looked at.
        use_lsgan: as in pix2pixHD: True for ``lsgan``, False for ``vanilla``, on logits: the discriminator must not
            end in a sigmoid. A flat list of predictions is then, as there, the features of one discriminator, of
            which the last counts.
        tensor: accepted and not looked at, there being no target tensors.

    Raises:
        ValueError: an unknown mode, or labels that the mode does not have.
        TypeError: a label that is no number.
    """

    def __init__(
        self,
        gan_mode: str | bool = "lsgan",
        target_real_label: float = 1.0,
        target_fake_label: float = 0.0,
        tensor: Any = None,
        *,
        use_lsgan: bool | None = None,
    ) -> None:
        super().__init__()
        if isinstance(gan_mode, bool):
            use_lsgan = gan_mode
        if use_lsgan is not None:
            gan_mode = "lsgan" if use_lsgan else "vanilla"
        if gan_mode != "wgangp" and gan_mode not in MODES:
            raise ValueError(f"gan_mode must be one of {', '.join(MODES)}, wgangp, got {gan_mode!r}")
        for name, label in (("target_real_label", target_real_label), ("target_fake_label", target_fake_label)):
            if not isinstance(label, (int, float)):
                raise TypeError(f"{name} must be a number, got {type(label).__name__}")
        if gan_mode == "hinge" and (target_real_label, target_fake_label) != (1, 0):
            raise ValueError(f"hinge has no labels to change, got {target_real_label!r} and {target_fake_label!r}")
        self.gan_mode = gan_mode
        self.target_real_label = float(target_real_label)
        self.target_fake_label = float(target_fake_label)
        self.flat_list_is_features = use_lsgan is not None

    def forward(self, prediction: Predictions, target_is_real: bool, for_discriminator: bool = True) -> Tensor:
        """A scalar: mean over each map, summed over scales."""
        if self.flat_list_is_features and isinstance(prediction, (list, tuple)):
            features = [part for part in prediction if isinstance(part, Tensor)]
            prediction = features[-1] if features else prediction
        mode = "wgan" if self.gan_mode == "wgangp" else str(self.gan_mode)
        target = self.target_real_label if target_is_real else self.target_fake_label
        if mode in ("hinge", "wgan") or target == (1.0 if target_is_real else 0.0):
            return ops.gan_loss(prediction, target_is_real, mode, for_discriminator=for_discriminator)
        return self._towards(target, prediction, mode)

    def _towards(self, target: float, prediction: Predictions, mode: str) -> Tensor:
        """The loss for any label t, which both losses make of those for 1 and for 0.

        ``-t log s(p) - (1 - t) log(1 - s(p))`` is linear in t; ``(p - t)^2 = t (p - 1)^2 + (1 - t) p^2 - t (1 - t)``.
        """
        towards_real, towards_fake = (ops.gan_loss(prediction, is_real, mode) for is_real in (True, False))
        loss = target * towards_real + (1 - target) * towards_fake
        if mode == "lsgan":
            loss = loss - target * (1 - target) * len(final_maps(prediction))
        return loss

    def extra_repr(self) -> str:
        """The mode, and labels that are not 1 and 0."""
        labels = self.target_real_label, self.target_fake_label
        return f"gan_mode={self.gan_mode}" + ("" if labels == (1, 0) else f", labels={labels}")
