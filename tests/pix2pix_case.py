"""Small pix2pix networks, ours and in plain PyTorch, and batches for them."""

from __future__ import annotations

import torch
from network_testing import randomise
from torch import nn

from benchmarks.plain.pix2pix import PlainPatchDiscriminator, PlainResnet
from torchp2p.models import PatchDiscriminator, ResnetGenerator
from torchp2p.train import Lean

SAVINGS = {
    "all": Lean(share_condition=True, one_batch=True),
    "none": Lean(share_condition=False, one_batch=False),
    "shared": Lean(share_condition=True, one_batch=False),
    "one batch": Lean(share_condition=False, one_batch=True),
}
"""What the step of pix2pix may save, one by one."""


def adam(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.5, 0.999), eps=1e-8)


def with_the_weights_of(plain: nn.Module, ours: nn.Module) -> nn.Module:
    """``ours`` in float64, filled entry by entry in the order of the state_dicts, which is the same."""
    entries = zip(ours.state_dict(), plain.state_dict().values(), strict=True)
    ours.double().load_state_dict(dict(entries))
    return ours


def plain_networks(norm: str, condition_GAN: bool = True) -> tuple[nn.Module, nn.Module]:
    plain_G = PlainResnet(3, 2, ngf=3, norm=norm, n_blocks=2).double()
    plain_D = PlainPatchDiscriminator(2 + 3 * condition_GAN, ndf=4, n_layers=2, norm=norm).double()
    randomise(plain_G, 1)
    randomise(plain_D, 2)
    return plain_G, plain_D


def our_networks(norm: str, plain_G: nn.Module, plain_D: nn.Module) -> tuple[nn.Module, nn.Module]:
    G = ResnetGenerator(3, 2, ngf=3, norm=norm, use_dropout=False, n_blocks=2)
    input_nc = next(plain_D.parameters()).shape[1]
    D = PatchDiscriminator(input_nc, ndf=4, n_layers=2, norm=norm)
    return with_the_weights_of(plain_G, G), with_the_weights_of(plain_D, D)


def draw_batch(size: int = 16, channels: tuple[int, int] = (3, 2), dtype: torch.dtype = torch.float64):
    A, B = (torch.rand(2, each, size, size, dtype=dtype) * 2 - 1 for each in channels)
    return {"A": A, "B": B}
