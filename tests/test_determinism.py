"""``deterministic``: what a training on a GPU tells torch, and what it needs. The device is named, none is used."""

from __future__ import annotations

import pytest
import torch
from tiny_training import draw_dataset, run_training, tiny_config

from torchp2p.train import ConfigError, trainer
from torchp2p.train.determinism import WORKSPACE, deterministic

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


def told() -> tuple[bool, ...]:
    """What torch has been told."""
    cudnn = torch.backends.cudnn
    fill = torch.utils.deterministic.fill_uninitialized_memory
    return torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark, fill


@pytest.mark.parametrize("workspace", [":4096:8", ":16:8"])
def test_on_a_gpu_torch_is_told_so_and_afterwards_what_it_was_told_before(monkeypatch, workspace: str) -> None:
    monkeypatch.setenv(WORKSPACE, workspace)
    before = told()
    with deterministic(True, CUDA):
        assert told() == (True, True, False, False)
    assert told() == before != (True, True, False, False)


@pytest.mark.parametrize(("wanted", "device"), [(False, CUDA), (True, CPU)])
def test_nothing_is_told_where_it_is_not_wanted_or_so_by_itself(monkeypatch, wanted: bool, device) -> None:
    monkeypatch.delenv(WORKSPACE, raising=False)
    before = told()
    with deterministic(wanted, device):
        assert told() == before


@pytest.mark.parametrize("workspace", [None, ":0:0"])
def test_without_the_workspace_of_cublas_it_is_refused_with_the_values_to_choose_from(monkeypatch, workspace) -> None:
    monkeypatch.delenv(WORKSPACE, raising=False)
    if workspace:
        monkeypatch.setenv(WORKSPACE, workspace)
    message = f"{WORKSPACE} to be one of :4096:8, :16:8 from the start of the process, got {workspace!r}"
    with pytest.raises(ConfigError, match=message), deterministic(True, CUDA):
        pass


@pytest.mark.parametrize("wanted", [True, False])
def test_the_trainer_asks_for_what_its_configuration_says(tmp_path, monkeypatch, wanted: bool) -> None:
    draw_dataset(tmp_path / "data", train=1)
    asked = []

    def look(*arguments: object):
        asked.append(arguments)
        return deterministic(*arguments)

    monkeypatch.setattr(trainer, "deterministic", look)
    run_training(tiny_config(tmp_path, deterministic=wanted, n_epochs=1, n_epochs_decay=0, no_html=True))
    assert asked == [(wanted, CPU)]
