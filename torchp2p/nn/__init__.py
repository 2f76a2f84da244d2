"""Torch modules over the ops, with the parameter names of the torch modules they replace."""

from torchp2p.nn.conv_norm_act import ConvNormAct, ConvTransposeNormAct
from torchp2p.nn.feature_matching_loss import FeatureMatchingLoss
from torchp2p.nn.gan_loss import GANLoss
from torchp2p.nn.instance_avg_pool import InstanceAvgPool2d
from torchp2p.nn.instance_edges import InstanceEdges
from torchp2p.nn.label_conv2d import LabelConv2d
from torchp2p.nn.norm_act import NormAct, separate_statistics

__all__ = [
    "ConvNormAct",
    "ConvTransposeNormAct",
    "FeatureMatchingLoss",
    "GANLoss",
    "InstanceAvgPool2d",
    "InstanceEdges",
    "LabelConv2d",
    "NormAct",
    "separate_statistics",
]
