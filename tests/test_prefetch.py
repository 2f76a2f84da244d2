"""Batches on their way to the device: all of them, in order, copied while the step before is at work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_hd_training import tiny_hd_config
from torch import Tensor

from torchp2p.data import make_loader, to_step_batch
from torchp2p.train.pix2pixhd_recipe import Pix2PixHDRecipe
from torchp2p.train.prefetch import on_device

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


class Streams:
    """What is asked of CUDA, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[str] = []
        self.current = "working"
        monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream(self, "copying"))
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream(self, self.current))
        monkeypatch.setattr(torch.cuda, "stream", lambda stream: stream)


class Stream:
    def __init__(self, streams: Streams, name: str) -> None:
        self.streams, self.name = streams, name

    def wait_stream(self, other: Stream) -> None:
        self.streams.log.append(f"{self.name} waits for {other.name}")

    def __enter__(self) -> None:
        self.streams.current = self.name

    def __exit__(self, *_: object) -> None:
        self.streams.current = "working"


class Moved:
    """In place of a tensor on a device."""

    def __init__(self, streams: Streams, number: int) -> None:
        self.streams, self.number = streams, number

    def record_stream(self, stream: Stream) -> None:
        self.streams.log.append(f"{self.number} is held for {stream.name}")


def test_on_the_cpu_batches_come_as_they_are_in_their_order() -> None:
    batches = [{"A": torch.full((1,), float(number))} for number in range(4)]
    pairs = list(on_device(batches, lambda batch: {"A": batch["A"] + 1}, CPU))
    assert [batch for batch, _ in pairs] == batches
    assert [moved["A"].item() for _, moved in pairs] == [1, 2, 3, 4]


def test_on_cuda_a_batch_is_copied_on_a_stream_of_its_own_once_the_step_before_was_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    streams = Streams(monkeypatch)

    def to_device(batch: Any) -> Any:
        streams.log.append(f"{batch} moves on {streams.current}")
        return {"A": Moved(streams, batch)}

    batches: Any = [1, 2]
    for batch, moved in on_device(batches, to_device, CUDA):
        assert moved["A"].number == batch
        streams.log.append(f"step {batch} on {streams.current}")
    assert streams.log == [
        "1 moves on copying", "working waits for copying", "1 is held for working", "step 1 on working",
        "2 moves on copying", "working waits for copying", "2 is held for working", "step 2 on working",
    ]  # fmt: skip


def test_nothing_is_read_ahead_of_what_is_asked_for() -> None:
    """A training that stops has read no sample that it does not train on."""
    read: list[int] = []
    batches: Any = (read.append(number) or {"A": number} for number in range(9))
    ahead = on_device(batches, lambda batch: {"A": batch["A"]}, CPU)
    next(ahead)
    next(ahead)
    assert read == [0, 1]


@pytest.mark.parametrize("size", [64, 66])
def test_what_moves_is_small_and_is_widened_where_the_step_is_taken(size: int, tmp_path: Path) -> None:
    recipe = Pix2PixHDRecipe(tiny_hd_config(tmp_path, load_size=size, resize_or_crop="none"))
    (batch,) = list(make_loader(recipe.dataset, 1, 0, len(recipe.dataset)))
    tensors = {part: value for part, value in batch.items() if isinstance(value, Tensor)}
    assert {part: value.dtype for part, value in tensors.items()} == {
        "label": torch.uint8, "inst": torch.int32, "image": torch.uint8,
    }  # fmt: skip
    moved = recipe.to_device(batch)
    height, width = tensors["label"].shape[2:]
    for part, value in to_step_batch(tensors, CPU).items():
        assert torch.equal(moved[part][:, :, :height, :width], value), part
    assert all(side % recipe.config.size_multiple == 0 for value in moved.values() for side in value.shape[2:])
