"""Networks as other projects write them: eight families, in the usual PyTorch form, small.

The pix2pix and pix2pixHD ones are those that the networks of the package are held against.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from plain_pix2pix import PlainPatchDiscriminator, PlainResnet, PlainUnet
from plain_pix2pixhd import PlainEncoder, PlainGlobal, PlainLocal, PlainMultiscale
from torch import Tensor, nn

from zoo.dcgan import DCGANDiscriminator, DCGANGenerator
from zoo.nnunet import PlainConvUNet
from zoo.spade import SpadeDiscriminator, SpadeLike, one_hot_labels
from zoo.style_transfer import StyleNet
from zoo.super_resolution import SRDiscriminator, SRGenerator


@dataclass(frozen=True)
class Exhibit:
    """A network of the zoo.

    Attributes:
        make: builds it.
        inputs: what it is called with.
        runs: the runs that ``fuse`` finds in it.
    """

    make: Callable[[], nn.Module]
    inputs: Callable[[], tuple[Tensor, ...]]
    runs: int


def images(count: int, channels: int, height: int, width: int) -> Callable[[], tuple[Tensor, ...]]:
    """Random images in [-1, 1]."""
    return lambda: (torch.rand(count, channels, height, width) * 2 - 1,)


def _image_and_ids() -> tuple[Tensor, ...]:
    return torch.rand(2, 3, 32, 32) * 2 - 1, torch.randint(4, (2, 1, 32, 32))


ZOO: dict[str, Exhibit] = {
    "pix2pix_unet": Exhibit(lambda: PlainUnet(3, 3, 6, 8, "batch", (4,)), images(2, 3, 64, 64), 11),
    "pix2pix_unet_instance": Exhibit(lambda: PlainUnet(3, 3, 6, 8, "instance", (4,)), images(2, 3, 64, 64), 11),
    "pix2pix_resnet": Exhibit(lambda: PlainResnet(3, 3, 8, "instance", 3, dropout=True), images(2, 3, 32, 32), 12),
    "pix2pix_patchgan": Exhibit(lambda: PlainPatchDiscriminator(6, 8, 3, "batch"), images(2, 6, 64, 64), 4),
    "pix2pixhd_global": Exhibit(lambda: PlainGlobal(6, 3, 8, 3, 3), images(2, 6, 32, 64), 14),
    "pix2pixhd_local": Exhibit(lambda: PlainLocal(6, 3, 4, 2, 2), images(2, 6, 32, 64), 19),
    "pix2pixhd_encoder": Exhibit(lambda: PlainEncoder(3, 3, 8, 3), _image_and_ids, 8),
    "pix2pixhd_discriminator": Exhibit(lambda: PlainMultiscale(9, 8, 3, 2), images(2, 9, 64, 64), 8),
    "dcgan_generator": Exhibit(lambda: DCGANGenerator(16, 3, (32, 16, 8)), images(4, 16, 1, 1), 4),
    "dcgan_discriminator": Exhibit(lambda: DCGANDiscriminator(3, (8, 16, 32)), images(4, 3, 32, 32), 3),
    "spade_generator": Exhibit(lambda: SpadeLike(5, 8, 8), lambda: (one_hot_labels(2, 5, 32, 32),), 19),
    "spade_discriminator": Exhibit(lambda: SpadeDiscriminator(8, 8), images(2, 8, 32, 32), 3),
    "nnunet": Exhibit(lambda: PlainConvUNet(1, 3, (8, 16, 32), dropout=0.1), images(2, 1, 32, 32), 10),
    "style_transfer": Exhibit(lambda: StyleNet(8, 2), images(2, 3, 32, 32), 9),
    "super_resolution_generator": Exhibit(lambda: SRGenerator(8, 2), images(2, 3, 16, 16), 5),
    "super_resolution_discriminator": Exhibit(lambda: SRDiscriminator((8, 16, 32)), images(4, 3, 32, 32), 4),
}
