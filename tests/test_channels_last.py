"""Training in channels_last: nothing is brought into another order on the way, and nothing else changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pix2pixhd_case import Setting, draw_batch
from tiny_hd_training import tiny_hd_config
from tiny_training import draw_dataset, tiny_config
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from torchp2p import models
from torchp2p.models import LabelMap
from torchp2p.train import Pix2PixStep
from torchp2p.train.capturable import networks_of
from torchp2p.train.layout import chosen_layout, images_in, lay_out_state, layout_of
from torchp2p.train.pix2pix_recipe import Pix2PixRecipe
from torchp2p.train.pix2pixhd_recipe import Pix2PixHDRecipe

LAST = torch.channels_last
KERNEL = 7 * 7
"""Pixels of the largest filter: what has more is an activation."""

aten = torch.ops.aten
LEFT_OUT = (aten.permute.default, aten.cat.default, aten.sum.dim_IntList)
"""The first two speak of (N, H, W, C), too."""


class Conversions(TorchDispatchMode):
    """Collects the ops whose output is an activation in contiguous order.

    Those on single channels have no order; those on fewer than ``channels`` are left out, and so is the sum that ends a
    broadcast, where torch chooses.
    """

    def __init__(self, channels: int = 2) -> None:
        super().__init__()
        self.channels = channels
        self.found: list[str] = []

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        result = op(*args, **(kwargs or {}))
        if op not in LEFT_OUT:
            for tensor in tree_leaves(result):
                if isinstance(tensor, Tensor) and self._is_wrong(tensor):
                    self.found.append(f"{op} {tuple(tensor.shape)}")
        return result

    def _is_wrong(self, x: Tensor) -> bool:
        return (
            x.dim() == 4
            and x.shape[1] >= self.channels
            and x.shape[2] * x.shape[3] > KERNEL
            and x.is_contiguous()
            and not x.is_contiguous(memory_format=LAST)
        )


def image(channels: int, size: int = 32) -> Tensor:
    return torch.rand(1, channels, size, size).to(memory_format=LAST)


def labels(layout: torch.memory_format = LAST) -> LabelMap:
    label = torch.randint(0, 4, (1, 1, 32, 32), dtype=torch.uint8)
    return LabelMap(label, torch.randint(0, 9, (1, 1, 32, 32), dtype=torch.int32), 4, layout=layout)


NETWORKS: dict[str, Callable[[], tuple[Any, ...]]] = {
    "unet_128": lambda: (models.unet_128(3, 3, ngf=2), image(3, 128)),
    "encoder_decoder": lambda: (models.encoder_decoder(3, 3, ngf=2), image(3, 256)),
    "resnet_6blocks": lambda: (models.resnet_6blocks(3, 3, ngf=2), image(3)),
    "PatchDiscriminator": lambda: (models.PatchDiscriminator(6, ndf=4), image(6)),
    "PixelDiscriminator": lambda: (models.PixelDiscriminator(6, ndf=4), image(6)),
    "GlobalGenerator": lambda: (models.GlobalGenerator(5, 3, 2, 2, 1), image(5)),
    "GlobalGenerator of labels": lambda: (models.GlobalGenerator(5, 3, 2, 2, 1), labels()),
    "LocalEnhancer": lambda: (models.LocalEnhancer(5, 3, 2, 2, 1), image(5)),
    "LocalEnhancer of labels": lambda: (models.LocalEnhancer(5, 3, 2, 2, 1), labels()),
    "MultiscaleDiscriminator": lambda: (models.MultiscaleDiscriminator(8, 4, 2, 2), image(8)),
    "InstanceEncoder": lambda: (models.InstanceEncoder(3, 2, 2, 2), image(3), labels().label),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_forward_and_backward_converts_nothing(name: str) -> None:
    network, *inputs = NETWORKS[name]()
    network.to(memory_format=LAST)
    with Conversions() as conversions:
        outputs = [leaf for leaf in tree_leaves(network(*inputs)) if isinstance(leaf, Tensor)]
        torch.stack([output.square().sum() for output in outputs]).sum().backward()
    assert conversions.found == []


def test_a_conversion_would_be_seen() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(2), nn.Unflatten(2, (30, 30))).to(memory_format=LAST)
    with Conversions() as conversions:
        network(image(3)).clone(memory_format=torch.contiguous_format)
    assert conversions.found


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_pix2pix_step_converts_no_activation(precision: str) -> None:
    """The gradient of the pixel loss has the image's channels and the other order: torch makes it."""
    G, D = models.unet_128(3, 3, ngf=4), models.PatchDiscriminator(6, ndf=4)
    step = Pix2PixStep(G.to(memory_format=LAST), D.to(memory_format=LAST), precision=precision)
    with Conversions(channels=4) as conversions:
        step({"A": image(3, 128), "B": image(3, 128)})
    assert conversions.found == []


