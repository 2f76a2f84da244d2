"""The networks of pix2pix and pix2pixHD, and what brings weights into them."""

from torchp2p.models.define import define_D, define_G
from torchp2p.models.define_hd import define_hd_G
from torchp2p.models.describe import describe_state_dict
from torchp2p.models.discriminator import PatchDiscriminator, PixelDiscriminator
from torchp2p.models.encoder_decoder import EncoderDecoder, encoder_decoder
from torchp2p.models.global_generator import GlobalGenerator
from torchp2p.models.hd_inference import (
    encoder_from_config,
    encoder_from_weights,
    hd_generator_from_config,
    run_encoder,
    synthesize,
)
from torchp2p.models.inference import generator_from_config, generator_from_weights, run_generator
from torchp2p.models.initialise import init_weights
from torchp2p.models.inputs import LabelMap, encode_labels
from torchp2p.models.instance_encoder import InstanceEncoder
from torchp2p.models.local_enhancer import LocalEnhancer
from torchp2p.models.multiscale_discriminator import MultiscaleDiscriminator
from torchp2p.models.padding import run_padded
from torchp2p.models.pretrain import load_pretrain
from torchp2p.models.recompute import recompute
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
from torchp2p.models.vgg19 import VGG19Features, download_vgg19_weights

__all__ = [
    "EncoderDecoder",
    "GlobalGenerator",
    "InstanceEncoder",
    "LabelMap",
    "LocalEnhancer",
    "MultiscaleDiscriminator",
    "PatchDiscriminator",
    "PixelDiscriminator",
    "Report",
    "ResnetGenerator",
    "UnetGenerator",
    "VGG19Features",
    "define_D",
    "define_G",
    "define_hd_G",
    "describe_state_dict",
    "download_vgg19_weights",
    "encode_labels",
    "encoder_decoder",
    "encoder_from_config",
    "encoder_from_weights",
    "generator_from_config",
    "generator_from_weights",
    "hd_generator_from_config",
    "init_weights",
    "load_config",
    "load_pretrain",
    "load_state_dict_compatible",
    "load_weights",
    "read_checkpoint",
    "recompute",
    "resnet_6blocks",
    "resnet_9blocks",
    "run_encoder",
    "run_generator",
    "run_padded",
    "save_weights",
    "synthesize",
    "unet_128",
    "unet_256",
    "write_checkpoint",
]
