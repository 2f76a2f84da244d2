"""One iteration of pix2pix and one of pix2pixHD in plain PyTorch, line by line (spec sections 4, 5.1, 5.2, 6.4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

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
        D.requires_grad_(True)
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
    loss_G = torch.zeros((), dtype=A.dtype, device=A.device)
    if use_GAN:
        D.requires_grad_(False)
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


def plain_edges(ids: Tensor) -> Tensor:
    edge = torch.zeros(ids.shape, dtype=torch.bool, device=ids.device)
    across, along = ids[..., 1:] != ids[..., :-1], ids[..., 1:, :] != ids[..., :-1, :]
    edge[..., 1:] |= across
    edge[..., :-1] |= across
    edge[..., 1:, :] |= along
    edge[..., :-1, :] |= along
    return edge


def plain_one_hot(label: Tensor, label_nc: int) -> Tensor:
    return F.one_hot(label[:, 0].long(), label_nc).permute(0, 3, 1, 2)


VGG_WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1)


def plain_hd_step(
    nets: Mapping[str, Any],
    optimizer_G: torch.optim.Optimizer,
    optimizer_D: torch.optim.Optimizer,
    batch: Mapping[str, Tensor],
    label_nc: int,
    n_layers_D: int,
    num_D: int,
    pool: Callable[[Tensor], Tensor],
    no_instance: bool = False,
    label_feat: bool = False,
    gan_mode: str = "lsgan",
    lambda_feat: float = 10.0,
    no_ganFeat_loss: bool = False,
) -> dict[str, Tensor]:
    """Spec section 5.2, line by line: three passes through D, both losses, G (and E), then D."""
    G, D, E, vgg = nets["G"], nets["D"], nets.get("E"), nets.get("vgg")
    real = batch["image"]
    condition = plain_one_hot(batch["label"], label_nc).to(real) if label_nc else batch["label"]
    if not no_instance:
        condition = torch.cat([condition, plain_edges(batch["inst"]).to(real)], 1)
    seen = condition
    if E is not None:
        seen = torch.cat([seen, E(real, batch["label"] if label_feat else batch["inst"])], 1)
    elif "feat" in batch:
        seen = torch.cat([seen, batch["feat"]], 1)
    fake = G(seen)

    for_D = D(pool(torch.cat([condition, fake], 1).detach()))
    of_real = D(torch.cat([condition, real], 1))
    for_G = D(torch.cat([condition, fake], 1))

    def gan(predictions: list[list[Tensor]], is_real: bool, for_discriminator: bool = True) -> Any:
        maps = [scale[-1] for scale in predictions]
        return sum(plain_gan_loss(gan_mode, each, is_real, for_discriminator) for each in maps)

    losses = {"G_GAN": gan(for_G, True, False)}
    if not no_ganFeat_loss:
        losses["G_GAN_Feat"] = sum(
            lambda_feat * (1 / num_D) * (4 / (n_layers_D + 1)) * (fake_one - real_one.detach()).abs().mean()
            for fake_scale, real_scale in zip(for_G, of_real, strict=True)
            for fake_one, real_one in zip(fake_scale[:-1], real_scale[:-1], strict=True)
        )
    if vgg is not None:
        losses["G_VGG"] = lambda_feat * sum(
            weight * (fake_one - real_one.detach()).abs().mean()
            for weight, fake_one, real_one in zip(VGG_WEIGHTS, vgg(fake), vgg(real), strict=True)
        )
    loss_G = sum(losses.values())
    losses["D_real"], losses["D_fake"] = gan(of_real, True), gan(for_D, False)
    loss_D = (losses["D_fake"] + losses["D_real"]) * 0.5

    optimizer_G.zero_grad()
    loss_G.backward()
    optimizer_G.step()
    optimizer_D.zero_grad()
    loss_D.backward()
    optimizer_D.step()
    return {name: loss.detach() for name, loss in losses.items()}
