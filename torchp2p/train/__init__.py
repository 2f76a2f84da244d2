"""Training: the step, usable alone, and the trainer around it."""

from torchp2p.train.config import PRESETS, ConfigError, TrainConfig, preset
from torchp2p.train.pix2pix_step import Pix2PixStep
from torchp2p.train.pix2pixhd_step import Pix2PixHDStep
from torchp2p.train.pool import ImagePool
from torchp2p.train.schedule import lr_factor
from torchp2p.train.state import CheckpointError
from torchp2p.train.trainer import Outcome, build_step, train

__all__ = [
    "PRESETS",
    "CheckpointError",
    "ConfigError",
    "ImagePool",
    "Outcome",
    "Pix2PixHDStep",
    "Pix2PixStep",
    "TrainConfig",
    "build_step",
    "lr_factor",
    "preset",
    "train",
]
