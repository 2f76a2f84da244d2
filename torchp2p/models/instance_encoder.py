"""``InstanceEncoder``, which finds the features of each instance of a photo. Spec sections 2.7, 7.1."""

from __future__ import annotations

from torch import Tensor, nn

from torchp2p import ops
from torchp2p.models.chain import Chain
from torchp2p.models.hd_layers import NORMS, head, hourglass, hourglass_end
from torchp2p.models.initialise import init_weights
from torchp2p.models.layers import require_choice, require_positive


class InstanceEncoder(nn.Module):
    """An encoder and decoder of the image, and the mean of its result over each instance.

    Args:
        input_nc: channels of the image.
        output_nc: features of a pixel (``feat_num`` of the original).
        ngf: channels after the first convolution (``nef``).
        n_downsample_E: how often the size is halved.
        norm: ``instance`` or ``batch``.

    ``forward``: the image (N, input_nc, H, W) and integer ids (N, 1, H, W) or (N, H, W) to (N, output_nc, H, W),
    within [-1, 1] and constant over the pixels of an id. H and W multiples of ``size_multiple``. Weights start as
    ``init_weights`` makes them, biases as torch does.

    Raises:
        ValueError: unknown ``norm``, a count that is not positive; in ``forward`` a size that does not fit.
    """

    def __init__(
        self, input_nc: int, output_nc: int, ngf: int = 16, n_downsample_E: int = 4, norm: str = "instance"
    ) -> None:
        require_positive(input_nc=input_nc, output_nc=output_nc, ngf=ngf, n_downsample_E=n_downsample_E)
        require_choice("norm", norm, NORMS)
        super().__init__()
        self.size_multiple = 2**n_downsample_E
        layers = hourglass(input_nc, ngf, n_downsample_E, 0, norm)
        layers |= head(hourglass_end(n_downsample_E, 0), ngf, output_nc)
        self.model = Chain(layers)
        init_weights(self, zero_bias=False)

    def forward(self, image: Tensor, ids: Tensor) -> Tensor:
        """Encode the image; shapes as the class says."""
        height, width = image.shape[-2:]
        if height % self.size_multiple or width % self.size_multiple:
            raise ValueError(
                f"image must have height and width that are multiples of {self.size_multiple} for this encoder, "
                f"got {height}x{width}"
            )
        return ops.instance_avg_pool(self.model(image), ids)
