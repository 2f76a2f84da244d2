"""A 2-D U-Net for segmentation in the manner of nnU-Net: blocks of conv, dropout, instance norm, LeakyReLU."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn


class ConvDropoutNormReLU(nn.Module):
    """The layers under names of their own, and once more in the Sequential that runs them."""

    def __init__(self, before: int, after: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, 3, stride, padding=1, bias=True)
        self.dropout = nn.Dropout2d(dropout, inplace=True)
        self.norm = nn.InstanceNorm2d(after, eps=1e-5, affine=True)
        self.nonlin = nn.LeakyReLU(inplace=True)
        self.all_modules = nn.Sequential(self.conv, self.dropout, self.norm, self.nonlin)

    def forward(self, x: Tensor) -> Tensor:
        return self.all_modules(x)


class StackedConvBlocks(nn.Module):
    def __init__(self, count: int, before: int, after: int, stride: int, dropout: float) -> None:
        super().__init__()
        first = ConvDropoutNormReLU(before, after, stride, dropout)
        self.convs = nn.Sequential(first, *[ConvDropoutNormReLU(after, after, 1, dropout) for _ in range(count - 1)])

    def forward(self, x: Tensor) -> Tensor:
        return self.convs(x)


class PlainConvUNet(nn.Module):
    """(N, channels, H, W) to a list of segmentations, the full size first."""

    def __init__(self, channels: int, classes: int, widths: tuple[int, ...], dropout: float = 0.0) -> None:
        super().__init__()
        stages = [StackedConvBlocks(2, channels, widths[0], 1, dropout)]
        stages += [StackedConvBlocks(2, before, after, 2, dropout) for before, after in pairwise(widths)]
        self.encoder = nn.ModuleList(stages)
        upwards = list(pairwise(widths[::-1]))
        self.transpconvs = nn.ModuleList(nn.ConvTranspose2d(low, high, 2, 2) for low, high in upwards)
        self.decoder = nn.ModuleList(StackedConvBlocks(2, 2 * high, high, 1, dropout) for _, high in upwards)
        self.seg_layers = nn.ModuleList(nn.Conv2d(high, classes, 1) for _, high in upwards)

    def forward(self, x: Tensor) -> list[Tensor]:
        skips = []
        for stage in self.encoder:
            x = stage(x)
            skips.append(x)
        outputs = []
        for level, skip in enumerate(reversed(skips[:-1])):
            x = torch.cat((self.transpconvs[level](x), skip), 1)
            x = self.decoder[level](x)
            outputs.append(self.seg_layers[level](x))
        return outputs[::-1]
