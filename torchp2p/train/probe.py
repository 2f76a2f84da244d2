"""A few real training steps on random data, in a process of their own: what memory and what time they take."""

from __future__ import annotations

import re
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torchp2p.data.transforms import Size
from torchp2p.memory import tune_cpu_memory
from torchp2p.train.config import TrainConfig
from torchp2p.train.hd_config import HDTrainConfig
from torchp2p.train.pix2pix_recipe import build_step
from torchp2p.train.pix2pix_step import Pix2PixStep
from torchp2p.train.pix2pixhd_recipe import build_hd_networks, build_hd_step
from torchp2p.train.pix2pixhd_step import Pix2PixHDStep
from torchp2p.train.pool import ImagePool
from torchp2p.train.run_config import RunConfig

STEPS = 3
"""The first makes the state of Adam and fills caches; the fastest of the others is the time."""

BLOCK = 32
"""Pixels on a side of what has one label: as in photographs, neighbours are mostly alike."""


@dataclass(frozen=True)
class Cost:
    """What steps at one size took.

    Attributes:
        peak_bytes: the most memory of the process on the CPU, the most reserved by torch on CUDA.
        seconds: of one step.
    """

    peak_bytes: int
    seconds: float


def measure(config: RunConfig, size: Size, *, keep_gradients: bool = False) -> Cost:
    """Run steps of ``config`` on images of ``size`` (height, width), with as many threads as there are here.

    Nothing is read but VGG's weights, and nothing is written. The process imports the script that called, so that
    needs the usual ``if __name__ == "__main__"``.

    Args:
        keep_gradients: of G, if it is that of pix2pixHD and its step has all of them at once. It then needs the most
            memory for large images before they are there, and for small ones after that: only with them in both is it
            a straight line in the pixels. What they leave when they are freed is in small pieces, so a training gains
            little by it.

    Raises:
        OSError: there is not enough memory.
        FileNotFoundError, ValueError: what building the networks and stepping them raises.
    """
    what = f"a step with images of {size[0]}x{size[1]} (height x width)"
    try:
        # Spawned, so that neither memory nor threads of this process are in it.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            return pool.submit(run_steps, config, size, torch.get_num_threads(), keep_gradients).result()
    except BrokenProcessPool as error:
        raise OSError(f"{what} was killed, as a process is that takes more memory than there is") from error
    except RuntimeError as error:
        if not re.search("out of memory|allocate memory", str(error)):
            raise
        raise OSError(f"{what} ran out of memory") from error


def run_steps(config: RunConfig, size: Size, threads: int, keep_gradients: bool) -> Cost:
    """What `measure` runs in its process."""
    torch.set_num_threads(threads)
    device = config.torch_device()
    if device.type == "cpu":
        tune_cpu_memory()
    step, batch = _step(config), random_batch(config, size)
    if keep_gradients and isinstance(step, Pix2PixHDStep) and not step.steps_in_backward:
        step.optimizer_G = _KeepingAdam(step.optimizer_G.param_groups)
    seconds = []
    for _ in range(STEPS):
        began = time.perf_counter()
        step(batch)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - began)
        _fill(step.pool)
    return Cost(peak_bytes(device), min(seconds[1:]))


def random_batch(config: RunConfig, size: Size) -> dict[str, Tensor]:
    """What the step of ``config`` takes, for images of ``size`` (height, width), on its device."""
    draw = torch.Generator().manual_seed(config.seed)
    (height, width), count, device = size, config.batch_size, config.torch_device()

    def image(channels: int) -> Tensor:
        drawn = 2 * torch.rand(count, channels, height, width, generator=draw) - 1
        return drawn.to(device, memory_format=config.layout())

    def ids(most: int) -> Tensor:
        blocks = torch.randint(most, (count, 1, -(-height // BLOCK), -(-width // BLOCK)), generator=draw)
        pixels = blocks.repeat_interleave(BLOCK, 2).repeat_interleave(BLOCK, 3)
        return pixels[:, :, :height, :width].int().to(device)

    if not isinstance(config, HDTrainConfig):
        return {"A": image(config.input_nc), "B": image(config.output_nc)}
    label = ids(config.label_nc).to(torch.uint8) if config.label_nc else image(config.input_nc)
    batch = {"label": label, "inst": ids(40), "image": image(config.output_nc)}
    return {**batch, "feat": image(config.feat_num)} if config.load_features else batch


class _KeepingAdam(torch.optim.Adam):
    """Its gradients are there from the start and stay."""

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        super().__init__(groups)
        for parameter in (parameter for group in groups for parameter in group["params"]):
            parameter.grad = torch.zeros_like(parameter)

    def zero_grad(self, set_to_none: bool = True) -> None:
        super().zero_grad(set_to_none=False)


def _step(config: RunConfig) -> Pix2PixStep | Pix2PixHDStep:
    if isinstance(config, HDTrainConfig):
        return build_hd_step(config, build_hd_networks(config))
    assert isinstance(config, TrainConfig)
    return build_step(config)


def _fill(pool: ImagePool) -> None:
    """As it is later in a training."""
    while (images := pool.state_dict()["images"]) and len(images) < pool.size:
        pool.query(images[0][None])


def peak_bytes(device: torch.device) -> int:
    """The most memory of this process on the CPU, the most reserved by torch on CUDA."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    # Not ru_maxrss where it can be helped: Linux starts it at the memory of the process that made this one.
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text()) if status.exists() else None
    return 1024 * (int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
