"""Ids of labels that are out of range: found, named with their place, and refused."""

from __future__ import annotations

import torch
from torch import Tensor


def refuse_label(labels: Tensor, classes: int, index: int) -> None:
    """Raise for the id at a flat index of (N, 1, H, W)."""
    height, width = labels.shape[2:]
    n, y, x = index // (height * width), index // width % height, index % width
    raise ValueError(
        f"labels must be ids in 0..{classes - 1}, the label channels of weight, got {labels[n, 0, y, x].item()} "
        f"at (n, y, x) = ({n}, {y}, {x}); ignore_out_of_range=True lets such pixels contribute nothing"
    )


def captured(x: Tensor) -> bool:
    """Whether what is done to ``x`` goes into a CUDA graph instead of being done."""
    return x.is_cuda and torch.cuda.is_current_stream_capturing()


def assert_on_device(right: Tensor, classes: int) -> None:
    """What stands in a CUDA graph for an error that names id and place."""
    torch._assert_async(right, f"labels must be ids in 0..{classes - 1}, the label channels of weight")


def check_labels(labels: Tensor, classes: int) -> None:
    """Raise for the first id out of range. A graph being captured cannot wait for an answer: it gets an assertion."""
    ids = labels.long()
    wrong = ((ids < 0) | (ids >= classes)).flatten()
    if captured(labels):
        assert_on_device(~wrong.any(), classes)
        return
    places = wrong.nonzero()
    if len(places):
        refuse_label(labels, classes, int(places[0]))
