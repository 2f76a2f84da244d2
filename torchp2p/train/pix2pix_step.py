"""One training step of pix2pix (spec sections 4.1 to 4.3, 4.6, 5.1), usable without the trainer."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchp2p import ops
from torchp2p.models.discriminator import ConditionalDiscriminator
from torchp2p.models.padding import run_padded
from torchp2p.nn import GANLoss, separate_statistics
from torchp2p.train.arguments import require_lean, require_network, required
from torchp2p.train.lean import Lean
from torchp2p.train.optimisers import adam, set_lr
from torchp2p.train.pool import ImagePool

PRECISIONS: dict[str, torch.dtype | None] = {"float32": None, "bfloat16": torch.bfloat16}
PIXEL_LOSSES = {"l1": F.l1_loss, "l2": F.mse_loss}


class Pix2PixStep:
    """D is stepped on the detached fake and the real image, then G against the updated D.

    ``step(batch)`` runs one iteration and returns the losses under the names of the original: ``G_GAN``,
    ``G_L1`` (already times ``lambda_L1``), ``D_real`` and ``D_fake`` (not halved), and ``D_GP`` with
    ``wgangp``; those in use, as scalars on the device. ``step.fake`` is the image that G made. Nothing is read
    back to the host.

    The mathematics are those of the original, without work that it throws away. Besides the savings that Lean lists,
    which need a D of ``torchp2p.models`` without hooks and parametrisations, no gradient is taken of the images when D
    is trained, nor of D's weights for G's loss, and gradients are written over, never added to.

    Args:
        G: generator, any module from (N, C, H, W) to an image of that size; images of any size are padded to
            its ``size_multiple``, if it has one.
        D: discriminator of ``cat(A, image)`` (of the image alone without ``condition_GAN``) that returns raw
            patch decisions; None with ``use_GAN=False``.
        precision: ``float32``, or ``bfloat16`` for autocast (parameters, statistics and losses stay float32).
        gan_mode: ``vanilla``, ``lsgan``, ``hinge``, or ``wgangp``, which adds the gradient penalty.
        use_GAN, use_L1, condition_GAN: the ablations of the paper.
        pixel_loss: ``l1`` or ``l2`` (mean squared difference), weighted by ``lambda_L1``.
        pool_size: earlier fakes that D may be shown instead of the newest.
        lr, beta1: of Adam, where no optimiser is given.
        optimizer_G, optimizer_D: used instead of Adam(lr, (beta1, 0.999)).
        lean: which work is saved; all that leaves the results the same, unless told otherwise.
        seed: of the pool and the gradient penalty.

    Raises:
        TypeError: a network that is no Module, a lean that is no Lean.
        ValueError: an unknown precision, mode or loss, no loss at all, or no D with ``use_GAN``. In a step: no A or B,
            or of different sizes.
    """

    def __init__(
        self,
        G: nn.Module,
        D: nn.Module | None,
        *,
        precision: str = "float32",
        gan_mode: str = "vanilla",
        use_GAN: bool = True,
        use_L1: bool = True,
        condition_GAN: bool = True,
        pixel_loss: str = "l1",
        lambda_L1: float = 100.0,
        pool_size: int = 0,
        lr: float = 2e-4,
        beta1: float = 0.5,
        optimizer_G: torch.optim.Optimizer | None = None,
        optimizer_D: torch.optim.Optimizer | None = None,
        lean: Lean = Lean(),
        seed: int = 0,
    ) -> None:
        for name, value, choices in (
            ("precision", precision, PRECISIONS),
            ("pixel_loss", pixel_loss, PIXEL_LOSSES),
        ):
            if value not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
        require_network("G", G)
        require_network("D", D, optional=True)
        require_lean(lean)
        if not (use_GAN or use_L1):
            raise ValueError("use_GAN and use_L1 must not both be off: there would be no loss")
        if use_GAN and D is None:
            raise ValueError("D must be given with use_GAN=True, got None")
        self.G = G
        self.D = D if use_GAN else None
        self.use_L1, self.condition_GAN, self.lambda_L1, self.lean = use_L1, condition_GAN, lambda_L1, lean
        self.gan_loss = GANLoss(gan_mode)
        self.pixel_loss = PIXEL_LOSSES[pixel_loss]
        self.pool = ImagePool(pool_size, seed)
        self.autocast_dtype = PRECISIONS[precision]
        self.optimizer_G = optimizer_G or adam(G.parameters(), lr, beta1)
        self.optimizer_D = optimizer_D
        if self.D is not None and optimizer_D is None:
            self.optimizer_D = adam(self.D.parameters(), lr, beta1)
        self.penalty_generator = torch.Generator().manual_seed(seed)
        self.fake: Tensor | None = None

    def __call__(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One iteration on ``{"A": (N, C, H, W), "B": (N, C', H, W)}``, on the device of the networks."""
        with ops.algorithm(self.lean.algorithm):
            return self._step(required(batch, "A"), required(batch, "B"))

    def _step(self, A: Tensor, B: Tensor) -> dict[str, Tensor]:
        if (len(A), *A.shape[2:]) != (len(B), *B.shape[2:]):
            raise ValueError(f"B must be as many images as A of its size, {tuple(A.shape)}, got {tuple(B.shape)}")
        with self._autocast(A):
            fake = run_padded(self.G, A) if hasattr(self.G, "size_multiple") else self.G(A)
        losses: dict[str, Tensor] = {}
        if self.D is not None:
            losses |= self._step_D(self.D, A, B, fake)
        losses |= self._step_G(A, B, fake)
        self.fake = fake.detach()
        return losses

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of both optimisers."""
        set_lr(lr, self.optimizer_G, self.optimizer_D)

    def _step_D(self, D: nn.Module, A: Tensor, B: Tensor, fake: Tensor) -> dict[str, Tensor]:
        assert self.optimizer_D is not None
        D.requires_grad_(True)
        self.optimizer_D.zero_grad(set_to_none=True)
        # The pool and the penalty are about pairs: what D sees.
        seen_fake, seen_real = self.pool.query(self._seen(A, fake)), self._seen(A, B)
        with self._autocast(A):
            if self._shares(D) and self.pool.size == 0:
                prediction_fake, prediction_real = self._judge_both(D, self._beside(D, A), fake.detach(), B)
            else:
                prediction_fake, prediction_real = self._judge_both(D, D, seen_fake, seen_real)
        losses = {
            "D_real": self.gan_loss(prediction_real, True),
            "D_fake": self.gan_loss(prediction_fake, False),
        }
        total = 0.5 * (losses["D_fake"] + losses["D_real"])
        if self.gan_loss.gan_mode == "wgangp":
            losses["D_GP"] = self._gradient_penalty(D, seen_real, seen_fake)
            total = total + losses["D_GP"]
        total.backward()
        self.optimizer_D.step()
        return {name: loss.detach() for name, loss in losses.items()}

    def _step_G(self, A: Tensor, B: Tensor, fake: Tensor) -> dict[str, Tensor]:
        self.optimizer_G.zero_grad(set_to_none=True)
        losses: dict[str, Tensor] = {}
        if self.D is not None:
            self.D.requires_grad_(False)  # its weight gradients would be thrown away
            with self._autocast(A):
                if self._shares(self.D):
                    prediction = self._beside(self.D, A)(fake)
                else:
                    prediction = self.D(self._seen(A, fake))
            losses["G_GAN"] = self.gan_loss(prediction, True, for_discriminator=False)
        if self.use_L1:
            losses["G_L1"] = self.lambda_L1 * self.pixel_loss(fake.to(B.dtype), B)
        torch.stack(list(losses.values())).sum().backward()
        self.optimizer_G.step()
        return {name: loss.detach() for name, loss in losses.items()}

    def _seen(self, A: Tensor, image: Tensor) -> Tensor:
        """What D is shown: A first, then the image."""
        return torch.cat((A, image.to(A.dtype)), 1) if self.condition_GAN else image

    def _shares(self, D: nn.Module) -> bool:
        """Whether A goes through the first convolution of D by itself."""
        return self.lean.share_condition and self.condition_GAN and _as_built(D)

    def _beside(self, D: nn.Module, A: Tensor) -> Callable[[Tensor], Tensor]:
        """D as a function of one image, or several batches of it, each beside A."""
        assert isinstance(D, ConditionalDiscriminator)
        shared = D.share(A)
        return lambda image: D(image.to(A.dtype), shared)

    def _judge_both(
        self, D: nn.Module, judge: Callable[[Tensor], Tensor], fake: Tensor, real: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Of the fake and the real image, in this order: it is that of the running statistics of D."""
        if not (self.lean.one_batch and _as_built(D) and fake.shape == real.shape):  # the pool's may have another size
            return judge(fake), judge(real)
        with separate_statistics(D, 2):
            of_fake, of_real = judge(torch.cat((fake.to(real.dtype), real))).chunk(2)
        return of_fake, of_real

    def _gradient_penalty(self, D: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """10 (|dD/dx| - 1)^2 at a random point between the two, per sample (spec section 4.2)."""
        share = torch.rand(len(real), 1, 1, 1, generator=self.penalty_generator).to(real)
        between = (share * real + (1 - share) * fake).requires_grad_()
        prediction = D(between)
        (gradient,) = torch.autograd.grad(prediction.sum(), between, create_graph=True)
        norms = (gradient.flatten(1) + 1e-16).norm(2, dim=1)
        penalty: Tensor = 10.0 * (norms - 1).square().mean()
        return penalty

    def _autocast(self, like: Tensor) -> torch.autocast:
        return torch.autocast(like.device.type, self.autocast_dtype, enabled=self.autocast_dtype is not None)


def _as_built(D: nn.Module) -> bool:
    return isinstance(D, ConditionalDiscriminator) and D.is_as_built
