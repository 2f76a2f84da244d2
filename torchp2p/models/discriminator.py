"""The discriminators of pix2pix: PatchGAN of any depth, and the 1x1 one. Spec section 3.1.

Both return logits; the sigmoid belongs to the loss. ``input_nc`` counts the channels of what they are given:
for a conditional discriminator those of the input image plus those of the output image, input image first.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from torchp2p.models.initialise import init_weights
from torchp2p.models.layers import require_positive, sequential, uses_bias
from torchp2p.models.shared import Shared, convolved_part
from torchp2p.nn import NormAct
from torchp2p.nn.conv_norm_act import has_hooks


class ConditionalDiscriminator(nn.Module):
    """What both have in common: layers that begin with a convolution, of an input image and then an output image.

    Args:
        name: that the names of all parameters begin with.
        layers: by their index in the original layout.
    """

    def __init__(self, name: str, layers: dict[str, nn.Module]) -> None:
        super().__init__()
        self.add_module(name, sequential(layers))
        init_weights(self)

    def forward(self, x: Tensor, shared: Shared | None = None) -> Tensor:
        """Judge the images; shapes as the class says.

        Args:
            x: all channels, or with ``shared`` the ones behind those that it was made of; then there may be several
                batches of them, one behind the other, each beside the same input images.
            shared: what ``share`` returned; None for nothing.
        """
        layers = self._layers()
        result: Tensor
        if shared is None:
            result = layers(x)
            return result
        (response,) = shared.responses
        own = convolved_part(layers[0], x, slice(shared.channels, None))
        if 1 < len(response) < len(own):  # one sample goes to any number of them by itself
            response = response.repeat(len(own) // len(response), 1, 1, 1)
        result = layers[1:](own + response)
        return result

    def share(self, x: Tensor) -> Shared:
        """What the first convolution makes of the channels that several images have in front of their own.

        ``D(image, D.share(A))`` is ``D(cat((A, image), 1))``, a convolution being linear. A is then convolved once for
        the real image and the fake, and no gradient is taken of it for that of the fake.

        Args:
            x: (N, C, H, W), the first C of the ``input_nc`` channels.
        """
        return Shared(x.shape[1], [convolved_part(self._layers()[0], x, slice(x.shape[1]), bias=True)])

    @property
    def is_as_built(self) -> bool:
        """Whether nothing that may want to see each image alone was added: a hook, a parametrisation, another layer."""
        if type(self) not in (PatchDiscriminator, PixelDiscriminator):
            return False
        known = all(type(layer) in (nn.Conv2d, nn.LeakyReLU, NormAct) for layer in self._layers())
        return known and not any(map(has_hooks, self.modules()))

    def _layers(self) -> nn.Sequential:
        (layers,) = self.children()
        return cast(nn.Sequential, layers)


class PatchDiscriminator(ConditionalDiscriminator):
    """Convolutions 4x4: ``n_layers`` of stride 2, two of stride 1; each value of the result judges one patch.

    Args:
        input_nc: channels of the images judged.
        ndf: channels after the first convolution; they double with each layer up to 8 ndf.
        n_layers: 3 gives patches of 70 pixels; 1, 2, 4, 5 give 16, 34, 142, 286.
        norm: ``batch``, ``instance`` or ``none``, from the second convolution on.

    ``forward``: (N, input_nc, H, W) to logits (N, 1, H', W'); 256x256 becomes 30x30 with 3 layers. Weights
    start as ``init_weights`` makes them.

    Raises:
        ValueError: unknown ``norm``, a count that is not positive.
    """

    def __init__(self, input_nc: int, ndf: int = 64, n_layers: int = 3, norm: str = "batch") -> None:
        require_positive(input_nc=input_nc, ndf=ndf, n_layers=n_layers)
        bias = uses_bias(norm)
        layers: dict[str, nn.Module] = {
            "0": nn.Conv2d(input_nc, ndf, 4, 2, 1),
            "1": nn.LeakyReLU(0.2, inplace=True),
        }
        width = ndf
        for layer in range(1, n_layers + 1):
            stride = 2 if layer < n_layers else 1
            before, width = width, ndf * min(2**layer, 8)
            at = 3 * layer - 1
            layers[f"{at}"] = nn.Conv2d(before, width, 4, stride, 1, bias=bias)
            layers[f"{at + 1}"] = NormAct(width, norm=norm, act="leaky_relu")
        layers[f"{3 * n_layers + 2}"] = nn.Conv2d(width, 1, 4, 1, 1)
        super().__init__("model", layers)


class PixelDiscriminator(ConditionalDiscriminator):
    """Three 1x1 convolutions, so that every pixel is judged alone.

    Args:
        input_nc: channels of the images judged.
        ndf: channels after the first convolution; 2 ndf after the second.
        norm: ``batch``, ``instance`` or ``none``, after the second convolution.

    ``forward``: (N, input_nc, H, W) to logits (N, 1, H, W). Weights start as ``init_weights`` makes them.

    Raises:
        ValueError: unknown ``norm``, a count that is not positive.
    """

    def __init__(self, input_nc: int, ndf: int = 64, norm: str = "batch") -> None:
        require_positive(input_nc=input_nc, ndf=ndf)
        bias = uses_bias(norm)
        layers: dict[str, nn.Module] = {
            "0": nn.Conv2d(input_nc, ndf, 1),
            "1": nn.LeakyReLU(0.2, inplace=True),
            "2": nn.Conv2d(ndf, 2 * ndf, 1, bias=bias),
            "3": NormAct(2 * ndf, norm=norm, act="leaky_relu"),
            "5": nn.Conv2d(2 * ndf, 1, 1, bias=bias),
        }
        super().__init__("net", layers)
