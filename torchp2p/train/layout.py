"""The order of channels and pixels in memory: which one a training uses, and bringing things into it.

Tensor cores multiply channels_last activations as they lie; in the other order a convolution copies them first and the
result back. The networks keep the order of what they are given.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


def chosen_layout(channels_last: bool | None, device: torch.device) -> torch.memory_format:
    """What was asked for; with None, channels_last on CUDA and contiguous elsewhere: a rule, not a measurement."""
    if channels_last is None:
        channels_last = device.type == "cuda"
    return torch.channels_last if channels_last else torch.contiguous_format


def placed(network: Network, device: torch.device, layout: torch.memory_format) -> Network:
    """The network, moved, with the weights of its convolutions in ``layout``."""
    where: dict[str, Any] = {"device": device, "memory_format": layout}
    return network.to(**where)


def layout_of(image: Tensor) -> torch.memory_format:
    """channels_last where (N, C, H, W) is that and nothing else, contiguous otherwise."""
    last = image.is_contiguous(memory_format=torch.channels_last) and not image.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def images_in(layout: torch.memory_format, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The batch with its images, all that is not integer, in ``layout``."""
    return {
        part: value.contiguous(memory_format=layout) if value.is_floating_point() else value
        for part, value in batch.items()
    }


def lay_out_state(optimizer: torch.optim.Optimizer) -> None:
    """Bring what an optimiser keeps of each parameter into the order of the parameter.

    A state that was saved on another device may be in the other order, and a fused step goes through both as they lie.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
