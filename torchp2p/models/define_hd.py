"""The generators of pix2pixHD by the option names of the original (spec sections 2.5, 2.6, 10.1)."""

from __future__ import annotations

from torchp2p.models.global_generator import GlobalGenerator
from torchp2p.models.layers import require_choice
from torchp2p.models.local_enhancer import LocalEnhancer

HD_GENERATORS = ("global", "local")


def define_hd_G(
    netG: str,
    input_nc: int,
    output_nc: int,
    ngf: int = 64,
    n_downsample_global: int = 4,
    n_blocks_global: int = 9,
    n_local_enhancers: int = 1,
    n_blocks_local: int = 3,
    norm: str = "instance",
) -> GlobalGenerator | LocalEnhancer:
    """Make and initialise a generator of pix2pixHD.

    Args:
        netG: ``global`` or ``local``.
        n_local_enhancers, n_blocks_local: of ``local`` only.
        The others: as the generators take them.

    Raises:
        ValueError: an unknown name, or what the generators refuse.
    """
    require_choice("netG", netG, HD_GENERATORS)
    if netG == "global":
        return GlobalGenerator(input_nc, output_nc, ngf, n_downsample_global, n_blocks_global, norm)
    return LocalEnhancer(
        input_nc, output_nc, ngf, n_downsample_global, n_blocks_global, n_local_enhancers, n_blocks_local, norm
    )
