"""Weight initialisation of the pix2pix networks (spec section 2.1)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import init

from torchp2p.models.layers import require_choice
from torchp2p.nn import NormAct

INIT_TYPES = ("normal", "xavier", "kaiming", "orthogonal")


def init_weights(net: nn.Module, init_type: str = "normal", init_gain: float = 0.02, zero_bias: bool = True) -> None:
    """Initialise every convolution and batch norm of ``net`` in place.

    Convolution weights, transposed ones included, are drawn as ``init_type`` says and their biases are 0;
    batch norm weights are N(1, init_gain), their biases 0. The recipe of the paper is the default.

    Args:
        net: any module.
        init_type: ``normal`` is N(0, init_gain); ``xavier`` normal with gain ``init_gain``; ``kaiming``
            normal over fan_in, for ReLU (no gain); ``orthogonal`` with gain ``init_gain``.
        init_gain: standard deviation or gain, as above.
        zero_bias: False leaves the biases of convolutions as torch made them, which is what pix2pixHD does.

    Raises:
        ValueError: unknown ``init_type``.
    """
    require_choice("init_type", init_type, INIT_TYPES)
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            _init_convolution(module, init_type, init_gain, zero_bias)
        elif isinstance(module, nn.BatchNorm2d) or (isinstance(module, NormAct) and module.norm == "batch"):
            _init_batch_norm(module.weight, module.bias, init_gain)


def _init_batch_norm(weight: Tensor | None, bias: Tensor | None, init_gain: float) -> None:
    if weight is not None and bias is not None:
        init.normal_(weight, 1.0, init_gain)
        init.zeros_(bias)


def _init_convolution(conv: nn.Conv2d | nn.ConvTranspose2d, init_type: str, init_gain: float, zero_bias: bool) -> None:
    if init_type == "normal":
        init.normal_(conv.weight, 0.0, init_gain)
    elif init_type == "xavier":
        init.xavier_normal_(conv.weight, gain=init_gain)
    elif init_type == "kaiming":
        init.kaiming_normal_(conv.weight, a=0, mode="fan_in")
    else:
        init.orthogonal_(conv.weight, gain=init_gain)
    if zero_bias and conv.bias is not None:
        init.zeros_(conv.bias)
