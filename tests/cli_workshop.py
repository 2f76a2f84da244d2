"""Everything that the commands are tried on: good data, bad data, two short trainings and strange files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_training import draw_dataset, draw_pair, flags, run_training, save, tiny_config

TRAIN = flags(tiny_config(Path(), name="new", n_epochs=1, n_epochs_decay=0))
"""A training of data/train, which succeeds; what stands behind it takes precedence."""


def fill_workshop(root: Path) -> None:
    """Also the trainings ``tiny``, and ``odd`` with few options as they were."""
    draw_dataset(root / "data", train=3)
    draw_dataset(root / "grey", train=3, channels=1)
    short = {"n_epochs": 1, "n_epochs_decay": 0, "n_samples": 1}
    odd = {"norm": "instance", "ngf": 5, "direction": "BtoA", "input_nc": 1, "output_nc": 1, "no_dropout": True}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)  # the checkpoints name their data as seen from there
        run_training(tiny_config(Path(), **short))
        run_training(tiny_config(Path(), name="odd", dataroot="grey", **short, **odd))

    (root / "empty" / "train").mkdir(parents=True)
    draw_dataset(root / "damaged", train=5)
    (root / "damaged" / "train" / "pair1.png").write_bytes(b"no image")
    whole = (root / "damaged" / "train" / "pair3.png").read_bytes()
    (root / "damaged" / "train" / "pair3.png").write_bytes(whole[: len(whole) // 2])
    save(draw_pair(36, channels=4), root / "rgba" / "train" / "see_through.png")
    save(draw_pair(36)[:, :-1], root / "halves" / "train" / "odd_width.png")
    for folder, names, size in (("trainA", "abc", 36), ("trainB", "abd", 36)):
        for name in names:
            save(draw_pair(size), root / "unpaired" / folder / f"{name}.png")
    save(draw_pair(36), root / "sizes" / "trainA" / "a.png")
    save(draw_pair(40), root / "sizes" / "trainB" / "a.png")
    for name, size in (("one", 36), ("other", 44)):
        save(draw_pair(size), root / "mixed" / "train" / f"{name}.png")

    (root / "unknown.yaml").write_text("n_epoch: 3\n")
    (root / "wrong.yaml").write_text("ngf: four\n")
    (root / "null.yaml").write_text("ngf:\n")
    (root / "list.yaml").write_text("- ngf\n")
    (root / "broken.yaml").write_text("ngf: [1\n")
    (root / "resume.yaml").write_text("resume: true\n")
    (root / "weights.pth").write_bytes(b"no weights")
    torch.save({"model.0.weight": torch.zeros(3, 3, 3, 3)}, root / "unknown_network.pth")


def picture(path: Path | str) -> np.ndarray:
    return np.asarray(Image.open(path))
