"""What the trainer asks of a model: its data, its step, its pictures, and what of it goes into a checkpoint."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from torchp2p.data import EpochDataset
from torchp2p.models import load_state_dict_compatible
from torchp2p.train.capturable import Step
from torchp2p.train.graphed import GraphedStep
from torchp2p.train.layout import lay_out_state
from torchp2p.train.run_config import RunConfig

Picture = npt.NDArray[np.uint8]
"""RGB of shape (H, W, 3)."""

ConfigT = TypeVar("ConfigT", bound=RunConfig)

STILLS_SEED = 0
"""Of the dropout in pictures of fixed samples, so that changes come from the weights."""


class Recipe(ABC, Generic[ConfigT]):
    """One model in training. Made with its data; ``build()`` makes the networks.

    Args:
        config: what it is told.

    Attributes:
        dataset: that it trains on.
        networks: by the label that names their files: G, D, E.
        graphed: the step as a CUDA graph; None where it is taken as it is.

    Raises:
        FileNotFoundError, ValueError: of the data.
    """

    dataset: EpochDataset[Any]
    networks: dict[str, nn.Module]
    graphed: GraphedStep | None = None

    def __init__(self, config: ConfigT) -> None:
        self.config = config
        self.device = config.torch_device()

    @abstractmethod
    def build(self, *, resuming: bool = False) -> list[str]:
        """Make the networks and their step, seeded.

        Args:
            resuming: a state will be loaded into them, so nothing else needs to be.

        Returns:
            Sentences for whoever starts the training, on what it starts from.

        Raises:
            FileNotFoundError, ValueError: of weights that the configuration names.
        """

    @abstractmethod
    def begin_epoch(self, epoch: int) -> None:
        """Set what changes from epoch to epoch; resuming calls it too."""

    @abstractmethod
    def to_device(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """What ``step`` takes of a batch of the loader: copied as it is, and widened where the step is taken."""

    @abstractmethod
    def step(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One iteration on a batch of ``to_device``; the losses, on the device."""

    def check(self) -> None:
        """Say what a step in a CUDA graph could not: called on the steps that are logged, which wait for the device.

        Raises:
            FloatingPointError: too many steps in a row had a loss that was not finite.
        """
        if self.graphed is not None:
            self.graphed.check()

    @abstractmethod
    def shown(self, batch: Mapping[str, Any]) -> dict[str, Picture]:
        """Pictures of the first sample of the batch that was stepped last, by label."""

    @abstractmethod
    def still(self, index: int) -> dict[str, Picture]:
        """Pictures of a fixed sample with the networks as they are, by label."""

    @abstractmethod
    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """By the name of their state in a checkpoint."""

    @abstractmethod
    def extras(self) -> dict[str, Any]:
        """By name, whatever else has a state that a training continues from."""

    def state(self) -> dict[str, Any]:
        """All that a training continues from."""
        parts = {**self.networks, **self.optimizers(), **self.extras()}
        return {name: part.state_dict() for name, part in parts.items()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up what ``state`` returned.

        Raises:
            KeyError, ValueError: it is of other networks.
        """
        for name, net in self.networks.items():
            load_state_dict_compatible(net, state[name])
        for name, part in {**self.optimizers(), **self.extras()}.items():
            part.load_state_dict(state[name])
        for optimizer in self.optimizers().values():
            lay_out_state(optimizer)

    def graph(self, step: Step) -> Step | GraphedStep:
        """``step`` as it is to be taken on the device: as one CUDA graph, where there are such and they are wanted."""
        if self.device.type == "cuda" and self.config.cuda_graph:
            self.graphed = GraphedStep(step)
        return self.graphed or step


class GeneratorState:
    """The state of a random generator in the way that modules have one."""

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator

    def state_dict(self) -> Tensor:
        """The state."""
        return self._generator.get_state()

    def load_state_dict(self, state: Tensor) -> None:
        """Go on from a state."""
        self._generator.set_state(state)
