"""What a training will take, before it is started: measured steps, extrapolated where the images are large."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from torchp2p.data.transforms import Size
from torchp2p.models import generator_from_config
from torchp2p.train.hd_config import HDTrainConfig
from torchp2p.train.probe import Cost, measure
from torchp2p.train.run_config import RunConfig
from torchp2p.train.trainer import recipe_of

MOST_PIXELS = 256 * 512
"""Images of up to so many are measured as they are."""


@dataclass(frozen=True)
class Phase:
    """Epochs that all take the same.

    Attributes:
        title: what is trained in them; empty where there is one phase only.
        epochs: how many.
        cost: memory of the process and seconds of one step.
    """

    title: str
    epochs: int
    cost: Cost


@dataclass(frozen=True)
class Estimate:
    """What one run of the trainer takes. Reading workers and ``cache_mb`` come on top, and reading if it is slower.

    Attributes:
        size: (height, width) of the images.
        phases: in order.
        measured: the sizes that steps were run at: one, that of the images, padded; or two to extrapolate from.
        steps_per_epoch: None where the number of samples is not known.
    """

    size: Size
    phases: tuple[Phase, ...]
    measured: tuple[Size, ...]
    steps_per_epoch: int | None

    @property
    def peak_bytes(self) -> int:
        """The most memory: of the process on the CPU, reserved by torch on CUDA."""
        return max(phase.cost.peak_bytes for phase in self.phases)

    @property
    def seconds_per_step(self) -> float:
        """The mean over all steps."""
        return self._seconds() / sum(phase.epochs for phase in self.phases)

    @property
    def hours(self) -> float | None:
        """Of all epochs; None where the number of samples is not known."""
        return None if self.steps_per_epoch is None else self._seconds() * self.steps_per_epoch / 3600

    def _seconds(self) -> float:
        return sum(phase.epochs * phase.cost.seconds for phase in self.phases)


def estimate(
    config: RunConfig, size: Size | None = None, samples: int | None = None, *, say: Callable[[str], None] | None = None
) -> Estimate:
    """Run a few steps of the training on random data, each size and phase in a process of its own.

    Images of more than ``MOST_PIXELS`` are not run: memory and time are extrapolated, as straight lines in the
    pixels, from images of half and of a quarter of their height and width. Nothing is written.

    Args:
        config: of one run; ``stages_of`` gives the runs of a training.
        size: (height, width) of the images; None for the size and the number of those in the dataset.
        samples: in the dataset, if that is known.
        say: called with a sentence before each measurement.

    Raises:
        FileNotFoundError, ValueError: of the data, of VGG's weights, or a size that the networks cannot have.
        OSError: not even the measured steps fit into memory.
    """
    if size is None:
        size, samples = data_of(config)
    multiple = size_multiple(config)
    padded = _round_up(size, multiple)
    sizes = measured_sizes(padded, multiple)
    phases = []
    for title, epochs, of_phase in _phases(config):
        costs: dict[Size, Cost] = {}
        for each in sizes:
            if say is not None:
                say(f"running {f'{title}, ' if title else ''}steps at {each[0]}x{each[1]}")
            costs[each] = measure(of_phase, each, keep_gradients=each != padded)
        phases.append(Phase(title, epochs, extrapolated(costs, padded)))
    steps = None if samples is None else math.ceil(samples / config.batch_size)
    return Estimate(size, tuple(phases), sizes, steps)


def data_of(config: RunConfig) -> tuple[Size, int]:
    """(height, width) of the first sample of a training's dataset, and the number of samples.

    Raises:
        FileNotFoundError, ValueError: of the data.
    """
    if isinstance(config, HDTrainConfig):
        config = dataclasses.replace(config, load_features=False)  # the encoder may not have made them yet
    dataset = recipe_of(config).dataset
    first = next(part for part in dataset.sample(0, 1).values() if isinstance(part, Tensor))
    return (first.shape[1], first.shape[2]), len(dataset)


def size_multiple(config: RunConfig) -> int:
    """What heights and widths are padded to multiples of."""
    if isinstance(config, HDTrainConfig):
        return config.size_multiple
    with torch.device("meta"):
        return int(getattr(generator_from_config(config.as_dict()), "size_multiple", 1))


def measured_sizes(size: Size, multiple: int) -> tuple[Size, ...]:
    """The sizes to run steps at, for images of ``size``: that size itself, or a half and a quarter of its sides."""
    if math.prod(size) <= MOST_PIXELS:
        return (size,)
    height, width = size
    half, quarter = (_round_up((-(-height // by), -(-width // by)), multiple) for by in (2, 4))
    return (half, quarter) if half != quarter else (size,)


def extrapolated(costs: Mapping[Size, Cost], size: Size) -> Cost:
    """The cost at ``size`` on the straight line in the pixels through two others; one of its own is taken as it is.

    A line that falls, as noise can make it, is taken as level.
    """
    if size in costs:
        return costs[size]
    (few, small), (many, large) = sorted((math.prod(measured), cost) for measured, cost in costs.items())
    further = (math.prod(size) - many) / (many - few)
    peak_bytes = large.peak_bytes + further * max(0, large.peak_bytes - small.peak_bytes)
    return Cost(round(peak_bytes), large.seconds + further * max(0.0, large.seconds - small.seconds))


def _phases(config: RunConfig) -> list[tuple[str, int, RunConfig]]:
    """Title, epochs and configuration of what differs from epoch to epoch."""
    alone = min(config.niter_fix_global, config.epochs) if isinstance(config, HDTrainConfig) else 0
    if not alone:
        return [("", config.epochs, config)]
    assert isinstance(config, HDTrainConfig)
    joint = dataclasses.replace(config, niter_fix_global=0)
    phases: list[tuple[str, int, RunConfig]] = [("enhancer alone", alone, config)]
    return phases + ([("all jointly", config.epochs - alone, joint)] if config.epochs > alone else [])


def _round_up(size: Size, multiple: int) -> Size:
    height, width = (-(-side // multiple) * multiple for side in size)
    return height, width
