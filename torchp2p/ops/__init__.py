"""The public functions, one file an op: check the arguments, choose a backend, call the registered op."""

from torchp2p.ops._dispatch import BackendUnavailableError, backend
from torchp2p.ops.gan_loss import gan_loss
from torchp2p.ops.label_conv2d import label_conv2d
from torchp2p.ops.norm_act import norm_act

__all__ = ["BackendUnavailableError", "backend", "gan_loss", "label_conv2d", "norm_act"]
