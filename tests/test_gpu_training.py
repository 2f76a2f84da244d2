"""The trainer with what is for a GPU: the step as a graph, the options, and that nothing of it changes a result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fake_cuda_graph import FakeCuda, install
from tiny_hd_training import tiny_hd_config
from tiny_training import PAIRS, differences, draw_dataset, read_state, run_training, tiny_config

from torchp2p.cli.parsing import parse
from torchp2p.cli.training_options import training_parser
from torchp2p.train import GraphedStep, RunConfig
from torchp2p.train.capturable import Step
from torchp2p.train.graphed import WARM_UP
from torchp2p.train.pix2pix_recipe import Pix2PixRecipe
from torchp2p.train.presets import MODELS
from torchp2p.train.recipe import Recipe
from torchp2p.train.run_config import changed_on_resume

EXACT: dict[str, Any] = {"pool_size": 0, "lr": 2.0**-12, "no_html": True}
"""A learning rate that float32 holds, and no pool, which a graph cannot have."""


@pytest.fixture
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    """Every training of the test takes its steps as graphs."""

    def graph(recipe: Recipe[Any], step: Step) -> GraphedStep:
        recipe.graphed = GraphedStep(step)
        return recipe.graphed

    monkeypatch.setattr(Recipe, "graph", graph)
    return install(monkeypatch)


def trained(folder: Path, epochs: int, *, resume: bool = False) -> dict[str, Any]:
    """The state that a training of pix2pix ends with."""
    draw_dataset(folder / "data")
    config = tiny_config(folder, lr_policy="constant", n_epochs=epochs, n_epochs_decay=0, **EXACT)
    return read_state(run_training(config, resume=resume).folder)


def test_a_training_with_graphs_ends_where_one_without_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake_cuda: FakeCuda
) -> None:
    graphed = trained(tmp_path / "graphed", epochs=2)
    assert [graph.replays for graph in fake_cuda.graphs] == [2 * PAIRS - WARM_UP]
    monkeypatch.setattr(Recipe, "graph", lambda recipe, step: step)
    assert differences(graphed, trained(tmp_path / "plain", epochs=2)) == []


def test_a_training_with_graphs_that_was_stopped_goes_on_as_if_it_had_not_been(
    tmp_path: Path, fake_cuda: FakeCuda
) -> None:
    whole = trained(tmp_path / "whole", epochs=2)
    trained(tmp_path, epochs=1)
    assert differences(trained(tmp_path, epochs=2, resume=True), whole) == []
    assert len(fake_cuda.graphs) == 3


def test_a_pix2pixhd_training_with_graphs_ends_where_one_without_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake_cuda: FakeCuda
) -> None:
    """The global generator is released on the way, and the learning rate does not fall."""
    options: dict[str, Any] = {
        "netG": "local", "n_blocks_local": 1, "niter_fix_global": 1, "instance_feat": True, "niter": 2,
        "niter_decay": 0, **EXACT,
    }  # fmt: skip
    graphed = read_state(run_training(tiny_hd_config(tmp_path / "graphed", **options)).folder)
    assert len(fake_cuda.graphs) == 2
    monkeypatch.setattr(Recipe, "graph", lambda recipe, step: step)
    assert differences(graphed, read_state(run_training(tiny_hd_config(tmp_path / "plain", **options)).folder)) == []


def test_steps_that_a_graph_skips_end_the_training_at_the_next_line_of_the_log(
    tmp_path: Path, fake_cuda: FakeCuda
) -> None:
    """A learning rate that leaves the numbers: every step but the first."""
    config = tiny_hd_config(tmp_path, lr=1e30, max_skipped=3, print_freq=8, n_samples=0, display_freq=99)
    with pytest.raises(FloatingPointError, match="losses were not finite for 7 steps in a row"):
        run_training(config)


@pytest.mark.parametrize(
    ("device", "asked", "graphed"), [("cpu", True, False), ("cuda", True, True), ("cuda", False, False)]
)
def test_a_graph_is_made_on_cuda_where_it_is_wanted(
    device: str, asked: bool, graphed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch)
    draw_dataset(tmp_path / "data")
    recipe = Pix2PixRecipe(tiny_config(tmp_path, cuda_graph=asked, pool_size=0))
    recipe.device = torch.device(device)
    recipe.build()
    assert (recipe.graphed is not None) == graphed


# --- options ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MODELS.values())
def test_the_defaults_are_a_graph_the_layout_of_the_device_and_no_compiler(kind: type[RunConfig]) -> None:
    config = kind.from_mapping({"no_vgg_loss": True} if "no_vgg_loss" in kind.fields() else {})
    assert (config.cuda_graph, config.channels_last, config.compile) == (True, None, False)


@pytest.mark.parametrize("kind", MODELS.values())
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--compile"], {"compile": True}),
        (["--cuda_graph", "false"], {"cuda_graph": False}),
        (["--channels_last=true"], {"channels_last": True}),
        (["--channels_last=false"], {"channels_last": False}),
        (["--channels_last"], {"channels_last": True}),
    ],
    ids=" ".join,
)
def test_each_is_an_option_of_every_model(
    kind: type[RunConfig], arguments: list[str], expected: dict[str, object]
) -> None:
    assert vars(parse(training_parser("train", "", kind), arguments, defaults=False)) == expected


def test_each_may_change_when_a_training_is_resumed(tmp_path: Path) -> None:
    before = tiny_config(tmp_path)
    assert changed_on_resume(before, tiny_config(tmp_path, cuda_graph=False, channels_last=True, compile=True)) == []
