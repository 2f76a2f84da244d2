"""pix2pix as the trainer trains it: U-Net or ResNet and PatchGAN on pairs (spec section 5.1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from torchp2p.data import PairedDataset, Sample, build_dataset
from torchp2p.models import define_D, generator_from_config, run_generator
from torchp2p.train.compiled import compile_networks
from torchp2p.train.config import TrainConfig
from torchp2p.train.layout import images_in, placed
from torchp2p.train.lean import Lean
from torchp2p.train.nonfinite import plainly
from torchp2p.train.pix2pix_step import Pix2PixStep
from torchp2p.train.recipe import STILLS_SEED, GeneratorState, Picture, Recipe


class Pix2PixRecipe(Recipe[TrainConfig]):
    """See ``Recipe``."""

    dataset: PairedDataset

    def __init__(self, config: TrainConfig) -> None:
        super().__init__(config)
        self.dataset = build_dataset(config)

    def build(self, *, resuming: bool = False) -> list[str]:
        """Make the step, from nothing."""
        self._step = build_step(self.config)
        self.networks = {"G": self._step.G} if self._step.D is None else {"G": self._step.G, "D": self._step.D}
        self._take = self.graph(self._step)
        return compile_networks(self.networks.values(), self.device) if self.config.compile else []

    def begin_epoch(self, epoch: int) -> None:
        """Set the learning rate."""
        self._step.set_lr(self.config.lr_in_epoch(epoch))

    def to_device(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """``{"A": ..., "B": ...}``."""
        moved = {key: batch[key].to(self.device, non_blocking=True) for key in ("A", "B")}
        return images_in(self.config.layout(), moved)

    def step(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One iteration."""
        return self._take(batch)

    def shown(self, batch: Mapping[str, Any]) -> dict[str, Picture]:
        """real_A, fake_B and real_B."""
        assert self._step.fake is not None
        sample: Sample = {"A": batch["A"][0].cpu(), "B": batch["B"][0].cpu(), "path": ""}
        real_A, real_B = self.dataset.pictures(sample)
        return {"real_A": real_A, "fake_B": self._fake_picture(sample, self._step.fake[0]), "real_B": real_B}

    def still(self, index: int) -> dict[str, Picture]:
        """real_A, real_B and fake_B."""
        sample = self.dataset.unaugmented().sample(index, 0)
        fake = run_generator(self._step.G, sample["A"][None].to(self.device), seed=STILLS_SEED)
        real_A, real_B = self.dataset.pictures(sample)
        return {"real_A": real_A, "real_B": real_B, "fake_B": self._fake_picture(sample, fake[0])}

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Of G, and of D if there is one."""
        found = {"optimizer_G": self._step.optimizer_G, "optimizer_D": self._step.optimizer_D}
        return {name: optimizer for name, optimizer in found.items() if optimizer is not None}

    def extras(self) -> dict[str, Any]:
        """The pool, and the randomness of the gradient penalty."""
        return {"pool": self._step.pool, "penalty_rng": GeneratorState(self._step.penalty_generator)}

    def _fake_picture(self, sample: Sample, fake: Tensor) -> Picture:
        return plainly(fake.float().cpu(), lambda image: self.dataset.pictures({**sample, "B": image})[1])


def build_step(config: TrainConfig, *, lean: Lean = Lean()) -> Pix2PixStep:
    """Networks, optimisers and losses as the configuration says, seeded, on its device.

    Args:
        config: of pix2pix; the data are not looked at.
        lean: the savings of the step.

    Returns:
        A step on batches ``{"A": (N, input_nc, H, W), "B": (N, output_nc, H, W)}`` in [-1, 1] (spec section 5.1).
    """
    torch.manual_seed(config.seed)
    device, layout = config.torch_device(), config.layout()
    G = placed(generator_from_config(config.as_dict()), device, layout)
    D = None
    if config.use_GAN:
        channels = config.output_nc + (config.input_nc if config.condition_GAN else 0)
        D = define_D(
            config.netD,
            channels,
            config.ndf,
            config.n_layers_D,
            config.norm,
            config.init_type,
            config.init_gain,
        )
        D = placed(D, device, layout)
    return Pix2PixStep(
        G,
        D,
        precision=config.precision,
        gan_mode=config.gan_mode,
        use_GAN=config.use_GAN,
        use_L1=config.use_L1,
        condition_GAN=config.condition_GAN,
        pixel_loss=config.pixel_loss,
        lambda_L1=config.lambda_L1,
        pool_size=config.pool_size,
        lr=config.lr,
        beta1=config.beta1,
        lean=lean,
        seed=config.seed,
    )
