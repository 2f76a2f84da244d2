"""Where the time of a step goes, by kind of work, as torch's profiler sees it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

OPTIMISER, OTHER = "optimiser", "other"

KINDS = {
    "labels and edges": r"label|one_hot|scatter|instance|bitwise|\bne\b",
    "convolution": r"conv|winograd|cudnn|gemm|\b(add|b)?mm\b|_fprop|_dgrad|_wgrad",
    OPTIMISER: r"adam|multi_tensor_apply",
    "norm and activation": r"norm|relu|tanh|sigmoid|dropout|bernoulli|welford",
    "losses": r"loss|entropy|\babs\b|sgn|mean|\bsum\b|reduce",
    "padding and copies": r"pad|cat|copy|clone|fill|zero|empty|resize|reorder|mem(cpy|set)|slice|select|narrow|\bto\b",
    "pooling": r"pool",
    "sums and products": r"add|mul|sub|div|neg|elementwise",
}
"""A kernel or operator is of the first kind whose pattern is found in its name."""


def breakdown(step: Callable[[], object], device: torch.device) -> dict[str, float]:
    """Milliseconds of one step by kind: of kernels on CUDA, of operators without those they call on the CPU."""
    on_cuda = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if on_cuda else ProfilerActivity.CPU]) as found:
        step()
        if on_cuda:
            torch.cuda.synchronize()
    milliseconds: dict[str, float] = defaultdict(float)
    for event in found.events() or ():
        micros = event.self_device_time_total if on_cuda else event.self_cpu_time_total
        milliseconds[OPTIMISER if _in_optimiser(event) else kind_of(event.name)] += micros / 1e3
    return dict(milliseconds)


def kind_of(name: str) -> str:
    """The kind of work of an operator or a kernel."""
    plain = re.sub(r"^(aten|torchp2p)::_?|_(?=$|backward)", "", name.lower())
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, plain)), OTHER)


def _in_optimiser(event: Any) -> bool:
    while event is not None:
        if event.name.startswith("Optimizer.step"):
            return True
        event = event.cpu_parent
    return False
