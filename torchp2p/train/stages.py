"""A training as the stages that it is made of: coarse to fine is a global generator, then what is built on it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from torchp2p.train.hd_config import HDTrainConfig
from torchp2p.train.run_config import RunConfig
from torchp2p.train.state import has_state, read_state, run_folder


@dataclass(frozen=True)
class Stage:
    """One run of the trainer.

    Attributes:
        title: what it trains, in words.
        config: of the run.
        features: whether the run reads features that the encoder of the stage before has to make first.
        shrink: how many times smaller its images are, in height and width, than those of the last stage.
    """

    title: str
    config: RunConfig
    features: bool = False
    shrink: int = 1


def stages_of(config: RunConfig) -> list[Stage]:
    """The stages of a training, first to last; most have one (spec section 5.4).

    With ``coarse_to_fine`` the global generator is trained first, with the widths and discriminators that the
    enhancers build on, at the size that it works at; then the enhancer alone for ``niter_fix_global`` epochs, and
    all jointly.
    """
    if not isinstance(config, HDTrainConfig) or not config.coarse_to_fine or config.load_pretrain:
        return [Stage(_title(config), config)]
    halved = 2**config.n_local_enhancers
    coarse = dataclasses.replace(
        config, name=f"{config.name}_global", netG="global", ngf=config.ngf * halved,
        num_D=max(1, config.num_D - config.n_local_enhancers), load_size=config.load_size // halved,
        crop_size=config.crop_size // halved, resize_or_crop="scale_width", load_features=False,
        coarse_to_fine=False, niter_fix_global=0, niter=config.niter_global, niter_decay=config.niter_decay_global,
    )  # fmt: skip
    fine = dataclasses.replace(
        config, coarse_to_fine=False, load_pretrain=str(run_folder(coarse)), which_epoch="latest"
    )
    return [Stage(_title(coarse), coarse, shrink=halved), Stage(_title(fine), fine, features=config.load_features)]


def is_done(config: RunConfig) -> bool:
    """Whether a run has trained all its epochs.

    Raises:
        CheckpointError: its state cannot be read.
    """
    folder = run_folder(config)
    return has_state(folder) and bool(read_state(folder)["progress"]["epoch"] > config.epochs)


def _title(config: RunConfig) -> str:
    if not isinstance(config, HDTrainConfig):
        return "pix2pix"
    if config.netG == "global":
        return "global generator"
    if not config.niter_fix_global:
        return "all jointly"
    return f"enhancer alone for {config.niter_fix_global} epochs, then all jointly"
