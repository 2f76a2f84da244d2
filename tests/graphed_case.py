"""Small steps that can become a graph, batches for them, and what a step leaves behind."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from pix2pixhd_case import Setting, draw_batch
from torch import Tensor

from torchp2p.models import PatchDiscriminator, ResnetGenerator
from torchp2p.train import Pix2PixHDStep, Pix2PixStep
from torchp2p.train.capturable import networks_of, optimizers_of
from torchp2p.train.graphed import WARM_UP

Batch = dict[str, Tensor]
STEPS = WARM_UP + 3
LR = 2.0**-12
"""A rate that float32 holds as it is, so that steps with a graph and without are equal to the last bit."""


def pix2pix(**options: Any) -> Pix2PixStep:
    """With batch norm and dropout."""
    torch.manual_seed(1)
    G = ResnetGenerator(3, 3, ngf=2, norm="batch", use_dropout=True, n_blocks=1)
    D = None if options.get("use_GAN") is False else PatchDiscriminator(6, ndf=2, n_layers=1, norm="batch")
    return Pix2PixStep(G, D, lr=LR, **options)


def pix2pix_batch(size: int = 16) -> Batch:
    A, B = torch.rand(2, 1, 3, size, size) * 2 - 1
    return {"A": A, "B": B}


def pix2pixhd(netG: str = "global", norm: str = "instance", features: bool = False, **options: Any) -> Pix2PixHDStep:
    return Setting(netG, norm, features=features).step(lr=LR, **options)


def hd_batch(bad: bool = False) -> Batch:
    batch = draw_batch()
    if bad:
        batch["image"][0, 0, 0, 0] = float("nan")
    return batch


CASES: dict[str, tuple[Callable[[], Any], Callable[..., Batch]]] = {
    "pix2pix": (pix2pix, pix2pix_batch),
    "pix2pix in bfloat16": (lambda: pix2pix(precision="bfloat16"), pix2pix_batch),
    "pix2pix, hinge, L2": (lambda: pix2pix(gan_mode="hinge", pixel_loss="l2"), pix2pix_batch),
    "pix2pix without D": (lambda: pix2pix(use_GAN=False), pix2pix_batch),
    "pix2pixHD": (pix2pixhd, hd_batch),
    "pix2pixHD, batch norm": (lambda: pix2pixhd(norm="batch"), hd_batch),
    "pix2pixHD, an enhancer alone": (lambda: pix2pixhd("local1", fix_global=True), hd_batch),
    "pix2pixHD, features": (lambda: pix2pixhd(features=True), hd_batch),
}


def batches_of(draw: Callable[..., Batch], count: int = STEPS) -> list[Batch]:
    torch.manual_seed(2)
    return [draw() for _ in range(count)]


def run(step: Callable[[Batch], dict[str, Tensor]], batches: list[Batch]) -> list[dict[str, float]]:
    """The losses, read at the end of all steps."""
    torch.manual_seed(3)
    losses = [step(batch) for batch in batches]
    return [{name: loss.item() for name, loss in each.items()} for each in losses]


def state(step: Any) -> dict[str, Any]:
    parts = {**networks_of(step), **optimizers_of(step)}
    return {name: copy.deepcopy(part.state_dict()) for name, part in parts.items()}


def assert_same_state(one: Any, other: Any) -> None:
    torch.testing.assert_close(state(one), state(other), rtol=0, atol=0)
