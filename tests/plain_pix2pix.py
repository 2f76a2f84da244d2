"""The pix2pix networks in plain PyTorch, layer by layer as spec sections 2.2 to 3.1 list them."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

NORMS = ("batch", "instance", "none")


def norm_layer(norm: str, channels: int) -> nn.Module:
    layers = {"batch": nn.BatchNorm2d, "instance": nn.InstanceNorm2d}
    return layers[norm](channels) if norm in layers else nn.Identity()


class PlainUnetLevel(nn.Module):
    """Level 0 has ``ends``, its input_nc and output_nc; the others concatenate their input and the way up."""

    def __init__(self, outer, inner, inside, norm, dropout, skip_first, ends=None):
        super().__init__()
        self.outermost, self.skip_first = ends is not None, skip_first
        bias = norm == "instance"
        input_nc, output_nc = ends or (outer, outer)
        down = nn.Conv2d(input_nc, inner, 4, 2, 1, bias=bias)
        up_nc = inner if inside is None else 2 * inner
        up = nn.ConvTranspose2d(up_nc, output_nc, 4, 2, 1, bias=bias or self.outermost)
        if self.outermost:
            layers = [down, inside, nn.ReLU(True), up, nn.Tanh()]
        elif inside is None:
            layers = [nn.LeakyReLU(0.2, True), down, nn.ReLU(True), up, norm_layer(norm, outer)]
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
    def __init__(self, input_nc, output_nc, levels, ngf, norm, dropout_levels=(), skip_first=True):
        super().__init__()
        widths = [ngf * min(2**level, 8) for level in range(levels)]
        block = None
        for level in range(levels - 1, 0, -1):
            drop = level in dropout_levels
            block = PlainUnetLevel(widths[level - 1], widths[level], block, norm, drop, skip_first)
        self.model = PlainUnetLevel(None, ngf, block, norm, False, skip_first, ends=(input_nc, output_nc))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class PlainEncoderDecoder(nn.Sequential):
    def __init__(self, input_nc, output_nc, ngf, norm, dropout=False):
        bias = norm == "instance"
        widths = [ngf * width for width in (1, 2, 4, 8, 8, 8, 8, 8)]
        layers = [nn.Conv2d(input_nc, ngf, 4, 2, 1, bias=bias)]
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
    def __init__(self, channels, norm, padding_type, dropout):
        super().__init__()
        pads = {"reflect": [nn.ReflectionPad2d(1)], "replicate": [nn.ReplicationPad2d(1)], "zero": []}
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
    def __init__(self, input_nc, output_nc, ngf, norm, n_blocks, padding_type="reflect", dropout=False):
        super().__init__()
        bias = norm == "instance"
        layers = [
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
            conv = nn.ConvTranspose2d(width, width // 2, 3, 2, 1, output_padding=1, bias=bias)
            layers += [conv, norm_layer(norm, width // 2), nn.ReLU()]
        self.model = nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(ngf, output_nc, 7), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class PlainPatchDiscriminator(nn.Module):
    def __init__(self, input_nc, ndf, n_layers, norm):
        super().__init__()
        bias = norm == "instance"
        widths = [ndf * min(2**layer, 8) for layer in range(n_layers + 1)]
        layers = [nn.Conv2d(input_nc, ndf, 4, 2, 1), nn.LeakyReLU(0.2)]
        for layer in range(1, n_layers + 1):
            stride = 2 if layer < n_layers else 1
            conv = nn.Conv2d(widths[layer - 1], widths[layer], 4, stride, 1, bias=bias)
            layers += [conv, norm_layer(norm, widths[layer]), nn.LeakyReLU(0.2)]
        self.model = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class PlainPixelDiscriminator(nn.Module):
    def __init__(self, input_nc, ndf, norm):
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


def layout(net: nn.Module) -> list[tuple[str, tuple[int, ...]]]:
    """Every entry of the state_dict, in its order."""
    return [(name, tuple(value.shape)) for name, value in net.state_dict().items()]


def parameter_count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def randomise(net: nn.Module, seed: int = 0) -> None:
    """Weights, biases and running statistics of ordinary sizes: nothing hides behind a zero or a one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in net.state_dict().items():
            if name.endswith("num_batches_tracked"):
                continue
            if name.endswith("running_var") or (value.dim() == 1 and name.endswith("weight")):
                value.uniform_(0.5, 1.5, generator=generator)
            else:
                fan_in = value[0].numel() if value.dim() == 4 else 1
                value.normal_(0, 1.0 / fan_in**0.5, generator=generator)


def assert_close(ours: Tensor, theirs: Tensor, what: str, at_least: float = 0.0) -> None:
    """Equal up to 1e-10 of the largest value, or of ``at_least`` where that is larger."""
    scale = max(theirs.abs().max().item(), at_least)
    error = (ours - theirs).abs().max().item()
    assert error <= 1e-10 * scale, f"{what} is off by {error:.1e} where values reach {scale:.1e}"


def assert_same_function(ours: nn.Module, theirs: nn.Module, x: Tensor) -> None:
    """Same outputs, gradients and buffers, in float64, from the same weights and the same dropout masks.

    The entries are paired by their order, which every state_dict of ours shares with the plain network.
    """
    randomise(theirs)
    entries = zip(ours.state_dict(), theirs.state_dict().values(), strict=True)
    ours.load_state_dict(dict(entries))
    outputs, gradients = [], []
    for net in (ours, theirs):
        torch.manual_seed(1)
        image = x.clone().requires_grad_()
        y = net(image)
        net.zero_grad()
        (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape)).sum().backward()
        outputs.append(y.detach())
        gradients.append([image.grad, *(parameter.grad for parameter in net.parameters())])
    assert outputs[1].std() > 1e-3
    assert_close(outputs[0], outputs[1], "output")
    names = ["input", *(name for name, _ in theirs.named_parameters())]
    # The gradient of a bias in front of an instance norm is zero: rounding noise there, and none at all here.
    noise = 1e-3 * max(gradient.abs().max().item() for gradient in gradients[1])
    for name, mine, plain in zip(names, *gradients, strict=True):
        assert_close(torch.zeros_like(plain) if mine is None else mine, plain, f"gradient of {name}", at_least=noise)
    for (name, mine), plain in zip(ours.named_buffers(), theirs.buffers(), strict=True):
        assert_close(mine.double(), plain.double(), name)
