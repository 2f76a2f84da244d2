"""Torch modules over the ops, with the parameter names of the torch modules they replace."""

from torchp2p.nn.gan_loss import GANLoss
from torchp2p.nn.label_conv2d import LabelConv2d
from torchp2p.nn.norm_act import NormAct

__all__ = ["GANLoss", "LabelConv2d", "NormAct"]
