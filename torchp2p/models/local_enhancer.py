"""``LocalEnhancer``, the fine generator of pix2pixHD around the global one. Spec section 2.6."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from torchp2p.models.chain import Chain, computed
from torchp2p.models.hd_layers import NORMS, blocks, down, head, hourglass, stem, up
from torchp2p.models.initialise import init_weights
from torchp2p.models.inputs import LabelMap, pyramid_of
from torchp2p.models.layers import require_choice, require_positive


class LocalEnhancer(nn.Module):
    """The global generator on the coarsest level of a pyramid, and an enhancer for each finer one.

    ``model`` is a GlobalGenerator of ngf 2^n_local_enhancers filters without its last convolution, so that its
    checkpoint fills it. ``model{n}_1`` takes the input, n = n_local_enhancers the full size, half down; the result
    of the level below is added; ``model{n}_2`` takes the sum back up.

    Args:
        input_nc: channels in: labels, edges and features together.
        output_nc: channels of the image out.
        ngf: channels of the last enhancer.
        n_downsample_global, n_blocks_global: of the global part.
        n_local_enhancers: levels above the global part.
        n_blocks_local: residual blocks of each.
        norm: ``instance`` or ``batch``.

    ``forward``: (N, input_nc, H, W), or a LabelMap of as many channels, to (N, output_nc, H, W) in [-1, 1]; H and W
    multiples of ``size_multiple``. Weights start as ``init_weights`` makes them, biases as torch does.

    Raises:
        ValueError: unknown ``norm``, a count that is not positive.
    """

    def __init__(
        self,
        input_nc: int,
        output_nc: int,
        ngf: int = 32,
        n_downsample_global: int = 4,
        n_blocks_global: int = 9,
        n_local_enhancers: int = 1,
        n_blocks_local: int = 3,
        norm: str = "instance",
    ) -> None:
        require_positive(
            input_nc=input_nc, output_nc=output_nc, ngf=ngf, n_downsample_global=n_downsample_global,
            n_blocks_global=n_blocks_global, n_local_enhancers=n_local_enhancers, n_blocks_local=n_blocks_local,
        )  # fmt: skip
        require_choice("norm", norm, NORMS)
        super().__init__()
        self.n_local_enhancers = n_local_enhancers
        self.size_multiple = 2 ** (n_downsample_global + n_local_enhancers)
        width = ngf * 2**n_local_enhancers
        self.model = Chain(hourglass(input_nc, width, n_downsample_global, n_blocks_global, norm))
        for n in range(1, n_local_enhancers + 1):
            width //= 2
            front = stem(input_nc, width, norm) | down(4, width, norm)
            back = blocks(0, n_blocks_local, 2 * width, norm) | up(n_blocks_local, width, norm)
            if n == n_local_enhancers:
                back |= head(n_blocks_local + 3, width, output_nc)
            self.add_module(f"model{n}_1", Chain(front))
            self.add_module(f"model{n}_2", Chain(back))
        init_weights(self, zero_bias=False)

    def forward(self, x: Tensor | LabelMap) -> Tensor:
        """Translate the labels; shapes as the class says."""
        *finer, coarsest = pyramid_of(x, self.n_local_enhancers + 1)
        h = self.model(coarsest, defer=True)
        for n, level in enumerate(reversed(finer), start=1):
            front, back = self.get_submodule(f"model{n}_1"), self.get_submodule(f"model{n}_2")
            h = back(front(level) + computed(h), defer=True)
        return computed(cast(Tensor, h))
