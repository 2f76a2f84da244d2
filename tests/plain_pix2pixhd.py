"""pix2pixHD in plain PyTorch: its networks, layer by layer, and one iteration, line by line.

Spec sections 2.5 to 2.7, 3.2, 3.3, 4.4, 4.5, 5.2, 6.4 and 7.1.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from plain_pix2pix import PlainResidualBlock
from plain_step import plain_gan_loss
from torch import Tensor, nn


def norm_layer(norm: str, channels: int) -> nn.Module:
    return {"batch": nn.BatchNorm2d, "instance": nn.InstanceNorm2d}[norm](channels)


def block(channels: int, norm: str) -> nn.Module:
    """The residual block of pix2pixHD: its convolutions have a bias, batch norm or not."""
    made = PlainResidualBlock(channels, norm, "reflect", False)
    for index in (1, 5):
        made.conv_block[index] = nn.Conv2d(channels, channels, 3)
    return made


def down(width: int, norm: str) -> list[nn.Module]:
    return [nn.Conv2d(width, 2 * width, 3, 2, 1), norm_layer(norm, 2 * width), nn.ReLU()]


def up(width: int, norm: str) -> list[nn.Module]:
    conv = nn.ConvTranspose2d(width, width // 2, 3, 2, 1, output_padding=1)
    return [conv, norm_layer(norm, width // 2), nn.ReLU()]


def stem(input_nc: int, width: int, norm: str) -> list[nn.Module]:
    return [nn.ReflectionPad2d(3), nn.Conv2d(input_nc, width, 7), norm_layer(norm, width), nn.ReLU()]


def head(width: int, output_nc: int) -> list[nn.Module]:
    return [nn.ReflectionPad2d(3), nn.Conv2d(width, output_nc, 7), nn.Tanh()]


def hourglass(input_nc: int, ngf: int, halvings: int, n_blocks: int, norm: str) -> list[nn.Module]:
    layers = stem(input_nc, ngf, norm)
    for level in range(halvings):
        layers += down(ngf * 2**level, norm)
    layers += [block(ngf * 2**halvings, norm) for _ in range(n_blocks)]
    for level in range(halvings, 0, -1):
        layers += up(ngf * 2**level, norm)
    return layers


def halved(x: Tensor) -> Tensor:
    return nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False)(x)


class PlainGlobal(nn.Module):
    def __init__(self, input_nc, output_nc, ngf=64, halvings=4, n_blocks=9, norm="instance"):
        super().__init__()
        self.model = nn.Sequential(*hourglass(input_nc, ngf, halvings, n_blocks, norm), *head(ngf, output_nc))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class PlainLocal(nn.Module):
    def __init__(
        self, input_nc, output_nc, ngf=32, halvings=4, n_blocks=9, enhancers=1, n_blocks_local=3, norm="instance"
    ):
        super().__init__()
        self.enhancers = enhancers
        self.model = nn.Sequential(*hourglass(input_nc, ngf * 2**enhancers, halvings, n_blocks, norm))
        for n in range(1, enhancers + 1):
            width = ngf * 2 ** (enhancers - n)
            front = stem(input_nc, width, norm) + down(width, norm)
            back = [block(2 * width, norm) for _ in range(n_blocks_local)] + up(2 * width, norm)
            if n == enhancers:
                back += head(width, output_nc)
            setattr(self, f"model{n}_1", nn.Sequential(*front))
            setattr(self, f"model{n}_2", nn.Sequential(*back))

    def forward(self, x: Tensor) -> Tensor:
        levels = [x]
        for _ in range(self.enhancers):
            levels.append(halved(levels[-1]))
        out = self.model(levels[-1])
        for n in range(1, self.enhancers + 1):
            front, back = getattr(self, f"model{n}_1"), getattr(self, f"model{n}_2")
            out = back(front(levels[self.enhancers - n]) + out)
        return out


def plain_pool(x: Tensor, ids: Tensor) -> Tensor:
    """The mean over the pixels of each id, sample by sample."""
    pooled = torch.zeros_like(x)
    for sample, plane in enumerate(ids[:, 0]):
        for i in plane.unique():
            mask = plane == i
            mean = (x[sample] * mask).sum((1, 2)) / mask.sum()
            pooled[sample] = pooled[sample] + mean[:, None, None] * mask
    return pooled


class PlainEncoder(nn.Module):
    def __init__(self, input_nc, output_nc, ngf=16, halvings=4, norm="instance"):
        super().__init__()
        self.model = nn.Sequential(*hourglass(input_nc, ngf, halvings, 0, norm), *head(ngf, output_nc))

    def forward(self, image: Tensor, ids: Tensor) -> Tensor:
        return plain_pool(self.model(image), ids)


def plain_groups(input_nc: int, ndf: int, n_layers: int, norm: str) -> list[list[nn.Module]]:
    padding = math.ceil((4 - 1) / 2)
    widths = [ndf]
    for _ in range(n_layers):
        widths.append(min(2 * widths[-1], 512))
    groups = [[nn.Conv2d(input_nc, ndf, 4, 2, padding), nn.LeakyReLU(0.2)]]
    for layer in range(1, n_layers + 1):
        conv = nn.Conv2d(widths[layer - 1], widths[layer], 4, 2 if layer < n_layers else 1, padding)
        groups.append([conv, norm_layer(norm, widths[layer]), nn.LeakyReLU(0.2)])
    return [*groups, [nn.Conv2d(widths[-1], 1, 4, 1, padding)]]


class PlainMultiscale(nn.Module):
    def __init__(self, input_nc, ndf=64, n_layers=3, num_D=2, norm="instance", features=True):
        super().__init__()
        self.n_layers, self.num_D, self.features = n_layers, num_D, features
        for scale in range(num_D):
            groups = plain_groups(input_nc, ndf, n_layers, norm)
            if features:
                for layer, group in enumerate(groups):
                    setattr(self, f"scale{scale}_layer{layer}", nn.Sequential(*group))
            else:
                setattr(self, f"layer{scale}", nn.Sequential(*[module for group in groups for module in group]))

    def forward(self, x: Tensor) -> list[list[Tensor]]:
        result = []
        for scale in reversed(range(self.num_D)):
            if self.features:
                found = [x]
                for layer in range(self.n_layers + 2):
                    found.append(getattr(self, f"scale{scale}_layer{layer}")(found[-1]))
                result.append(found[1:])
            else:
                result.append([getattr(self, f"layer{scale}")(x)])
            x = halved(x)
        return result


class PlainVGG19(nn.Module):
    """torchvision's ``vgg19().features``, and the outputs after 1, 6, 11, 20 and 29; ``width`` 64 is the real one."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for multiple, count in ((1, 2), (2, 2), (4, 4), (8, 4), (8, 4)):
            for _ in range(count):
                layers += [nn.Conv2d(channels, width * multiple, 3, padding=1), nn.ReLU()]
                channels = width * multiple
            layers.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> list[Tensor]:
        found = []
        for index, layer in enumerate(self.features[:30]):
            x = layer(x)
            if index in (1, 6, 11, 20, 29):
                found.append(x)
        return found


def plain_edges(ids: Tensor) -> Tensor:
    edge = torch.zeros(ids.shape, dtype=torch.bool)
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
    nets: dict[str, nn.Module],
    optimizer_G: torch.optim.Optimizer,
    optimizer_D: torch.optim.Optimizer,
    batch: dict[str, Tensor],
    label_nc: int,
    n_layers_D: int,
    num_D: int,
    pool,
    no_instance: bool = False,
    label_feat: bool = False,
    gan_mode: str = "lsgan",
    lambda_feat: float = 10.0,
    no_ganFeat_loss: bool = False,
) -> dict[str, Tensor]:
    """Spec section 5.2, line by line: three passes through D, both losses, G (and E), then D."""
    G, D, E, vgg = (nets.get(name) for name in ("G", "D", "E", "vgg"))
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

    def gan(predictions, is_real, for_discriminator=True):
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
