"""Running a generator over a dataset: images, triptychs and a gallery (spec sections 9.1, 9.2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor, nn

from torchp2p.data import LabelledDataset, PairedDataset, to_rgb, to_step_batch
from torchp2p.models import run_generator, synthesize
from torchp2p.train.gallery import ResultGallery
from torchp2p.train.writer import Writer

Style: TypeAlias = Callable[[Mapping[str, Tensor]], Tensor | None]
"""From a batch of one label map to the features (1, C, H, W) that its generator sees; None where it sees none."""


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
        ValueError: an image cannot be read, or has the wrong channels; the file is named. Or the generator makes nan.
    """
    device = device or torch.device("cpu")
    generator = generator.to(device)
    count = len(dataset) if limit is None else min(limit, len(dataset))
    with Writer() as writer:
        gallery = ResultGallery(folder, title, writer)
        for index in range(count):
            sample = dataset.sample(index, 0)
            made = run_generator(generator, sample["A"][None].to(device), eval_mode=eval_mode, seed=seed + index)
            _require_numbers(made, sample["path"])
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


def translate_labels(
    generator: nn.Module,
    dataset: LabelledDataset,
    folder: Path,
    styles: Mapping[str, Style],
    *,
    title: str,
    device: torch.device | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write ``images/<name>_{input_label,synthesized_image,real_image}`` and ``index.html`` into ``folder``.

    Args:
        generator: of pix2pixHD.
        dataset: its label maps, one at a time; sizes may differ.
        styles: by label of the picture; every label map is rendered in each, side by side.
        progress: called with the number done and the number in all.

    Returns:
        The gallery's page.

    Raises:
        OSError: the folder cannot be written to.
        ValueError: a file cannot be read; it is named. Or the generator makes nan.
    """
    device = device or torch.device("cpu")
    generator = generator.to(device)
    plain = dataset.unaugmented()
    with Writer() as writer:
        gallery = ResultGallery(folder, title, writer)
        for index in range(len(plain)):
            sample = plain.sample(index, 0)
            batch = to_step_batch({key: value[None] for key, value in sample.items() if torch.is_tensor(value)}, device)
            label, *real = plain.pictures(sample)
            images = {"input_label": label}
            for name, style in styles.items():
                features = style(batch)
                made = synthesize(
                    generator, batch["label"], batch.get("inst"), plain.options.label_nc, features,
                    ignored=plain.ignored_label,
                )  # fmt: skip
                _require_numbers(made, sample["name"])
                images[name] = to_rgb(made[0])
            gallery.add(sample["name"], images | dict(zip(("real_image",), real, strict=False)))
            if progress is not None:
                progress(index + 1, len(plain))
        gallery.finish()
    return folder / "index.html"


def _require_numbers(made: Tensor, name: str) -> None:
    if made.isnan().any():
        raise ValueError(f"{name}: the generator makes nan of this sample; its training has failed")
