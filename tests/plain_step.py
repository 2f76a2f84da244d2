"""One iteration of pix2pix in plain PyTorch: spec sections 4.1 to 4.3, 4.6 and 5.1, line by line."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def plain_gan_loss(mode: str, prediction: Tensor, real: bool, for_discriminator: bool = True) -> Tensor:
    target = torch.full_like(prediction, float(real))
    if mode == "vanilla":
        return F.binary_cross_entropy_with_logits(prediction, target)
    if mode == "lsgan":
        return F.mse_loss(prediction, target)
    if mode == "hinge" and for_discriminator:
        return F.relu(1 - prediction if real else 1 + prediction).mean()
    return -prediction.mean() if real else prediction.mean()


def plain_penalty(D: nn.Module, real: Tensor, fake: Tensor, generator: torch.Generator) -> Tensor:
    share = torch.rand(len(real), 1, 1, 1, generator=generator).to(real)
    between = (share * real + (1 - share) * fake).requires_grad_()
    (gradient,) = torch.autograd.grad(D(between).sum(), between, create_graph=True)
    lengths = ((gradient + 1e-16) ** 2).sum(dim=(1, 2, 3)).sqrt()
    return 10 * ((lengths - 1) ** 2).mean()


def plain_step(
    G: nn.Module,
    D: nn.Module,
    optimizer_G: torch.optim.Optimizer,
    optimizer_D: torch.optim.Optimizer,
    A: Tensor,
    B: Tensor,
    generator: torch.Generator,
    gan_mode: str = "vanilla",
    use_GAN: bool = True,
    use_L1: bool = True,
    condition_GAN: bool = True,
    pixel_loss: str = "l1",
    lambda_L1: float = 100.0,
) -> dict[str, Tensor]:
    """Spec section 5.1, line by line."""

    def seen(image: Tensor) -> Tensor:
        return torch.cat([A, image], 1) if condition_GAN else image

    losses = {}
    fake = G(A)
    if use_GAN:
        optimizer_D.zero_grad()
        prediction_fake = D(seen(fake).detach())
        prediction_real = D(seen(B))
        losses["D_fake"] = plain_gan_loss(gan_mode, prediction_fake, False)
        losses["D_real"] = plain_gan_loss(gan_mode, prediction_real, True)
        loss_D = 0.5 * (losses["D_fake"] + losses["D_real"])
        if gan_mode == "wgangp":
            losses["D_GP"] = plain_penalty(D, seen(B), seen(fake).detach(), generator)
            loss_D = loss_D + losses["D_GP"]
        loss_D.backward()
        optimizer_D.step()
    optimizer_G.zero_grad()
    loss_G = torch.zeros((), dtype=A.dtype)
    if use_GAN:
        losses["G_GAN"] = plain_gan_loss(gan_mode, D(seen(fake)), True, for_discriminator=False)
        loss_G = loss_G + losses["G_GAN"]
    if use_L1:
        difference = fake - B
        mean = difference.abs().mean() if pixel_loss == "l1" else (difference**2).mean()
        losses["G_L1"] = lambda_L1 * mean
        loss_G = loss_G + losses["G_L1"]
    loss_G.backward()
    optimizer_G.step()
    return {name: loss.detach() for name, loss in losses.items()}
