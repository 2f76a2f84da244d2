"""Batches brought to the device while it is still at work on the step before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

Loaded = Mapping[str, Any]


def on_device(
    batches: Iterable[Loaded], to_device: Callable[[Loaded], dict[str, Tensor]], device: torch.device
) -> Iterator[tuple[Loaded, dict[str, Tensor]]]:
    """Every batch as the loader made it, and as a step takes it, in the loader's order.

    A step on CUDA has only been asked for when the next batch is asked for here. That batch is copied, and widened, on
    a stream of its own, so that it need not wait for the step; the step after it waits for the copy, on the device.

    Args:
        batches: of a loader, in pinned memory where the device is CUDA.
        to_device: what a step takes, of one of them.
        device: to work on.
    """
    if device.type != "cuda":
        for batch in batches:
            yield batch, to_device(batch)
        return
    copying = torch.cuda.Stream(device)
    for batch in batches:
        with torch.cuda.stream(copying):
            moved = to_device(batch)
        working = torch.cuda.current_stream(device)
        working.wait_stream(copying)
        for tensor in moved.values():
            tensor.record_stream(working)  # else its memory would be free for the next copy before the step is done
        yield batch, moved
