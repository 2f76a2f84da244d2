"""The networks of pix2pix in plain PyTorch, layer by layer (spec sections 2.2 to 3.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

NORMS = ("batch", "instance", "none")


def norm_layer(norm: str, channels: int) -> nn.Module:
    layers: dict[str, Callable[[int], nn.Module]] = {"batch": nn.BatchNorm2d, "instance": nn.InstanceNorm2d}
    return layers[norm](channels) if norm in layers else nn.Identity()


class PlainUnetLevel(nn.Module):
    """Level 0 has ``ends``, its input_nc and output_nc; the others concatenate their input and the way up."""

    def __init__(
        self,
        outer: int,
        inner: int,
        inside: nn.Module | None,
        norm: str,
        dropout: bool,
        skip_first: bool,
        ends: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.outermost, self.skip_first = ends is not None, skip_first
        bias = norm == "instance"
        input_nc, output_nc = ends or (outer, outer)
        down = nn.Conv2d(input_nc, inner, 4, 2, 1, bias=bias)
        up_nc = inner if inside is None else 2 * inner
        up = nn.ConvTranspose2d(up_nc, output_nc, 4, 2, 1, bias=bias or self.outermost)
        layers: list[nn.Module]
        if inside is None:
            layers = [nn.LeakyReLU(0.2, True), down, nn.ReLU(True), up, norm_layer(norm, outer)]
        elif self.outermost:
            layers = [down, inside, nn.ReLU(True), up, nn.Tanh()]
        else:
            before = [nn.LeakyReLU(0.2, True), down, norm_layer(norm, inner)]
            layers = [*before, inside, nn.ReLU(True), up, norm_layer(norm, outer)]
        self.model = nn.Sequential(*layers, *([nn.Dropout(0.5)] if dropout else []))

    def forward(self, x: Tensor) -> Tensor:
        up = self.model(x)
        if self.outermost:
            return up
        return torch.cat([x, up] if self.skip_first else [up, x], 1)


class PlainUnet(nn.Module):
    """``levels`` halvings and as many doublings, with skips; ``skip_first`` is how the PyTorch version concatenates."""

    def __init__(
        self,
        input_nc: int,
        output_nc: int,
        levels: int,
        ngf: int,
        norm: str,
        dropout_levels: Sequence[int] = (),
        skip_first: bool = True,
    ) -> None:
        super().__init__()
        widths = [ngf * min(2**level, 8) for level in range(levels)]
        block: PlainUnetLevel | None = None
        for level in range(levels - 1, 0, -1):
            drop = level in dropout_levels
            block = PlainUnetLevel(widths[level - 1], widths[level], block, norm, drop, skip_first)
        self.model = PlainUnetLevel(0, ngf, block, norm, False, skip_first, ends=(input_nc, output_nc))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class PlainEncoderDecoder(nn.Sequential):
    """The U-Net without its skips, in the widths of the paper."""

    def __init__(self, input_nc: int, output_nc: int, ngf: int, norm: str, dropout: bool = False) -> None:
        bias = norm == "instance"
        widths = [ngf * width for width in (1, 2, 4, 8, 8, 8, 8, 8)]
        layers: list[nn.Module] = [nn.Conv2d(input_nc, ngf, 4, 2, 1, bias=bias)]
        for before, after in pairwise(widths[:7]):
            layers += [
                nn.LeakyReLU(0.2),
                nn.Conv2d(before, after, 4, 2, 1, bias=bias),
                norm_layer(norm, after),
            ]
        layers += [nn.LeakyReLU(0.2), nn.Conv2d(widths[6], widths[7], 4, 2, 1, bias=bias)]
        for step, (before, after) in enumerate(pairwise(widths[::-1])):
            layers += [
                nn.ReLU(),
                nn.ConvTranspose2d(before, after, 4, 2, 1, bias=bias),
                norm_layer(norm, after),
            ]
            layers += [nn.Dropout(0.5)] if dropout and step < 3 else []
        layers += [nn.ReLU(), nn.ConvTranspose2d(ngf, output_nc, 4, 2, 1), nn.Tanh()]
        super().__init__(*layers)


class PlainResidualBlock(nn.Module):
    """Two convolutions 3x3 around which x goes unchanged."""

    def __init__(self, channels: int, norm: str, padding_type: str, dropout: bool) -> None:
        super().__init__()
        pads: dict[str, list[nn.Module]] = {
            "reflect": [nn.ReflectionPad2d(1)],
            "replicate": [nn.ReplicationPad2d(1)],
            "zero": [],
        }
        padding, bias = int(padding_type == "zero"), norm == "instance"
        self.conv_block = nn.Sequential(
            *pads[padding_type],
            nn.Conv2d(channels, channels, 3, padding=padding, bias=bias),
            norm_layer(norm, channels),
            nn.ReLU(True),
            *([nn.Dropout(0.5)] if dropout else []),
            *pads[padding_type],
            nn.Conv2d(channels, channels, 3, padding=padding, bias=bias),
            norm_layer(norm, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


class PlainResnet(nn.Module):
    """Two halvings, ``n_blocks`` residual blocks, two doublings."""

    def __init__(
        self,
        input_nc: int,
        output_nc: int,
        ngf: int,
        norm: str,
        n_blocks: int,
        padding_type: str = "reflect",
        dropout: bool = False,
    ) -> None:
        super().__init__()
        bias = norm == "instance"
        layers: list[nn.Module] = [
            nn.ReflectionPad2d(3),
            nn.Conv2d(input_nc, ngf, 7, bias=bias),
            norm_layer(norm, ngf),
            nn.ReLU(),
        ]
        for width in (ngf, 2 * ngf):
            conv = nn.Conv2d(width, 2 * width, 3, 2, 1, bias=bias)
            layers += [conv, norm_layer(norm, 2 * width), nn.ReLU()]
        layers += [PlainResidualBlock(4 * ngf, norm, padding_type, dropout) for _ in range(n_blocks)]
        for width in (4 * ngf, 2 * ngf):
            up = nn.ConvTranspose2d(width, width // 2, 3, 2, 1, output_padding=1, bias=bias)
            layers += [up, norm_layer(norm, width // 2), nn.ReLU()]
        self.model = nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(ngf, output_nc, 7), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class PlainPatchDiscriminator(nn.Module):
    """A decision for every patch, whose size ``n_layers`` says."""

    def __init__(self, input_nc: int, ndf: int, n_layers: int, norm: str) -> None:
        super().__init__()
        bias = norm == "instance"
        widths = [ndf * min(2**layer, 8) for layer in range(n_layers + 1)]
        layers: list[nn.Module] = [nn.Conv2d(input_nc, ndf, 4, 2, 1), nn.LeakyReLU(0.2)]
        for layer in range(1, n_layers + 1):
            stride = 2 if layer < n_layers else 1
            conv = nn.Conv2d(widths[layer - 1], widths[layer], 4, stride, 1, bias=bias)
            layers += [conv, norm_layer(norm, widths[layer]), nn.LeakyReLU(0.2)]
        self.model = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class PlainPixelDiscriminator(nn.Module):
    """A decision for every pixel."""

    def __init__(self, input_nc: int, ndf: int, norm: str) -> None:
        super().__init__()
        bias = norm == "instance"
        self.net = nn.Sequential(
            nn.Conv2d(input_nc, ndf, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(ndf, 2 * ndf, 1, bias=bias),
            norm_layer(norm, 2 * ndf),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * ndf, 1, 1, bias=bias),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)
