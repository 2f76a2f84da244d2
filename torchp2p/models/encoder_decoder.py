"""The encoder-decoder of the pix2pix paper: its U-Net with the skips severed. Spec section 2.3."""

from __future__ import annotations

from torch import Tensor, nn

from torchp2p.models.initialise import init_weights
from torchp2p.models.layers import DROPOUT, require_multiple, require_positive, sequential, uses_bias
from torchp2p.nn import NormAct

LEVELS = 8
DROPOUT_LEVELS = 3


def encoder_decoder(
    input_nc: int, output_nc: int, ngf: int = 64, norm: str = "batch", use_dropout: bool = True
) -> EncoderDecoder:
    """The 8-level encoder-decoder, for sizes that are multiples of 256; see ``EncoderDecoder``."""
    return EncoderDecoder(input_nc, output_nc, ngf, norm, use_dropout)


class EncoderDecoder(nn.Module):
    """Eight convolutions 4/2/1 down to 1x1 (at 256x256), eight transposed ones back.

    Args:
        input_nc, output_nc: channels of the image in and out.
        ngf: channels after the first convolution; they double with each level up to 8 ngf.
        norm: ``batch``, ``instance`` or ``none``; no norm after the first convolution and at the bottleneck.
        use_dropout: dropout of one half on the first three layers of the decoder.

    ``forward``: (N, input_nc, H, W) to (N, output_nc, H, W) in [-1, 1]; H and W multiples of
    ``size_multiple``, ValueError otherwise. Keys: ``encoder.conv0`` .. ``conv7``, ``encoder.norm1`` ..
    ``norm6``, ``decoder.conv0`` .. ``conv7``, ``decoder.norm0`` .. ``norm6``. Weights start as
    ``init_weights`` makes them.

    Raises:
        ValueError: unknown ``norm``, a count that is not positive.
    """

    size_multiple = 2**LEVELS

    def __init__(
        self, input_nc: int, output_nc: int, ngf: int = 64, norm: str = "batch", use_dropout: bool = True
    ) -> None:
        require_positive(input_nc=input_nc, output_nc=output_nc, ngf=ngf)
        super().__init__()
        bias = uses_bias(norm)
        last = LEVELS - 1
        widths = [ngf * min(2**level, 8) for level in range(LEVELS)]

        down: dict[str, nn.Module] = {
            "conv0": nn.Conv2d(input_nc, ngf, 4, 2, 1, bias=bias),
            "act0": nn.LeakyReLU(0.2, inplace=True),
        }
        for level in range(1, last):
            down[f"conv{level}"] = nn.Conv2d(widths[level - 1], widths[level], 4, 2, 1, bias=bias)
            down[f"norm{level}"] = NormAct(widths[level], norm=norm, act="leaky_relu")
        down[f"conv{last}"] = nn.Conv2d(widths[last - 1], widths[last], 4, 2, 1, bias=bias)
        down[f"act{last}"] = nn.ReLU(inplace=True)

        up: dict[str, nn.Module] = {}
        for step in range(last):
            width = widths[last - step - 1]
            up[f"conv{step}"] = nn.ConvTranspose2d(widths[last - step], width, 4, 2, 1, bias=bias)
            up[f"norm{step}"] = NormAct(width, norm=norm, act="relu")
            if use_dropout and step < DROPOUT_LEVELS:
                up[f"dropout{step}"] = nn.Dropout(DROPOUT)
        up[f"conv{last}"] = nn.ConvTranspose2d(ngf, output_nc, 4, 2, 1)
        up["tanh"] = nn.Tanh()

        self.encoder = sequential(down)
        self.decoder = sequential(up)
        init_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        """Translate the images; shapes as the class says."""
        require_multiple(x, self.size_multiple)
        result: Tensor = self.decoder(self.encoder(x))
        return result
