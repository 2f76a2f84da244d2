"""Running a generator over a dataset: images, triptychs and a gallery (spec sections 9.1, 9.2)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from torchp2p.data import PairedDataset
from torchp2p.models import run_generator
from torchp2p.train.gallery import ResultGallery
from torchp2p.train.writer import Writer

_logger = logging.getLogger("torchp2p")


def translate(
    generator: nn.Module,
    dataset: PairedDataset,
    folder: Path,
    *,
    title: str,
    limit: int | None = None,
    eval_mode: bool = False,
    seed: int = 0,
    device: torch.device | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write ``images/<name>_{real_A,fake_B,real_B}``, triptychs and ``index.html`` into ``folder``.

    Args:
        generator: run as the originals test, with batch statistics and dropout, unless ``eval_mode``.
        dataset: its samples, one at a time; sizes may differ.
        limit: the first so many samples.
        seed: of dropout; sample i uses seed + i, so a sample's result does not depend on the others.
        progress: called with the number done and the number in all.

    Returns:
        The gallery's page.

    Raises:
        OSError: the folder cannot be written to.
        ValueError: an image cannot be read, or has the wrong channels; the file is named.
    """
    device = device or torch.device("cpu")
    generator = generator.to(device)
    count = len(dataset) if limit is None else min(limit, len(dataset))
    with Writer() as writer:
        gallery = ResultGallery(folder, title, writer)
        for index in range(count):
            sample = dataset.sample(index, 0)
            made = run_generator(generator, sample["A"][None].to(device), eval_mode=eval_mode, seed=seed + index)
            pictures = dataset.pictures(sample)
            images = {"real_A": pictures[0]}
            images["fake_B"] = dataset.pictures({**sample, "B": made[0].float().cpu()})[1]
            if len(pictures) > 1:
                images["real_B"] = pictures[1]
            gallery.add(sample["path"], images)
            if progress is not None:
                progress(index + 1, count)
        gallery.finish()
    return folder / "index.html"
