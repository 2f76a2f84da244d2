"""Small pix2pixHD networks with a step around them, ours and in plain PyTorch, and batches for them."""

from __future__ import annotations

import torch
from network_testing import randomise
from torch import Tensor, nn

from benchmarks.plain.pix2pixhd import PlainEncoder, PlainGlobal, PlainLocal, PlainMultiscale, PlainVGG19
from benchmarks.plain.steps import plain_hd_step
from torchp2p.models import GlobalGenerator, InstanceEncoder, LocalEnhancer, MultiscaleDiscriminator
from torchp2p.train import Pix2PixHDStep

LABELS = 4
SIZE = (32, 64)


def filled(ours: nn.Module, plain: nn.Module) -> nn.Module:
    """``ours`` in float64, filled entry by entry in the order of the state_dicts, which is the same."""
    ours.double().load_state_dict(dict(zip(ours.state_dict(), plain.state_dict().values(), strict=True)))
    return ours


class Setting:
    """Plain networks, and ours with the same weights."""

    def __init__(
        self,
        netG: str = "global",
        norm: str = "instance",
        num_D: int = 2,
        n_layers_D: int = 2,
        features: bool = False,
        vgg: bool = False,
        condition_nc: int = LABELS + 1,
        feat_num: int = 2,
        no_ganFeat_loss: bool = False,
    ) -> None:
        input_nc = condition_nc + (feat_num if features else 0)
        sizes_D = (condition_nc + 3, 3, n_layers_D, num_D, norm, not no_ganFeat_loss)
        if netG == "global":
            sizes_G = (input_nc, 3, 2, 2, 1, norm)
            plain_G, G = PlainGlobal(*sizes_G), GlobalGenerator(*sizes_G)
        else:
            sizes_G = (input_nc, 3, 2, 1, 1, int(netG[-1]), 1, norm)
            plain_G, G = PlainLocal(*sizes_G), LocalEnhancer(*sizes_G)
        self.plain = {"G": plain_G, "D": PlainMultiscale(*sizes_D)}
        self.ours = {"G": G, "D": MultiscaleDiscriminator(*sizes_D)}
        if features:
            self.plain["E"] = PlainEncoder(3, feat_num, 2, 1, norm)
            self.ours["E"] = InstanceEncoder(3, feat_num, 2, 1, norm)
        for seed, (label, net) in enumerate(self.plain.items()):
            randomise(net.double(), seed)
            filled(self.ours[label], net)
        self.n_layers_D, self.num_D, self.no_ganFeat_loss = n_layers_D, num_D, no_ganFeat_loss
        self.vgg = PlainVGG19(width=2).double().requires_grad_(False) if vgg else None
        if self.vgg is not None:
            randomise(self.vgg, 9)

    def step(self, **options) -> Pix2PixHDStep:
        options = {"label_nc": LABELS, "no_vgg_loss": self.vgg is None, "vgg": self.vgg, **options}
        return Pix2PixHDStep(**self.ours, no_ganFeat_loss=self.no_ganFeat_loss, **options)

    def plain_step(self, optimizer_G, optimizer_D, batch, pool=lambda images: images, label_nc=LABELS, **options):
        nets = {**self.plain, "vgg": self.vgg}
        return plain_hd_step(
            nets, optimizer_G, optimizer_D, batch, label_nc, self.n_layers_D, self.num_D, pool,
            no_ganFeat_loss=self.no_ganFeat_loss, **options,
        )  # fmt: skip

    def plain_adam(self, *labels: str, only: str = "", lr: float = 2e-4) -> torch.optim.Adam:
        """Over E as a whole and, of the others, over what begins with ``only``."""
        parameters = [
            parameter
            for label in labels
            if label in self.plain
            for name, parameter in self.plain[label].named_parameters()
            if label == "E" or name.startswith(only)
        ]
        return torch.optim.Adam(parameters, lr=lr, betas=(0.5, 0.999), eps=1e-8)


def draw_batch(label_nc: int = LABELS, dtype: torch.dtype = torch.float64, **more: Tensor) -> dict[str, Tensor]:
    inst = torch.randint(0, 5, (2, 1, 4, 8)).repeat_interleave(8, 2).repeat_interleave(8, 3)
    label = inst % label_nc if label_nc else torch.rand(2, 3, *SIZE, dtype=dtype) * 2 - 1
    image = torch.rand(2, 3, *SIZE, dtype=dtype) * 2 - 1
    return {"label": label.to(torch.uint8) if label_nc else label, "inst": inst + 26000, "image": image, **more}
