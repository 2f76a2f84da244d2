"""A DCGAN: generator and discriminator are one Sequential each."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn


class DCGANGenerator(nn.Module):
    """(N, latent, 1, 1) to (N, channels, 8 * 2**len(widths) / 2, ...) in [-1, 1]."""

    def __init__(self, latent: int, channels: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        layers = [nn.ConvTranspose2d(latent, widths[0], 4, 1, 0, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU(True)]
        for before, after in pairwise(widths):
            layers += [
                nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(True),
            ]
        self.main = nn.Sequential(*layers, nn.ConvTranspose2d(widths[-1], channels, 4, 2, 1, bias=False), nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        return self.main(z)


class DCGANDiscriminator(nn.Module):
    """Images of 32x32 to one probability each; larger ones to one for every place."""

    def __init__(self, channels: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        layers = [nn.Conv2d(channels, widths[0], 4, 2, 1, bias=False), nn.LeakyReLU(0.2, inplace=True)]
        for before, after in pairwise(widths):
            layers += [
                nn.Conv2d(before, after, 4, 2, 1, bias=False),
                nn.BatchNorm2d(after),
                nn.LeakyReLU(0.2, inplace=True),
            ]
        self.main = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, 1, 0, bias=False), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return self.main(x).flatten(1)
