"""A provider in a process of its own: its allocator, its memory and its failure are nobody else's."""

from __future__ import annotations

import gc
import math
import multiprocessing
import os
import tempfile
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor

from torchp2p.train.probe import peak_bytes

from .. import machine
from .breakdown import breakdown
from .providers import Provider
from .training import Case, training

TOO_MUCH = 77
"""Exit status of a process that ended itself because it would have needed more memory than it was allowed."""

WATCH_SECONDS = 0.05
QUIET_PROFILER = ("KINETO_LOG_LEVEL", "99")
"""Of the environment of a process before it imports torch: else the profiler says when it starts and stops."""


class Failed(Exception):
    """The provider cannot go on; the message says why."""


@dataclass(frozen=True)
class WarmUp:
    """The first steps.

    Attributes:
        seconds: of each; in the first, compilers compile.
        losses: of the first step, by name.
        weight_error, weight_distance: of G, see ``errors``; nan where it cannot be compared.
        draws_alike: whether the numbers of dropout are those that eager PyTorch draws.
    """

    seconds: tuple[float, ...]
    losses: dict[str, float]
    weight_error: float
    weight_distance: float
    draws_alike: bool


@dataclass(frozen=True)
class Memory:
    """In bytes: the most that the process had, and what of it stands between steps."""

    peak: int
    standing: int


class Worker:
    """What happens in the process; its methods are the commands."""

    def __init__(self, case: Case, provider: Provider) -> None:
        torch.set_num_threads(case.threads)
        self.device = torch.device(case.device)
        self.training = training(case, provider)
        gc.collect()
        machine.use_allocator(provider.allocator)  # not before, so that what building leaves behind is given back
        self.standing = machine.memory_in_use(self.device)
        machine.forget_peak(self.device)
        self.draws_alike = provider.compile_mode is None or not self.training.draws

    def warm_up(self, steps: int, theirs: str | None, keep_at: str | None) -> WarmUp:
        """Take the first steps; compare G with the file ``theirs``, or keep it at ``keep_at``."""
        torch.manual_seed(0)
        seconds = [self.step()]
        losses = {name: float(value) for name, value in self.losses.items()}
        seconds += [self.step() for _ in range(steps - 1)]
        self.peak = peak_bytes(self.device)  # before the comparison, whose memory is not that of a step
        weights = [parameter.detach() for parameter in self.training.G.parameters()]
        error = distance = math.nan
        if keep_at is not None:
            torch.save([weight.cpu() for weight in weights], keep_at)
        elif theirs is not None and self.draws_alike:
            error, distance = errors(weights, torch.load(theirs, mmap=True, weights_only=True))
        machine.forget_peak(self.device)
        return WarmUp(tuple(seconds), losses, error, distance, self.draws_alike)

    def step(self) -> float:
        """Take a step; its seconds."""
        gc.disable()
        began = time.perf_counter()
        self.losses = self.training.step()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - began
        gc.enable()
        return seconds

    def breakdown(self) -> dict[str, float]:
        """Take a step under the profiler; milliseconds by kind of work."""
        return breakdown(self.training.step, self.device)

    def memory(self) -> Memory:
        """Of all steps so far; the optimisers' state counts as standing, though the first step makes it."""
        return Memory(max(self.peak, peak_bytes(self.device)), self.standing + self.training.state_bytes)


class Process:
    """A worker seen from outside. Commands are called one after another; each waits for the answer.

    Args:
        limit: gigabytes of memory that it may take.
    """

    def __init__(self, case: Case, provider: Provider, limit: float) -> None:
        os.environ.setdefault(*QUIET_PROFILER)
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        self._limit = limit
        self._folder = tempfile.TemporaryDirectory(prefix="torchp2p_compiled_")
        arguments = (there, case, provider, limit, self._folder.name)
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        there.close()
        self._answer()

    def call(self, command: str, *arguments: Any) -> Any:
        """What the method of ``Worker`` returns.

        Raises:
            Failed: it raised, or the process ended.
        """
        self._here.send((command, arguments))
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self._here.close()
        self._process.join()
        self._folder.cleanup()

    def _answer(self) -> Any:
        try:
            error, value = self._here.recv()
        except EOFError:
            self.close()
            status = self._process.exitcode
            if status == TOO_MUCH:
                raise Failed(f"needs more than {self._limit:.3g} GB") from None
            raise Failed(f"its process ended with status {status}") from None
        if error is not None:
            self.close()
            raise Failed(error)
        return value


def errors(ours: list[Tensor], theirs: list[Tensor]) -> tuple[float, float]:
    """How far weights are from others.

    Returns:
        The largest difference in a tensor, relative to its largest value; and the distance of all weights taken as one
        vector, relative to its length.
    """
    largest = squares = of_theirs = 0.0
    for mine, other in zip(ours, theirs, strict=True):
        difference = mine.cpu() - other
        largest = max(largest, float(difference.abs().max() / other.abs().max()))
        squares += float(difference.double().square().sum())
        of_theirs += float(other.double().square().sum())
    return largest, math.sqrt(squares / of_theirs)


def _serve(connection: Connection, case: Case, provider: Provider, limit: float, folder: str) -> None:
    """The process: does what it is told until nobody can tell it any more."""
    threading.Thread(target=_end_at, args=(limit,), daemon=True).start()
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder  # nobody profits from what another, or an earlier run, compiled
    try:
        worker = Worker(case, provider)
        connection.send((None, None))
        while True:
            command, arguments = connection.recv()
            connection.send((None, getattr(worker, command)(*arguments)))
    except EOFError:
        return
    except Exception as error:  # whatever it is, it is a row of the table and not the end of the others
        first_line = str(error).strip().partition("\n")[0]
        connection.send((f"{type(error).__name__}: {first_line}", None))


def _end_at(limit: float) -> None:
    """End the process before it takes the memory that others need."""
    while machine.resident_bytes() < limit * 1e9:
        time.sleep(WATCH_SECONDS)
    os._exit(TOO_MUCH)
