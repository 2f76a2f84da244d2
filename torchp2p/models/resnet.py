"""The ResNet generators of pix2pix, with 6 or 9 residual blocks. Spec section 2.4."""

from __future__ import annotations

from torch import Tensor, nn

from torchp2p.models.initialise import init_weights
from torchp2p.models.layers import ResidualBlock, require_positive, sequential, uses_bias
from torchp2p.nn import NormAct


def resnet_6blocks(
    input_nc: int,
    output_nc: int,
    ngf: int = 64,
    norm: str = "batch",
    use_dropout: bool = True,
    padding_type: str = "reflect",
) -> ResnetGenerator:
    """The generator with 6 residual blocks; see ``ResnetGenerator``."""
    return ResnetGenerator(input_nc, output_nc, ngf, norm, use_dropout, 6, padding_type)


def resnet_9blocks(
    input_nc: int,
    output_nc: int,
    ngf: int = 64,
    norm: str = "batch",
    use_dropout: bool = True,
    padding_type: str = "reflect",
) -> ResnetGenerator:
    """The generator with 9 residual blocks; see ``ResnetGenerator``."""
    return ResnetGenerator(input_nc, output_nc, ngf, norm, use_dropout, 9, padding_type)


class ResnetGenerator(nn.Module):
    """A 7x7 convolution, two down, ``n_blocks`` residual blocks at 4 ngf channels, two up, a 7x7 convolution.

    The defaults of ``norm`` and ``use_dropout`` are those of the pix2pix recipe.

    Args:
        input_nc, output_nc: channels of the image in and out.
        ngf: channels after the first convolution.
        norm: ``batch``, ``instance`` or ``none``.
        use_dropout: dropout of one half inside every residual block. It shifts state_dict keys.
        n_blocks: number of residual blocks.
        padding_type: of the residual blocks: ``reflect``, ``replicate`` or ``zero``. ``zero`` shifts keys.

    ``forward``: (N, input_nc, H, W) to (N, output_nc, H, W) in [-1, 1], H and W rounded up to a multiple of
    ``size_multiple``. Weights start as ``init_weights`` makes them.

    Raises:
        ValueError: unknown ``norm`` or ``padding_type``, a count that is not positive.
    """

    size_multiple = 4

    def __init__(
        self,
        input_nc: int,
        output_nc: int,
        ngf: int = 64,
        norm: str = "batch",
        use_dropout: bool = True,
        n_blocks: int = 6,
        padding_type: str = "reflect",
    ) -> None:
        require_positive(input_nc=input_nc, output_nc=output_nc, ngf=ngf, n_blocks=n_blocks)
        super().__init__()
        bias = uses_bias(norm)
        layers: dict[str, nn.Module] = {
            "0": nn.ReflectionPad2d(3),
            "1": nn.Conv2d(input_nc, ngf, 7, bias=bias),
            "2": NormAct(ngf, norm=norm, act="relu"),
            "4": nn.Conv2d(ngf, 2 * ngf, 3, 2, 1, bias=bias),
            "5": NormAct(2 * ngf, norm=norm, act="relu"),
            "7": nn.Conv2d(2 * ngf, 4 * ngf, 3, 2, 1, bias=bias),
            "8": NormAct(4 * ngf, norm=norm, act="relu"),
        }
        for block in range(n_blocks):
            layers[f"{10 + block}"] = ResidualBlock(
                4 * ngf, norm=norm, padding_type=padding_type, use_dropout=use_dropout, bias=bias
            )
        at = 10 + n_blocks
        layers[f"{at}"] = nn.ConvTranspose2d(4 * ngf, 2 * ngf, 3, 2, 1, output_padding=1, bias=bias)
        layers[f"{at + 1}"] = NormAct(2 * ngf, norm=norm, act="relu")
        layers[f"{at + 3}"] = nn.ConvTranspose2d(2 * ngf, ngf, 3, 2, 1, output_padding=1, bias=bias)
        layers[f"{at + 4}"] = NormAct(ngf, norm=norm, act="relu", pad=3)
        layers[f"{at + 7}"] = nn.Conv2d(ngf, output_nc, 7)
        layers[f"{at + 8}"] = nn.Tanh()
        self.model = sequential(layers)
        init_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        """Translate the images; shapes as the class says."""
        result: Tensor = self.model(x)
        return result
