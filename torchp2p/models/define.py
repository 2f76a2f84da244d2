"""Networks by the option names of the original, ``netG`` and ``netD`` (spec section 10.2)."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from torchp2p.models.discriminator import PatchDiscriminator, PixelDiscriminator
from torchp2p.models.encoder_decoder import encoder_decoder
from torchp2p.models.initialise import init_weights
from torchp2p.models.layers import require_choice
from torchp2p.models.resnet import resnet_6blocks, resnet_9blocks
from torchp2p.models.unet import unet_128, unet_256

UNETS = {"unet_128": unet_128, "unet_256": unet_256}
OTHER_GENERATORS: dict[str, Callable[[int, int, int, str, bool], nn.Module]] = {
    "encoder_decoder": encoder_decoder,
    "resnet_6blocks": resnet_6blocks,
    "resnet_9blocks": resnet_9blocks,
}
GENERATORS = (*UNETS, *OTHER_GENERATORS)
DISCRIMINATORS = ("basic", "n_layers", "pixel")


def define_G(
    netG: str,
    input_nc: int,
    output_nc: int,
    ngf: int = 64,
    norm: str = "batch",
    use_dropout: bool = True,
    init_type: str = "normal",
    init_gain: float = 0.02,
    variant: str = "pytorch",
) -> nn.Module:
    """Make and initialise a generator.

    Args:
        netG: ``unet_128``, ``unet_256``, ``encoder_decoder``, ``resnet_6blocks`` or ``resnet_9blocks``.
        input_nc, output_nc, ngf, norm, use_dropout: as the generators take them.
        init_type, init_gain: as ``init_weights`` takes them.
        variant: ``pytorch`` or ``paper``, for the U-Nets; the encoder-decoder exists in the paper's only and
            the ResNets in PyTorch's only.

    Raises:
        ValueError: an unknown name, or ``variant="paper"`` with a ResNet.
    """
    require_choice("netG", netG, GENERATORS)
    if netG.startswith("resnet") and variant != "pytorch":
        raise ValueError(f"variant must be 'pytorch' with netG {netG!r}, got {variant!r}")
    net: nn.Module
    if netG in UNETS:
        net = UNETS[netG](input_nc, output_nc, ngf, norm, use_dropout, variant)
    else:
        net = OTHER_GENERATORS[netG](input_nc, output_nc, ngf, norm, use_dropout)
    init_weights(net, init_type, init_gain)
    return net


def define_D(
    netD: str,
    input_nc: int,
    ndf: int = 64,
    n_layers_D: int = 3,
    norm: str = "batch",
    init_type: str = "normal",
    init_gain: float = 0.02,
) -> PatchDiscriminator | PixelDiscriminator:
    """Make and initialise a discriminator.

    Args:
        netD: ``basic`` (patches of 70 pixels), ``n_layers`` (``n_layers_D`` strided layers) or ``pixel``.
        input_nc: channels of what it judges; for a conditional one, input and output image together.
        ndf, norm: as the discriminators take them.
        n_layers_D: read with ``netD="n_layers"`` only, as in the original.
        init_type, init_gain: as ``init_weights`` takes them.

    Raises:
        ValueError: an unknown name.
    """
    require_choice("netD", netD, DISCRIMINATORS)
    net: PatchDiscriminator | PixelDiscriminator
    if netD == "pixel":
        net = PixelDiscriminator(input_nc, ndf, norm)
    else:
        net = PatchDiscriminator(input_nc, ndf, n_layers_D if netD == "n_layers" else 3, norm)
    init_weights(net, init_type, init_gain)
    return net
