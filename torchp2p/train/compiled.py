"""Whole networks under torch.compile: the way to fewer passes over memory where no kernel of this package runs."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from torchp2p.ops._dispatch import compile_unavailable, first_available

FUSED = ("native", "triton")


def compile_networks(networks: Iterable[nn.Module], device: torch.device) -> list[str]:
    """Have each network compiled, in place, when it is first run on a size of image.

    They stay what they are: their class, their parameters and the keys of their state_dict. Every size is compiled for
    itself, and each as one graph: none of the networks of this package breaks it.

    Returns:
        A sentence for whoever starts the training, where it is not needed.

    Raises:
        ValueError: nothing here can compile for the device; the message says what is missing.
    """
    reason = compile_unavailable(device.type)
    if reason:
        raise ValueError(f"compile must be false here: {reason}")
    for network in networks:
        network.compile(dynamic=False)
    backend, _ = first_available("norm_act", device.type, torch.float32)
    if backend not in FUSED:
        return []
    return [f"compile is not needed here, the {backend} kernels run on {device.type}; it is done as asked"]
