"""``MultiscaleDiscriminator``, the PatchGANs of pix2pixHD at several sizes. Spec sections 3.2, 3.3."""

from __future__ import annotations

from torch import Tensor, nn

from torchp2p.models.hd_layers import NORMS
from torchp2p.models.initialise import init_weights
from torchp2p.models.layers import require_choice, require_positive, sequential
from torchp2p.models.pyramid import pyramid
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

    ``forward``: (N, input_nc, H, W) to [scale][layer], the full size first: n_layers + 1 features after their
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
                    self.add_module(f"scale{scale}_layer{layer}", _named(group, [0, 1]))
            else:
                starts = [0, *range(2, 3 * n_layers + 3, 3)]
                flat = [module for group in groups for module in group]
                indices = [start + place for start in starts for place in (0, 1)]
                self.add_module(f"layer{scale}", _named(flat, indices))
        init_weights(self, zero_bias=False)

    def forward(self, x: Tensor) -> list[list[Tensor]]:
        """Judge the images; shapes as the class says."""
        levels = pyramid(x, self.num_D)
        return [self._judge(self.num_D - 1 - level, image) for level, image in enumerate(levels)]

    def _judge(self, scale: int, x: Tensor) -> list[Tensor]:
        if not self.get_interm_feat:
            return [self.get_submodule(f"layer{scale}")(x)]
        features = []
        for layer in range(self.n_layers + 2):
            x = self.get_submodule(f"scale{scale}_layer{layer}")(x)
            features.append(x)
        return features


def _groups(input_nc: int, ndf: int, n_layers: int, norm: str) -> list[list[nn.Module]]:
    """The layers of one discriminator, each a convolution and what follows it."""
    groups: list[list[nn.Module]] = [[nn.Conv2d(input_nc, ndf, 4, 2, 2), nn.LeakyReLU(0.2, inplace=True)]]
    width = ndf
    for layer in range(1, n_layers + 1):
        stride = 2 if layer < n_layers else 1
        before, width = width, min(2 * width, MAX_WIDTH)
        groups.append([nn.Conv2d(before, width, 4, stride, 2), NormAct(width, norm=norm, act="leaky_relu")])
    return [*groups, [nn.Conv2d(width, 1, 4, 1, 2)]]


def _named(modules: list[nn.Module], indices: list[int]) -> nn.Sequential:
    return sequential({f"{index}": module for index, module in zip(indices, modules, strict=False)})
