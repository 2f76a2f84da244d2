"""What a step reads back to the host: a value that Python waits for keeps a GPU waiting too."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pix2pix_case import draw_batch as draw_pair
from pix2pix_case import our_networks, plain_networks
from pix2pixhd_case import Setting, draw_batch
from tiny_training import PAIRS, draw_dataset, run_training, tiny_config
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from torchp2p.train import Pix2PixStep
from torchp2p.train.pix2pix_recipe import Pix2PixRecipe


class HostReads(TorchDispatchMode):
    """Collects the tensors whose value was read."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Tensor] = []

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if operator is torch.ops.aten._local_scalar_dense.default:
            self.found.append(args[0])
        return operator(*args, **(kwargs or {}))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("gan_mode", ["vanilla", "wgangp"])
def test_a_pix2pix_step_reads_nothing(gan_mode: str, precision: str) -> None:
    networks = (net.float() for net in our_networks("batch", *plain_networks("batch")))
    step = Pix2PixStep(*networks, gan_mode=gan_mode, precision=precision)
    step(draw_pair(dtype=torch.float32))
    with HostReads() as reads:
        step(draw_pair(dtype=torch.float32))
    assert reads.found == []


def test_a_pix2pixhd_step_reads_at_most_whether_labels_are_in_range_and_losses_finite() -> None:
    step = Setting(vgg=True).step()
    step(draw_batch())
    batch = draw_batch()
    with HostReads() as reads:
        step(batch)
    assert len(reads.found) <= 2
    assert {value.dtype for value in reads.found} <= {torch.bool}


def test_the_trainer_reads_losses_in_the_steps_that_it_logs_alone(tmp_path, monkeypatch) -> None:
    draw_dataset(tmp_path / "data")
    losses: list[dict[str, Tensor]] = []
    original = Pix2PixRecipe.step

    def step(recipe: Pix2PixRecipe, batch: dict[str, Any]) -> dict[str, Tensor]:
        losses.append(original(recipe, batch))
        return losses[-1]

    monkeypatch.setattr(Pix2PixRecipe, "step", step)
    config = tiny_config(tmp_path, print_freq=4, n_epochs=1, n_epochs_decay=0, no_html=True)
    with HostReads() as reads:
        run_training(config)
    read = {id(value) for value in reads.found}
    logged = [number for number, found in enumerate(losses, 1) if any(id(loss) in read for loss in found.values())]
    assert logged == [4, PAIRS]
