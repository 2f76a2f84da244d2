"""The smallest pix2pixHD trainings, with their data and what is made of them, for the tests of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from torchp2p.cli.main import main
from torchp2p.data.demo import write_dataset
from torchp2p.train import HDTrainConfig, Outcome, train

TINY: dict[str, Any] = {
    "dataroot": "data", "checkpoints_dir": "checkpoints", "load_size": 64, "ngf": 2, "ndf": 2, "nef": 2,
    "n_downsample_global": 3, "n_blocks_global": 1, "n_downsample_E": 2, "num_D": 1, "n_layers_D": 1,
    "no_vgg_loss": True, "niter": 1, "niter_decay": 0, "num_threads": 0, "no_html": True, "device": "cpu",
}  # fmt: skip


def train_tiny(name: str, **changes: Any) -> Outcome:
    """Train in ``checkpoints/<name>`` of the current folder on its ``data``: two steps."""
    return train(HDTrainConfig.from_mapping({**TINY, "name": name, **changes}), console=Console(quiet=True))


def fill_studio() -> None:
    """In the current folder: ``data`` and the trainings ``plain``, and ``styled`` with its clusters."""
    write_dataset("data", 2, (32, 64), seed=0)
    write_dataset("data", 2, (36, 64), seed=9, phase="test")
    train_tiny("plain")
    train_tiny("styled", instance_feat=True)
    assert main(["features", "encode", "checkpoints/styled"]) == 0
    assert main(["features", "cluster", "checkpoints/styled"]) == 0
    for part in ("inst", "img"):
        assert len(list(Path(f"data/test_{part}").iterdir())) == 2
