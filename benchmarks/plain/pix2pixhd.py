"""The networks of pix2pixHD in plain PyTorch, layer by layer (spec sections 2.5 to 2.7, 3.2, 3.3, 4.5)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .pix2pix import PlainResidualBlock


def norm_layer(norm: str, channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels) if norm == "batch" else nn.InstanceNorm2d(channels)


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
    """The global generator."""

    def __init__(
        self,
        input_nc: int,
        output_nc: int,
        ngf: int = 64,
        halvings: int = 4,
        n_blocks: int = 9,
        norm: str = "instance",
    ) -> None:
        super().__init__()
        self.model = nn.Sequential(*hourglass(input_nc, ngf, halvings, n_blocks, norm), *head(ngf, output_nc))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class PlainLocal(nn.Module):
    """The global generator without its head, and ``enhancers`` around it, each at twice the size."""

    def __init__(
        self,
        input_nc: int,
        output_nc: int,
        ngf: int = 32,
        halvings: int = 4,
        n_blocks: int = 9,
        enhancers: int = 1,
        n_blocks_local: int = 3,
        norm: str = "instance",
    ) -> None:
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
    """Features of an image, the mean of each instance at all its pixels."""

    def __init__(self, input_nc: int, output_nc: int, ngf: int = 16, halvings: int = 4, norm: str = "instance") -> None:
        super().__init__()
        self.model = nn.Sequential(*hourglass(input_nc, ngf, halvings, 0, norm), *head(ngf, output_nc))

    def forward(self, image: Tensor, ids: Tensor) -> Tensor:
        return plain_pool(self.model(image), ids)


def plain_groups(input_nc: int, ndf: int, n_layers: int, norm: str) -> list[list[nn.Module]]:
    padding = math.ceil((4 - 1) / 2)
    widths = [ndf]
    for _ in range(n_layers):
        widths.append(min(2 * widths[-1], 512))
    groups: list[list[nn.Module]] = [[nn.Conv2d(input_nc, ndf, 4, 2, padding), nn.LeakyReLU(0.2)]]
    for layer in range(1, n_layers + 1):
        conv = nn.Conv2d(widths[layer - 1], widths[layer], 4, 2 if layer < n_layers else 1, padding)
        groups.append([conv, norm_layer(norm, widths[layer]), nn.LeakyReLU(0.2)])
    return [*groups, [nn.Conv2d(widths[-1], 1, 4, 1, padding)]]


class PlainMultiscale(nn.Module):
    """``num_D`` patch discriminators, each at half the size of the one before; with the outputs of all layers."""

    def __init__(
        self,
        input_nc: int,
        ndf: int = 64,
        n_layers: int = 3,
        num_D: int = 2,
        norm: str = "instance",
        features: bool = True,
    ) -> None:
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
        for index, layer in enumerate(list(self.features)[:30]):
            x = layer(x)
            if index in (1, 6, 11, 20, 29):
                found.append(x)
        return found
