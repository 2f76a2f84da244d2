"""``--compile``: whole networks under torch.compile, each one graph, or a sentence why not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_hd_training import tiny_hd_config
from tiny_training import draw_dataset, tiny_config
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from torchp2p import models
from torchp2p.models import LabelMap
from torchp2p.train import Pix2PixStep, compiled
from torchp2p.train.compiled import compile_networks
from torchp2p.train.pix2pix_recipe import Pix2PixRecipe
from torchp2p.train.pix2pixhd_recipe import Pix2PixHDRecipe

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _nothing_compiled_before() -> None:
    torch._dynamo.reset()


def image(channels: int, size: int = 16) -> Tensor:
    return torch.rand(1, channels, size, size)


def labels() -> LabelMap:
    label = torch.randint(0, 4, (1, 1, 16, 16), dtype=torch.uint8)
    return LabelMap(label, torch.randint(0, 9, (1, 1, 16, 16), dtype=torch.int32), 4)


class BesideLabels(nn.Module):
    """D as pix2pixHD's step calls it."""

    def __init__(self) -> None:
        super().__init__()
        self.D = models.MultiscaleDiscriminator(8, 2, 1, 2)

    def forward(self, x: Tensor, condition: LabelMap) -> Any:
        return self.D(x, self.D.share(condition))


NETWORKS: dict[str, Callable[[], tuple[Any, ...]]] = {
    "unet_128": lambda: (models.unet_128(3, 3, ngf=2), image(3, 128)),
    "LocalEnhancer of labels": lambda: (models.LocalEnhancer(5, 3, 2, 1, 1), labels()),
    "MultiscaleDiscriminator beside labels": lambda: (BesideLabels(), image(3), labels()),
    "InstanceEncoder": lambda: (models.InstanceEncoder(3, 2, 2, 1), image(3), labels().label),
}
"""One of every kind: a LocalEnhancer begins with a GlobalGenerator, and both have the blocks of the ResNet."""


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_one_graph_without_a_break_and_learns_the_same(name: str) -> None:
    network, *inputs = NETWORKS[name]()

    def gradients() -> list[Tensor | None]:
        torch.manual_seed(1)  # of dropout
        network.zero_grad()
        outputs = [leaf for leaf in tree_leaves(network(*inputs)) if isinstance(leaf, Tensor)]
        torch.stack([output.square().sum() for output in outputs]).sum().backward()
        return [parameter.grad for parameter in network.parameters()]

    before, keys = gradients(), list(network.state_dict())
    network.compile(dynamic=False, fullgraph=True, backend="eager")
    torch.testing.assert_close(gradients(), before)
    assert list(network.state_dict()) == keys


def test_a_step_whose_networks_are_compiled_is_the_same_step(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, losses = {"A": image(3), "B": image(3)}, []
    in_place = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda net, **options: in_place(net, backend="eager", **options))
    for compiling in (False, True):
        torch.manual_seed(1)
        G = models.ResnetGenerator(3, 3, ngf=2, n_blocks=1, use_dropout=False)
        step = Pix2PixStep(G, models.PatchDiscriminator(6, ndf=2, n_layers=1))
        if compiling and step.D is not None:
            compile_networks([step.G, step.D], CPU)
        losses.append([step(batch) for _ in range(2)])
    torch.testing.assert_close(*losses)


# --- when it is asked for ---------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """The networks that torch was asked to compile, and how."""
    found: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(nn.Module, "compile", lambda net, **options: found.append((type(net).__name__, options)))
    return found


def test_every_network_of_a_training_is_compiled_when_asked_for(
    tmp_path: Path, asked: list[tuple[str, dict[str, Any]]]
) -> None:
    draw_dataset(tmp_path / "data")
    for compiling in (False, True):
        Pix2PixRecipe(tiny_config(tmp_path, compile=compiling)).build()
        Pix2PixHDRecipe(tiny_hd_config(tmp_path, instance_feat=True, compile=compiling)).build()
    names = ["ResnetGenerator", "PatchDiscriminator", "GlobalGenerator", "MultiscaleDiscriminator", "InstanceEncoder"]
    assert asked == [(name, {"dynamic": False}) for name in names]


@pytest.mark.usefixtures("asked")
def test_where_fused_kernels_run_it_is_said_that_it_is_not_needed(tmp_path: Path) -> None:
    draw_dataset(tmp_path / "data")
    (note,) = Pix2PixRecipe(tiny_config(tmp_path, compile=True)).build()
    assert note == "compile is not needed here, the native kernels run on cpu; it is done as asked"


@pytest.mark.usefixtures("asked")
def test_where_none_run_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "first_available", lambda *_: ("compile", []))
    assert compile_networks([nn.Conv2d(1, 1, 1)], CPU) == []


def test_without_a_compiler_it_is_refused_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, asked: list[tuple[str, dict[str, Any]]]
) -> None:
    monkeypatch.setattr(compiled, "compile_unavailable", lambda device: "torch.compile needs a C++ compiler")
    with pytest.raises(ValueError, match=r"^compile must be false here: torch.compile needs a C\+\+ compiler$"):
        compile_networks([nn.Conv2d(1, 1, 1)], CPU)
    assert asked == []
