"""``MultiscaleDiscriminator``, the PatchGANs of pix2pixHD at several sizes. Spec sections 3.2, 3.3."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from torchp2p.models.hd_layers import NORMS
from torchp2p.models.initialise import init_weights
from torchp2p.models.inputs import LabelMap, pyramid_of
from torchp2p.models.layers import Layers, require_choice, require_positive, sequential
from torchp2p.models.pyramid import pyramid
from torchp2p.models.shared import Shared, convolved_part
from torchp2p.nn import NormAct

MAX_WIDTH = 512


class MultiscaleDiscriminator(nn.Module):
    """``num_D`` discriminators of the same layout and with weights of their own, each on half the size of the last.

    Names count from the coarsest: scale 0 sees the smallest image and scale num_D - 1 the full one, so a checkpoint
    of two scales fills those of three that see the same resolution once the image has doubled.

    Args:
        input_nc: channels of what is judged: labels, edges and image together, in this order.
        ndf: channels after the first convolution; they double with each layer up to 512.
        n_layers: convolutions of stride 2; 3 gives patches of 70 pixels at the full size.
        num_D: number of scales.
        norm: ``instance`` or ``batch``, from the second convolution on.
        get_interm_feat: hand out the features of every layer, not only the decisions. It names the parameters
            ``scale{k}_layer{j}.*``, else ``layer{k}.*``.

    ``forward``: (N, input_nc, H, W) to ``[scale][layer]``, the full size first: n_layers + 1 features after their
    LeakyReLU, and last the raw decisions (N, 1, H', W'); without ``get_interm_feat`` [[decisions], ...]. Weights
    start as ``init_weights`` makes them, biases as torch does.

    Raises:
        ValueError: unknown ``norm``, a count that is not positive.
    """

    def __init__(
        self,
        input_nc: int,
        ndf: int = 64,
        n_layers: int = 3,
        num_D: int = 2,
        norm: str = "instance",
        get_interm_feat: bool = True,
    ) -> None:
        require_positive(input_nc=input_nc, ndf=ndf, n_layers=n_layers, num_D=num_D)
        require_choice("norm", norm, NORMS)
        super().__init__()
        self.n_layers, self.num_D, self.get_interm_feat = n_layers, num_D, get_interm_feat
        for scale in range(num_D):
            groups = _groups(input_nc, ndf, n_layers, norm)
            if get_interm_feat:
                for layer, group in enumerate(groups):
                    self.add_module(f"scale{scale}_layer{layer}", Layers(*group))
            else:
                self.add_module(f"layer{scale}", _flat(groups))
        init_weights(self, zero_bias=False)

    def forward(self, x: Tensor, shared: Shared | None = None) -> list[list[Tensor]]:
        """Judge the images; shapes as the class says.

        Args:
            x: all channels, or with ``shared`` the ones behind those that it was made of.
            shared: what ``share`` returned; None for nothing.
        """
        result = []
        for place, level in enumerate(pyramid(x, self.num_D)):
            first, *rest = self._layers(self.num_D - 1 - place)
            if shared is None:
                found = [first(level)]
            else:
                response = shared.responses[place] + convolved_part(first[0], level, slice(shared.channels, None))
                found = [first[1:](response)]
            for layer in rest:
                found.append(layer(found[-1]))
            result.append(found)
        return result

    def share(self, x: Tensor | LabelMap) -> Shared:
        """What the first convolutions make of the channels that several images have in front of their own.

        ``D(image, D.share(labels))`` is ``D(cat((labels, image), 1))``, a convolution being linear. The labels are
        then convolved once for the real image and the fake, and no gradient is taken of them for that of the fake.

        Args:
            x: (N, C, H, W), the first C of the ``input_nc`` channels, or a LabelMap of them.
        """
        convs = [self._layers(scale)[0][0] for scale in reversed(range(self.num_D))]
        channels = x.channels if isinstance(x, LabelMap) else x.shape[1]
        responses = [
            convolved_part(conv, level, slice(channels), bias=True)
            for conv, level in zip(convs, pyramid_of(x, self.num_D), strict=True)
        ]
        return Shared(channels, responses)

    def _layers(self, scale: int) -> list[nn.Sequential]:
        """The layers of one scale; all of them as one where their features are not handed out."""
        names = [f"layer{scale}"]
        if self.get_interm_feat:
            names = [f"scale{scale}_layer{layer}" for layer in range(self.n_layers + 2)]
        return [cast(nn.Sequential, self.get_submodule(name)) for name in names]


def _groups(input_nc: int, ndf: int, n_layers: int, norm: str) -> list[list[nn.Module]]:
    """The layers of one discriminator, each a convolution and what follows it."""
    groups: list[list[nn.Module]] = [[nn.Conv2d(input_nc, ndf, 4, 2, 2), nn.LeakyReLU(0.2, inplace=True)]]
    width = ndf
    for layer in range(1, n_layers + 1):
        stride = 2 if layer < n_layers else 1
        before, width = width, min(2 * width, MAX_WIDTH)
        groups.append([nn.Conv2d(before, width, 4, stride, 2), NormAct(width, norm=norm, act="leaky_relu")])
    return [*groups, [nn.Conv2d(width, 1, 4, 1, 2)]]


def _flat(groups: list[list[nn.Module]]) -> nn.Sequential:
    """All layers as one; a norm and its activation had an index each."""
    starts = [0, *range(2, 3 * len(groups) - 3, 3)]
    return sequential(
        {
            f"{start + place}": module
            for start, group in zip(starts, groups, strict=True)
            for place, module in enumerate(group)
        }
    )
