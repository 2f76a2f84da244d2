"""Time and memory of a step of both networks, and where they were measured."""

from __future__ import annotations

import importlib.metadata
import platform
import statistics
import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from torchp2p.verify.certificate import Measurement
from torchp2p.verify.steps import apart, copies, loss_of, outputs_of


def measure(fused: nn.Module, original: nn.Module, inputs: Sequence[Tensor], repeats: int, seed: int) -> Measurement:
    """Medians of ``repeats`` steps of each, in turns, after one that is not counted."""
    nets = [apart(net) for net in (original, fused)]
    kept = [_kept_mib(net, inputs, seed) for net in nets]
    times: list[list[float]] = [[], []]
    for repeat in range(repeats + 1):
        for net, of_net in zip(nets, times, strict=True):
            seconds = _step_seconds(net, inputs, seed)
            if repeat:
                of_net.append(seconds)
    original_ms, fused_ms = (1e3 * statistics.median(of_net) for of_net in times)
    return Measurement(original_ms, fused_ms, kept[0], kept[1])


def environment(x: Tensor) -> dict[str, str]:
    """Versions, device and threads."""
    try:
        version = importlib.metadata.version("torchp2p")
    except importlib.metadata.PackageNotFoundError:
        version = "from a source tree"
    device = torch.cuda.get_device_name(x.device) if x.is_cuda else platform.processor() or platform.machine()
    return {
        "torchp2p": version,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "device": f"{x.device.type} ({device})",
        "threads": str(torch.get_num_threads()),
    }


def _step_seconds(net: nn.Module, inputs: Sequence[Tensor], seed: int) -> float:
    given = copies(inputs)
    _wait_for(inputs)
    started = time.perf_counter()
    loss_of(outputs_of(net, given), seed).backward()
    _wait_for(inputs)
    return time.perf_counter() - started


def _wait_for(inputs: Sequence[Tensor]) -> None:
    if any(x.is_cuda for x in inputs):
        torch.cuda.synchronize()


def _kept_mib(net: nn.Module, inputs: Sequence[Tensor], seed: int) -> float:
    """Memory of the tensors that the forward pass keeps for the backward pass, each once."""
    given = copies(inputs)
    had = {tensor.untyped_storage().data_ptr() for tensor in (*net.parameters(), *net.buffers(), *given)}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in had:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    torch.manual_seed(seed)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = outputs_of(net, given)
    del outputs
    return sum(kept.values()) / 2**20
