"""Street scenes as batches of a training: the package draws them, so every machine has the same ones."""

from __future__ import annotations

import torch
from torch import Tensor

from torchp2p.data import colourise_labels
from torchp2p.data.demo import draw_scene
from torchp2p.data.transforms import Size
from torchp2p.train import HDTrainConfig, RunConfig


def scene_batches(config: RunConfig, size: Size, count: int) -> list[dict[str, Tensor]]:
    """One scene each of ``size`` (height, width), as the step of ``config`` takes them."""
    return [_batch(config, size, seed) for seed in range(count)]


def _batch(config: RunConfig, size: Size, seed: int) -> dict[str, Tensor]:
    scene = draw_scene(size, seed)

    def image(pixels: object) -> Tensor:
        return torch.as_tensor(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1

    def ids(pixels: object) -> Tensor:
        return torch.as_tensor(pixels)[None, None]

    if isinstance(config, HDTrainConfig):
        return {"label": ids(scene.label), "inst": ids(scene.inst), "image": image(scene.image)}
    return {"A": image(colourise_labels(scene.label)), "B": image(scene.image)}
