"""Networks as other projects write them: eight families, in the usual PyTorch form, small.

The pix2pix and pix2pixHD ones are those that the networks of the package are held against.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.plain.pix2pix import PlainPatchDiscriminator, PlainResnet, PlainUnet
from benchmarks.plain.pix2pixhd import PlainEncoder, PlainGlobal, PlainLocal, PlainMultiscale
from zoo.dcgan import DCGANDiscriminator, DCGANGenerator
from zoo.nnunet import PlainConvUNet
from zoo.spade import SpadeDiscriminator, SpadeLike, one_hot_labels
from zoo.style_transfer import StyleNet
from zoo.super_resolution import SRDiscriminator, SRGenerator


@dataclass(frozen=True)
class Exhibit:
    """A network of the zoo.

    Attributes:
        make: builds it, so many channels wide.
        inputs: what it is called with, so many times as high and wide as the smallest that is of use.
        runs: the runs that ``fuse`` finds in it.
    """

    make: Callable[[int], nn.Module]
    inputs: Callable[[int], tuple[Tensor, ...]]
    runs: int

    def small(self) -> tuple[nn.Module, tuple[Tensor, ...]]:
        """The network and its inputs as the tests use them, the same at every call."""
        torch.manual_seed(1)
        return self.make(8), self.inputs(1)


def images(count: int, channels: int, height: int, width: int) -> Callable[[int], tuple[Tensor, ...]]:
    """Random images in [-1, 1]."""
    return lambda scale: (torch.rand(count, channels, scale * height, scale * width) * 2 - 1,)


def codes(count: int, channels: int) -> Callable[[int], tuple[Tensor, ...]]:
    """Random vectors."""
    return lambda scale: (torch.randn(count, channels, 1, 1),)


def labels(count: int, kinds: int, size: int) -> Callable[[int], tuple[Tensor, ...]]:
    """Random one-hot labels."""
    return lambda scale: (one_hot_labels(count, kinds, scale * size, scale * size),)


def image_and_ids(size: int) -> Callable[[int], tuple[Tensor, ...]]:
    """A random image and random instances."""
    shape = (2, 1, size, size)
    return lambda scale: (*images(2, 3, size, size)(scale), torch.randint(4, shape).repeat(1, 1, scale, scale))


ZOO: dict[str, Exhibit] = {
    "pix2pix_unet": Exhibit(lambda w: PlainUnet(3, 3, 6, w, "batch", (4,)), images(2, 3, 64, 64), 11),
    "pix2pix_unet_instance": Exhibit(lambda w: PlainUnet(3, 3, 6, w, "instance", (4,)), images(2, 3, 64, 64), 11),
    "pix2pix_resnet": Exhibit(lambda w: PlainResnet(3, 3, w, "instance", 3, dropout=True), images(2, 3, 32, 32), 12),
    "pix2pix_patchgan": Exhibit(lambda w: PlainPatchDiscriminator(6, w, 3, "batch"), images(2, 6, 64, 64), 4),
    "pix2pixhd_global": Exhibit(lambda w: PlainGlobal(6, 3, w, 3, 3), images(2, 6, 32, 64), 14),
    "pix2pixhd_local": Exhibit(lambda w: PlainLocal(6, 3, w // 2, 2, 2), images(2, 6, 32, 64), 19),
    "pix2pixhd_encoder": Exhibit(lambda w: PlainEncoder(3, 3, w, 3), image_and_ids(32), 8),
    "pix2pixhd_discriminator": Exhibit(lambda w: PlainMultiscale(9, w, 3, 2), images(2, 9, 64, 64), 8),
    "dcgan_generator": Exhibit(lambda w: DCGANGenerator(16, 3, (4 * w, 2 * w, w)), codes(4, 16), 4),
    "dcgan_discriminator": Exhibit(lambda w: DCGANDiscriminator(3, (w, 2 * w, 4 * w)), images(4, 3, 32, 32), 3),
    "spade_generator": Exhibit(lambda w: SpadeLike(5, w, w), labels(2, 5, 32), 19),
    "spade_discriminator": Exhibit(lambda w: SpadeDiscriminator(8, w), images(2, 8, 32, 32), 3),
    "nnunet": Exhibit(lambda w: PlainConvUNet(1, 3, (w, 2 * w, 4 * w), dropout=0.1), images(2, 1, 32, 32), 10),
    "style_transfer": Exhibit(lambda w: StyleNet(w, 2), images(2, 3, 32, 32), 9),
    "super_resolution_generator": Exhibit(lambda w: SRGenerator(w, 2), images(2, 3, 16, 16), 5),
    "super_resolution_discriminator": Exhibit(lambda w: SRDiscriminator((w, 2 * w, 4 * w)), images(4, 3, 32, 32), 4),
}
