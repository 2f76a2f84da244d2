"""A super-resolution GAN: residual blocks with batch norm and PReLU, pixel shuffling; a discriminator for any size."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn


class ConvBNAct(nn.Sequential):
    """A Sequential of a class of its own, as many projects have one."""

    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(before, after, 3, stride, 1, bias=False),
            nn.BatchNorm2d(after),
            nn.LeakyReLU(0.2, inplace=True),
        )


class SRResidual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.PReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x)


class SRGenerator(nn.Module):
    """(N, 3, H, W) to (N, 3, 2H, 2W)."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.initial = nn.Sequential(nn.Conv2d(3, width, 9, padding=4), nn.PReLU())
        self.residuals = nn.Sequential(*[SRResidual(width) for _ in range(blocks)])
        self.after = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
        self.up = nn.Sequential(nn.Conv2d(width, 4 * width, 3, padding=1), nn.PixelShuffle(2), nn.PReLU())
        self.final = nn.Conv2d(width, 3, 9, padding=4)

    def forward(self, x: Tensor) -> Tensor:
        initial = self.initial(x)
        return self.final(self.up(initial + self.after(self.residuals(initial)))).tanh()


class SRDiscriminator(nn.Module):
    """Images of any size to one logit each, (N, 1)."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, widths[0], 3, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
            *[ConvBNAct(before, after, 2) for before, after in pairwise(widths)],
        )
        self.judge = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(widths[-1], 2 * widths[-1], 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * widths[-1], 1, 1),
            nn.Flatten(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.judge(self.features(x))
