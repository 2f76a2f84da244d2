"""Training: the step, usable alone, and the trainer around it."""

from torchp2p.train.config import TrainConfig
from torchp2p.train.graphed import GraphedStep
from torchp2p.train.hd_config import HDTrainConfig
from torchp2p.train.lean import Lean
from torchp2p.train.pix2pix_recipe import build_step
from torchp2p.train.pix2pix_step import Pix2PixStep
from torchp2p.train.pix2pixhd_step import Pix2PixHDStep
from torchp2p.train.pool import ImagePool
from torchp2p.train.presets import PRESETS, preset
from torchp2p.train.run_config import ConfigError, RunConfig
from torchp2p.train.schedule import lr_factor
from torchp2p.train.state import CheckpointError
from torchp2p.train.trainer import Outcome, train

__all__ = [
    "PRESETS",
    "CheckpointError",
    "ConfigError",
    "GraphedStep",
    "HDTrainConfig",
    "ImagePool",
    "Lean",
    "Outcome",
    "Pix2PixHDStep",
    "Pix2PixStep",
    "RunConfig",
    "TrainConfig",
    "build_step",
    "lr_factor",
    "preset",
    "train",
]
