"""The networks of pix2pix, and what brings weights into them."""

from torchp2p.models.define import define_D, define_G
from torchp2p.models.describe import describe_state_dict
from torchp2p.models.discriminator import PatchDiscriminator, PixelDiscriminator
from torchp2p.models.encoder_decoder import EncoderDecoder, encoder_decoder
from torchp2p.models.inference import generator_from_config, generator_from_weights, run_generator
from torchp2p.models.initialise import init_weights
from torchp2p.models.padding import run_padded
from torchp2p.models.resnet import ResnetGenerator, resnet_6blocks, resnet_9blocks
from torchp2p.models.state_dicts import (
    Report,
    load_config,
    load_state_dict_compatible,
    load_weights,
    read_checkpoint,
    save_weights,
    write_checkpoint,
)
from torchp2p.models.unet import UnetGenerator, unet_128, unet_256

__all__ = [
    "EncoderDecoder",
    "PatchDiscriminator",
    "PixelDiscriminator",
    "Report",
    "ResnetGenerator",
    "UnetGenerator",
    "define_D",
    "define_G",
    "describe_state_dict",
    "encoder_decoder",
    "generator_from_config",
    "generator_from_weights",
    "init_weights",
    "load_config",
    "load_state_dict_compatible",
    "load_weights",
    "read_checkpoint",
    "resnet_6blocks",
    "resnet_9blocks",
    "run_generator",
    "run_padded",
    "save_weights",
    "unet_128",
    "unet_256",
    "write_checkpoint",
]
