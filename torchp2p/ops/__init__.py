"""The public functions, one file an op: arguments are checked, a backend is chosen, the registered op is called."""

from torchp2p.ops._dispatch import BackendUnavailableError, backend
from torchp2p.ops.gan_loss import gan_loss
from torchp2p.ops.norm_act import norm_act

__all__ = ["BackendUnavailableError", "backend", "gan_loss", "norm_act"]
