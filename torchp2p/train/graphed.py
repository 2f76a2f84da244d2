"""A whole training step as one CUDA graph: both networks forward and backward, both optimisers, one launch."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from torchp2p.ops import BackendUnavailableError
from torchp2p.ops._dispatch import strict
from torchp2p.train.capturable import (
    CapturableAdam,
    SkippingOnDevice,
    Step,
    networks_of,
    optimizers_of,
    why_not,
)
from torchp2p.train.pix2pixhd_step import Pix2PixHDStep

WARM_UP = 3
"""Steps that are taken in the open before one is captured: libraries choose their algorithms and kernels compile."""

MOST_GRAPHS = 8
"""Sizes of batches that get a graph of their own; each holds the memory of its losses, gradients and inputs."""

Signature = tuple[object, ...]


@dataclass(frozen=True)
class _Captured:
    """A graph with the tensors that it reads and those that it writes."""

    graph: torch.cuda.CUDAGraph
    batch: dict[str, Tensor]
    names: list[str]
    losses: Tensor  # (len(names),)
    fake: Tensor


class GraphedStep:
    """``GraphedStep(step)(batch)`` is ``step(batch)``, replayed from a CUDA graph once the size of the batch is known.

    The first three batches of a size are stepped in the open, on a side stream; the fourth is recorded, which computes
    nothing, and replayed, as are all that follow. So every batch is one step, and the weights go the way they go
    without graphs, but for the learning rate, which is rounded to float32. Dropout draws from the device's generator,
    in the order in which it does without graphs.

    A step with a loss that is not finite changes no weight here either, but the host does not learn of it before
    ``check()``. A label that is out of range fails an assertion on the device.

    Where the step cannot be captured it is taken as it is, the reason is said once, as a RuntimeWarning, and kept in
    ``reason``; with ``TORCHP2P_STRICT=1`` it is an error. Sizes beyond the first eight are stepped in the open.

    The graph reads weights, statistics and the state of the optimisers where they were when it was recorded. They may
    be written to; where one has moved (a loaded state, other optimisers, a network brought to another layout), the
    graphs are recorded anew. Hooks that are registered after that are not run, and a network set to ``eval`` gets
    graphs of its own.

    Args:
        step: on a CUDA device; anything about it is asked of it, ``step.set_lr`` included.

    Attributes:
        step: see above; after a replay ``step.fake`` is a buffer that the next replay overwrites.
        reason: why there are no graphs; empty where there are.

    Raises:
        TypeError: ``step`` is neither a Pix2PixStep nor a Pix2PixHDStep.
        BackendUnavailableError: it cannot be captured, and ``TORCHP2P_STRICT=1``.
    """

    def __init__(self, step: Step) -> None:
        if not isinstance(step, Step):
            raise TypeError(f"step must be a Pix2PixStep or a Pix2PixHDStep, got {type(step).__name__}")
        self.step = step
        self.reason = ""
        self._graphs: dict[Signature, _Captured] = {}
        self._seen: Counter[Signature] = Counter()
        self._adams: list[CapturableAdam] = []
        self._where: list[int] = []
        self._batch: Mapping[str, Tensor] = {}
        self._losses: dict[str, Tensor] = {}
        self._skipping: SkippingOnDevice | None = None
        reason = why_not(step)
        if reason:
            self._give_up(reason)
            return
        device = next(step.G.parameters()).device
        self._device, self._side = device, torch.cuda.Stream(device)
        if isinstance(step, Pix2PixHDStep):
            self._skipping = step.skipping_on_device = SkippingOnDevice(device)
        self._begin()

    def __call__(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One iteration; the losses are new tensors, on the device.

        Args:
            batch: as ``step`` takes it; its tensors may be in pinned memory of the host.
        """
        if self.reason:
            return self.step(batch)
        if self._moved():
            self._begin()
        signature = self._signature(batch)
        if signature not in self._graphs and self._is_worth_a_graph(signature):
            self._capture(signature, batch)
        if self.reason:
            return self.step(batch)
        if signature in self._graphs:
            self._batch, self._losses = batch, self._replay(self._graphs[signature], batch)
        else:
            self._batch, self._losses = batch, self._in_the_open(batch)
        return self._losses

    def check(self) -> None:
        """Wait for the device, and learn how many steps were skipped because a loss was not finite.

        Raises:
            FloatingPointError: ``max_skipped`` of them in a row, since the last check; with what ``step`` says of it.
        """
        if self._skipping is None or not isinstance(self.step, Pix2PixHDStep):
            return
        most, self.step.skipped = self._skipping.read(), int(self._skipping.in_a_row)
        if most >= self.step.max_skipped:
            self.step.skipped = most
            self.step.refuse_to_go_on(self._losses, self._on_device(self._batch))

    # --- the ways to take a step -----------------------------------------------------------------------------

    def _in_the_open(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """On the stream of the captures, as torch asks for before one: autograd remembers where gradients are added."""
        current = torch.cuda.current_stream(self._device)
        self._side.wait_stream(current)
        with torch.cuda.stream(self._side):
            losses = self.step(self._on_device(batch))
        current.wait_stream(self._side)
        return losses

    def _on_device(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: value.to(self._device) for name, value in batch.items()}

    def _capture(self, signature: Signature, batch: Mapping[str, Tensor]) -> None:
        reason = why_not(self.step)
        if reason:
            self._give_up(reason)
            return
        static = {name: torch.empty_like(value, device=self._device).copy_(value) for name, value in batch.items()}
        current = torch.cuda.current_stream(self._device)
        self._side.wait_stream(current)
        for optimizer in optimizers_of(self.step).values():
            optimizer.zero_grad(set_to_none=True)  # so that gradients are made in the memory of the graph
        graph = torch.cuda.CUDAGraph()
        # The outer context puts the stream back where capturing fails, which the inner one does not. Other threads
        # go on while this one captures: the loader's pins memory, which in the global mode would end the capture.
        try:
            with (
                torch.cuda.stream(self._side),
                torch.cuda.graph(graph, self._pool, self._side, capture_error_mode="thread_local"),
            ):
                found = self.step(static)
                losses = torch.stack(list(found.values()))
        except Exception as error:
            self._give_up(f"recording it failed: {error}")
            return
        current.wait_stream(self._side)
        assert self.step.fake is not None
        self._graphs[signature] = _Captured(graph, static, list(found), losses, self.step.fake)
        self._where = self._addresses()

    def _replay(self, captured: _Captured, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        for name, static in captured.batch.items():
            static.copy_(batch[name], non_blocking=True)
        captured.graph.replay()
        self.step.fake = captured.fake
        return dict(zip(captured.names, captured.losses.clone().unbind(), strict=True))

    # --- what graphs depend on -------------------------------------------------------------------------------

    def _signature(self, batch: Mapping[str, Tensor]) -> Signature:
        """Batches that differ in this need graphs of their own."""
        modes = tuple(net.training for net in networks_of(self.step).values())
        return modes, *((name, value.shape, value.dtype, value.stride()) for name, value in batch.items())

    def _is_worth_a_graph(self, signature: Signature) -> bool:
        self._seen[signature] += 1
        if self._seen[signature] <= WARM_UP:
            return False
        if len(self._graphs) < MOST_GRAPHS:
            return True
        if self._seen[signature] == WARM_UP + 1:
            self._say(f"there are {MOST_GRAPHS} sizes of batches with a graph already")
        return False

    def _begin(self) -> None:
        """Without a graph: with the optimisers that the step has now, and the tensors as they lie now."""
        self._forget()
        # All graphs share one pool of memory, for what a graph leaves there is read before the next one is replayed. A
        # pool whose graphs are gone cannot be captured to again while a tensor in it, such as a gradient, lives on.
        self._pool = torch.cuda.graph_pool_handle()
        self._adams = [CapturableAdam(optimizer, self._device) for optimizer in optimizers_of(self.step).values()]
        networks = networks_of(self.step).values()
        self._held = [tensor for net in networks for tensor in (*net.parameters(), *net.buffers())]
        self._where = self._addresses()

    def _forget(self) -> None:
        self._graphs.clear()
        self._seen.clear()
        for adam in self._adams:
            adam.release()
        self._adams = []

    def _moved(self) -> bool:
        stepped = list(optimizers_of(self.step).values())
        if stepped != [adam.optimizer for adam in self._adams]:
            return True
        return bool(self._graphs) and self._where != self._addresses()

    def _addresses(self) -> list[int]:
        return [*(tensor.data_ptr() for tensor in self._held), *(at for adam in self._adams for at in adam.addresses())]

    # --- without graphs --------------------------------------------------------------------------------------

    def _give_up(self, reason: str) -> None:
        self._forget()
        if isinstance(self.step, Pix2PixHDStep):
            self.step.skipping_on_device = self._skipping = None
        self._say(reason)
        self.reason = reason

    @staticmethod
    def _say(reason: str) -> None:
        message = f"the training step runs without a CUDA graph: {reason}"
        if strict():
            raise BackendUnavailableError(message)
        warnings.warn(message, RuntimeWarning, stacklevel=4)
