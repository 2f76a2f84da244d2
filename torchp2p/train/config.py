"""What a pix2pix training is told. Field names are those of the original project (spec sections 10.2, 10.3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torchp2p.data.datasets import DATASETS
from torchp2p.data.transforms import PREPROCESS_MODES
from torchp2p.models.define import DISCRIMINATORS, GENERATORS
from torchp2p.train.run_config import ConfigError, RunConfig
from torchp2p.train.schedule import LR_POLICIES, lr_factor


@dataclass(frozen=True)
class TrainConfig(RunConfig):
    """Everything that decides a pix2pix training.

    Args:
        dataset_mode: aligned (A|B side by side), folders (paired by name), colorization, demo (drawn).
        direction: AtoB or BtoA.
        preprocess: resize_and_crop, crop, scale_width, scale_width_and_crop or none.
        netG: generator network.
        netD: discriminator network.
        n_layers_D: strided layers of the discriminator with netD n_layers.
        norm: batch, instance or none.
        no_dropout: leave out the dropout of the generator.
        variant: of the U-Net, pytorch or paper.
        init_type: normal, xavier, kaiming or orthogonal.
        init_gain: spread of the initial weights.
        gan_mode: vanilla, lsgan, hinge or wgangp.
        use_GAN: train against a discriminator.
        condition_GAN: show the discriminator the input image as well.
        use_L1: add the pixel loss.
        pixel_loss: l1, or l2 for the mean squared difference.
        lambda_L1: weight of the pixel loss.
        n_epochs: epochs at the full learning rate.
        n_epochs_decay: epochs over which it falls.
        lr_policy: linear, linear_hd, step, cosine or constant.
        lr_decay_iters: epochs between the steps of lr_policy step.
        zero_lr_last_epoch: let the linear policy end with an epoch at rate 0, as the original does.
        precision: float32, or bfloat16 for autocast.
    """

    name: str = "pix2pix"
    dataset_mode: str = "aligned"
    direction: str = "AtoB"
    preprocess: str = "resize_and_crop"
    netG: str = "unet_256"
    netD: str = "basic"
    n_layers_D: int = 3
    norm: str = "batch"
    no_dropout: bool = False
    variant: str = "pytorch"
    init_type: str = "normal"
    init_gain: float = 0.02
    gan_mode: str = "vanilla"
    use_GAN: bool = True
    condition_GAN: bool = True
    use_L1: bool = True
    pixel_loss: str = "l1"
    lambda_L1: float = 100.0
    n_epochs: int = 100
    n_epochs_decay: int = 100
    lr_policy: str = "linear"
    lr_decay_iters: int = 50
    zero_lr_last_epoch: bool = False
    precision: str = "float32"

    CHOICES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "dataset_mode": tuple(mode for mode in DATASETS if mode != "single"),
        "direction": ("AtoB", "BtoA"),
        "preprocess": tuple(PREPROCESS_MODES),
        "netG": GENERATORS,
        "netD": DISCRIMINATORS,
        "norm": ("batch", "instance", "none"),
        "variant": ("pytorch", "paper"),
        "init_type": ("normal", "xavier", "kaiming", "orthogonal"),
        "gan_mode": ("vanilla", "lsgan", "hinge", "wgangp"),
        "pixel_loss": ("l1", "l2"),
        "lr_policy": LR_POLICIES,
        "precision": ("float32", "bfloat16"),
    }
    POSITIVE: ClassVar[tuple[str, ...]] = (*RunConfig.POSITIVE, "n_layers_D", "lr_decay_iters")
    NOT_NEGATIVE: ClassVar[tuple[str, ...]] = (
        *RunConfig.NOT_NEGATIVE, "init_gain", "lambda_L1", "n_epochs", "n_epochs_decay",
    )  # fmt: skip
    FREE_ON_RESUME: ClassVar[tuple[str, ...]] = (*RunConfig.FREE_ON_RESUME, "n_epochs", "n_epochs_decay")

    def _check_together(self) -> None:
        super()._check_together()
        if self.n_epochs + self.n_epochs_decay < 1:
            raise ConfigError("n_epochs and n_epochs_decay must not both be 0")
        if not (self.use_GAN or self.use_L1):
            raise ConfigError("use_GAN and use_L1 must not both be off: there would be no loss")
        if self.variant == "paper" and self.netG.startswith("resnet"):
            raise ConfigError(f"variant paper exists for U-Nets and the encoder-decoder, not for {self.netG}")
        if self.use_GAN and self.netD != "pixel" and "crop" in self.preprocess:
            layers = self.n_layers_D if self.netD == "n_layers" else 3
            least = 3 * 2**layers
            if self.crop_size < least:
                raise ConfigError(
                    f"crop_size must be at least {least} for a discriminator of {layers} strided layers, "
                    f"got {self.crop_size}"
                )

    @property
    def epochs(self) -> int:
        """Epochs in all."""
        return self.n_epochs + self.n_epochs_decay

    def lr_in_epoch(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 1."""
        return self.lr * lr_factor(
            self.lr_policy, epoch, self.n_epochs, self.n_epochs_decay, self.lr_decay_iters, self.zero_lr_last_epoch
        )
