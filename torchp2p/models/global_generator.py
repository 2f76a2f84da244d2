"""``GlobalGenerator``, the coarse generator of pix2pixHD. Spec section 2.5."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from torchp2p.models.chain import Chain
from torchp2p.models.hd_layers import NORMS, head, hourglass, hourglass_end
from torchp2p.models.initialise import init_weights
from torchp2p.models.inputs import LabelMap
from torchp2p.models.layers import require_choice, require_positive


class GlobalGenerator(nn.Module):
    """A 7x7 convolution, down to 2^n_downsample_global ngf channels, residual blocks, up, a 7x7 convolution.

    Args:
        input_nc: channels in: labels, edges and features together.
        output_nc: channels of the image out.
        ngf: channels after the first convolution.
        n_downsample_global: how often the size is halved.
        n_blocks_global: residual blocks at the smallest size.
        norm: ``instance`` or ``batch``.

    ``forward``: (N, input_nc, H, W), or a LabelMap of as many channels, to (N, output_nc, H, W) in [-1, 1], H and W
    rounded up to a multiple of ``size_multiple``. Weights start as ``init_weights`` makes them, biases as torch does.

    Raises:
        ValueError: unknown ``norm``, a count that is not positive.
    """

    def __init__(
        self,
        input_nc: int,
        output_nc: int,
        ngf: int = 64,
        n_downsample_global: int = 4,
        n_blocks_global: int = 9,
        norm: str = "instance",
    ) -> None:
        require_positive(
            input_nc=input_nc, output_nc=output_nc, ngf=ngf,
            n_downsample_global=n_downsample_global, n_blocks_global=n_blocks_global,
        )  # fmt: skip
        require_choice("norm", norm, NORMS)
        super().__init__()
        self.size_multiple = 2**n_downsample_global
        layers = hourglass(input_nc, ngf, n_downsample_global, n_blocks_global, norm)
        layers |= head(hourglass_end(n_downsample_global, n_blocks_global), ngf, output_nc)
        self.model = Chain(layers)
        init_weights(self, zero_bias=False)

    def forward(self, x: Tensor | LabelMap) -> Tensor:
        """Translate the labels; shapes as the class says."""
        return cast(Tensor, self.model(x))
