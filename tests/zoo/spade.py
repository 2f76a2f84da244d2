"""A residual generator whose norms are modulated by a label map, with spectral norm on its convolutions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import spectral_norm as hooked_spectral_norm
from torch.nn.utils.parametrizations import spectral_norm


class ModulatedNorm(nn.Module):
    """A parameter-free norm, scaled and shifted by what two convolutions make of the labels."""

    def __init__(self, channels: int, labels: int, hidden: int) -> None:
        super().__init__()
        self.param_free_norm = nn.InstanceNorm2d(channels, affine=False)
        self.mlp_shared = nn.Sequential(nn.Conv2d(labels, hidden, 3, padding=1), nn.ReLU())
        self.mlp_gamma = nn.Conv2d(hidden, channels, 3, padding=1)
        self.mlp_beta = nn.Conv2d(hidden, channels, 3, padding=1)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        normalized = self.param_free_norm(x)
        shared = self.mlp_shared(F.interpolate(labels, size=x.shape[2:], mode="nearest"))
        return normalized * (1 + self.mlp_gamma(shared)) + self.mlp_beta(shared)


class ModulatedBlock(nn.Module):
    """A residual block of two modulated norms and two convolutions under spectral norm, of the new and the old kind."""

    def __init__(self, before: int, after: int, labels: int, hidden: int) -> None:
        super().__init__()
        self.conv_0 = spectral_norm(nn.Conv2d(before, after, 3, padding=1))
        self.conv_1 = hooked_spectral_norm(nn.Conv2d(after, after, 3, padding=1))
        self.conv_s = spectral_norm(nn.Conv2d(before, after, 1, bias=False))
        self.norm_0 = ModulatedNorm(before, labels, hidden)
        self.norm_1 = ModulatedNorm(after, labels, hidden)
        self.norm_s = ModulatedNorm(before, labels, hidden)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        shortcut = self.conv_s(self.norm_s(x, labels))
        h = self.conv_0(F.leaky_relu(self.norm_0(x, labels), 0.2))
        return shortcut + self.conv_1(F.leaky_relu(self.norm_1(h, labels), 0.2))


class SpadeLike(nn.Module):
    """One-hot labels (N, labels, H, W) to images (N, 3, H, W); H and W multiples of 4."""

    def __init__(self, labels: int, width: int, hidden: int) -> None:
        super().__init__()
        self.fc = nn.Conv2d(labels, 2 * width, 3, padding=1)
        self.head_0 = ModulatedBlock(2 * width, 2 * width, labels, hidden)
        self.up = nn.Upsample(scale_factor=2)
        self.up_0 = ModulatedBlock(2 * width, width, labels, hidden)
        self.up_1 = ModulatedBlock(width, width, labels, hidden)
        self.to_image = nn.Sequential(nn.LeakyReLU(0.2), nn.Conv2d(width, 3, 3, padding=1), nn.Tanh())

    def forward(self, labels: Tensor) -> Tensor:
        x = self.fc(F.interpolate(labels, scale_factor=0.25, mode="nearest"))
        x = self.head_0(x, labels)
        x = self.up_0(self.up(x), labels)
        x = self.up_1(self.up(x), labels)
        return self.to_image(x)


class SpadeDiscriminator(nn.Module):
    """A PatchGAN: Sequentials of a spectrally normed convolution inside a Sequential with its norm, and LeakyReLU."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.model0 = nn.Sequential(nn.Conv2d(channels, width, 4, 2, 2), nn.LeakyReLU(0.2, False))
        for layer, (before, after, stride) in enumerate(((width, 2 * width, 2), (2 * width, 4 * width, 1)), 1):
            conv = spectral_norm(nn.Conv2d(before, after, 4, stride, 2, bias=False))
            inner = nn.Sequential(conv, nn.InstanceNorm2d(after, affine=False))
            self.add_module(f"model{layer}", nn.Sequential(inner, nn.LeakyReLU(0.2, False)))
        self.model3 = nn.Sequential(nn.Conv2d(4 * width, 1, 4, 1, 2))

    def forward(self, x: Tensor) -> list[Tensor]:
        found = [x]
        for part in self.children():
            found.append(part(found[-1]))
        return found[1:]


def one_hot_labels(count: int, labels: int, height: int, width: int) -> Tensor:
    """Random labels."""
    return F.one_hot(torch.randint(labels, (count, height, width)), labels).permute(0, 3, 1, 2).float()
