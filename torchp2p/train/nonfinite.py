"""Infinities and nans: which layer they come from, and what a picture shows where they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

NONFINITE_COLOUR = (255, 0, 255)
"""RGB of the pixels of a training's pictures that are not finite: magenta."""


def first_nonfinite(networks: Mapping[str, nn.Module], forward: Callable[[], object]) -> str | None:
    """The name of the first layer whose output is not finite, such as ``G.model.16.conv_block.1``.

    Args:
        networks: by the name that their layers are to have in front.
        forward: runs them; without gradients, and once.

    Returns:
        None where every output is finite.
    """
    found: list[str] = []
    handles = []
    for label, network in networks.items():
        for name, layer in network.named_modules(prefix=label):

            def look(_layer: nn.Module, _inputs: Any, output: Any, name: str = name) -> None:
                if not found and not all(each.isfinite().all() for each in _tensors(output)):
                    found.append(name)

            handles.append(layer.register_forward_hook(look))
    try:
        with torch.no_grad():
            forward()
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


def plainly(fake: Tensor, picture: Callable[[Tensor], npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
    """``picture(fake)``, with the pixels of ``fake`` that are not finite in NONFINITE_COLOUR.

    A training whose networks have failed goes on to where it is told to stop, and its gallery shows the failure.

    Args:
        fake: (C, H, W).
        picture: makes uint8 RGB (H, W, 3), at least up to some height and width, of finite values.
    """
    finite = fake.isfinite()
    shown = picture(fake.where(finite, 0))
    height, width = shown.shape[:2]
    shown[~finite.all(0)[:height, :width].cpu().numpy()] = NONFINITE_COLOUR
    return shown


def _tensors(output: Any) -> list[Tensor]:
    """The tensors in what a module returns: one, or lists of any depth; anything else is not looked into."""
    if isinstance(output, Tensor):
        return [output]
    return [tensor for each in output for tensor in _tensors(each)] if isinstance(output, (list, tuple)) else []
