"""What the pix2pixHD generators and the encoder are made of. Spec sections 2.1, 2.5 to 2.7.

Layers come as dictionaries from the index in the original layout to the module, as ``sequential`` takes them. Every
convolution has a bias. A 7x7 convolution pads by reflection itself, at the index that it had after its pad.
"""

from __future__ import annotations

from torch import nn

from torchp2p.models.layers import ResidualBlock
from torchp2p.nn import NormAct

NORMS = ("batch", "instance")

Layers = dict[str, nn.Module]


def stem(input_nc: int, ngf: int, norm: str) -> Layers:
    """The 7x7 convolution that begins every network, norm and ReLU, at indices 1 and 2."""
    return {"1": _conv7(input_nc, ngf), "2": NormAct(ngf, norm=norm, act="relu")}


def head(at: int, ngf: int, output_nc: int) -> Layers:
    """The 7x7 convolution that ends every network, at index ``at`` + 1 after its pad, and tanh."""
    return {f"{at + 1}": _conv7(ngf, output_nc), f"{at + 2}": NormAct(output_nc, norm="none", act="tanh")}


def down(at: int, width: int, norm: str) -> Layers:
    """Half the size and twice the channels: convolution, norm and ReLU from index ``at``."""
    conv = nn.Conv2d(width, 2 * width, 3, 2, 1)
    return {f"{at}": conv, f"{at + 1}": NormAct(2 * width, norm=norm, act="relu")}


def up(at: int, width: int, norm: str) -> Layers:
    """Twice the size and ``width`` channels of 2 ``width``: transposed convolution, norm and ReLU from index ``at``."""
    conv = nn.ConvTranspose2d(2 * width, width, 3, 2, 1, output_padding=1)
    return {f"{at}": conv, f"{at + 1}": NormAct(width, norm=norm, act="relu")}


def blocks(at: int, count: int, width: int, norm: str) -> Layers:
    """``count`` residual blocks from index ``at``."""
    return {f"{at + block}": ResidualBlock(width, norm=norm, bias=True) for block in range(count)}


def hourglass(input_nc: int, ngf: int, n_downsample: int, n_blocks: int, norm: str) -> Layers:
    """The stem, ``n_downsample`` down, ``n_blocks`` residual blocks, and as many up: back to ``ngf`` channels."""
    widths = [ngf * 2**level for level in range(n_downsample)]
    layers = stem(input_nc, ngf, norm)
    for level, width in enumerate(widths):
        layers |= down(4 + 3 * level, width, norm)
    at = 4 + 3 * n_downsample
    layers |= blocks(at, n_blocks, ngf * 2**n_downsample, norm)
    for level, width in enumerate(reversed(widths)):
        layers |= up(at + n_blocks + 3 * level, width, norm)
    return layers


def hourglass_end(n_downsample: int, n_blocks: int) -> int:
    """The index after the last one of such an hourglass."""
    return 4 + 6 * n_downsample + n_blocks


def _conv7(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 7, padding=3, padding_mode="reflect")
