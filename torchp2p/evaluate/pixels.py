"""Distances to the true image, L1 and PSNR, beside those of the simplest predictor, the mean image."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from torchp2p.data import PairedDataset


@dataclass(frozen=True)
class PixelScores:
    """Averages over the images of a dataset.

    Attributes:
        count: images.
        l1: mean absolute difference, images in [-1, 1].
        psnr: in dB, of the mean squared difference of each image, peak to peak 2.
        baseline_l1: of predicting the mean target for every image; nan where none was given.
    """

    count: int
    l1: float
    psnr: float
    baseline_l1: float

    @property
    def ratio(self) -> float:
        """l1 as a share of the baseline's; infinite where the baseline is never wrong."""
        return self.l1 / self.baseline_l1 if self.baseline_l1 else math.inf


def mean_target(dataset: PairedDataset) -> Tensor:
    """The mean of all targets, (C, H, W).

    Raises:
        ValueError: the targets differ in size.
    """
    total: Tensor | None = None
    for index in range(len(dataset)):
        target = dataset.sample(index, 0)["B"].double()
        if total is not None and total.shape != target.shape:
            raise ValueError(
                f"{dataset.name(index)} has a target of {tuple(target.shape)}, the ones before of "
                f"{tuple(total.shape)}: a mean image needs one size"
            )
        total = target if total is None else total + target
    assert total is not None  # a dataset is never empty
    return (total / len(dataset)).float()


def pixel_scores(
    predict: Callable[[Tensor, int], Tensor], dataset: PairedDataset, baseline: Tensor | None = None
) -> PixelScores:
    """Score ``predict`` on every sample.

    Args:
        predict: from A (1, C, H, W) and the sample's index to the predicted B (1, C', H, W).
        dataset: paired samples.
        baseline: (C', H, W), what the simplest predictor always says, such as ``mean_target``; where its size
            is not a target's, the baseline's score is nan.
    """
    l1, psnr, baseline_l1 = [], [], []
    for index in range(len(dataset)):
        sample = dataset.sample(index, 0)
        target = sample["B"]
        difference = predict(sample["A"][None], index)[0].float().cpu() - target
        l1.append(difference.abs().mean().item())
        psnr.append(10 * math.log10(4 / max(difference.square().mean().item(), 1e-12)))
        fits = baseline is not None and baseline.shape == target.shape
        baseline_l1.append((baseline - target).abs().mean().item() if fits and baseline is not None else math.nan)
    average = [float(torch.tensor(values, dtype=torch.float64).mean()) for values in (l1, psnr, baseline_l1)]
    return PixelScores(len(dataset), *average)
