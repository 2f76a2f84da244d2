"""The public functions, one file an op: check the arguments, choose a backend, call the registered op."""

from torchp2p.ops._algorithm import algorithm
from torchp2p.ops._deferred import Deferred
from torchp2p.ops._dispatch import BackendUnavailableError, backend
from torchp2p.ops.conv_norm_act import conv_norm_act
from torchp2p.ops.feature_matching_loss import feature_matching_loss
from torchp2p.ops.gan_loss import gan_loss
from torchp2p.ops.instance_avg_pool import instance_avg_pool
from torchp2p.ops.instance_edges import instance_edges
from torchp2p.ops.label_conv2d import label_conv2d
from torchp2p.ops.norm_act import norm_act

__all__ = [
    "BackendUnavailableError",
    "Deferred",
    "algorithm",
    "backend",
    "conv_norm_act",
    "feature_matching_loss",
    "gan_loss",
    "instance_avg_pool",
    "instance_edges",
    "label_conv2d",
    "norm_act",
]