@pytest.mark.parametrize("netG", ["global", "local1"])
def test_a_pix2pixhd_step_converts_nothing(netG: str) -> None:
    step = Setting(netG, features=True, vgg=True).step()
    for network in networks_of(step).values():
        network.to(memory_format=LAST)
    batch = images_in(LAST, draw_batch())
    with Conversions() as conversions:
        step(batch)
    assert conversions.found == []


@pytest.mark.parametrize("inst", [True, False])
@pytest.mark.parametrize("ignored", [None, 3])
def test_a_label_map_in_channels_last_has_the_values_of_one_that_is_not(inst: bool, ignored: int | None) -> None:
    label = torch.randint(0, 4, (2, 1, 9, 11), dtype=torch.uint8)
    ids = torch.randint(0, 5, (2, 1, 9, 11)) if inst else None
    features = torch.rand(2, 2, 9, 11)
    maps = [LabelMap(label, ids, 4, ignored=ignored, layout=layout) for layout in (torch.contiguous_format, LAST)]
    for plain, last in zip(*(each.with_features(features).pyramid(3) for each in maps), strict=True):
        plain, last = (each.tensor() if isinstance(each, LabelMap) else each for each in (plain, last))
        assert torch.equal(plain, last)
        assert (layout_of(plain), layout_of(last)) == (torch.contiguous_format, LAST)


# --- what a training chooses ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "device", "layout"),
    [
        (None, "cpu", torch.contiguous_format),
        (None, "cuda", LAST),
        (True, "cpu", LAST),
        (False, "cuda", torch.contiguous_format),
    ],
)
def test_the_layout_is_the_one_asked_for_or_that_of_the_device(
    asked: bool | None, device: str, layout: torch.memory_format
) -> None:
    assert chosen_layout(asked, torch.device(device)) == layout


def recipes(folder: Path, **changes: Any) -> list[Any]:
    draw_dataset(folder / "data")
    config = tiny_config(folder, channels_last=True, **changes)
    hd = tiny_hd_config(folder, channels_last=True, instance_feat=True, **changes)
    return [Pix2PixRecipe(config), Pix2PixHDRecipe(hd)]


def test_networks_and_images_of_a_training_are_in_the_layout_asked_for(tmp_path: Path) -> None:
    for recipe in recipes(tmp_path):
        recipe.build()
        for network in recipe.networks.values():
            assert all(
                layout_of(each) == LAST for each in network.parameters() if each.dim() == 4 and each.numel() > 64
            )
        sample = recipe.dataset[0]
        batch = recipe.to_device({part: value[None] for part, value in sample.items() if isinstance(value, Tensor)})
        for value in batch.values():
            assert layout_of(value) == (LAST if value.is_floating_point() else torch.contiguous_format)
        recipe.step(batch)


def test_a_state_in_the_other_order_is_laid_out_as_the_weights_are(tmp_path: Path) -> None:
    (recipe, _) = recipes(tmp_path)
    recipe.build()
    sample = recipe.dataset[0]
    recipe.step(recipe.to_device({part: sample[part][None] for part in ("A", "B")}))
    state = recipe.state()
    saved = {
        number: {name: value.contiguous() for name, value in each.items()}
        for number, each in state["optimizer_G"]["state"].items()
    }
    recipe.load_state({**state, "optimizer_G": {**state["optimizer_G"], "state": saved}})
    (optimizer, _) = recipe.optimizers().values()
    for number, (parameter, held) in enumerate(optimizer.state.items()):
        for name in ("exp_avg", "exp_avg_sq"):
            assert held[name].stride() == parameter.stride()
            assert torch.equal(held[name], saved[number][name])


def test_laying_out_leaves_alone_what_lies_right() -> None:
    conv = nn.Conv2d(3, 4, 3).to(memory_format=LAST)
    optimizer = torch.optim.Adam(conv.parameters())
    conv(image(3)).sum().backward()
    optimizer.step()
    before = [value for state in optimizer.state.values() for value in state.values()]
    lay_out_state(optimizer)
    after = [value for state in optimizer.state.values() for value in state.values()]
    assert all(one is other for one, other in zip(before, after, strict=True))
