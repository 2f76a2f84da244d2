"""What a training tells: a progress bar, log lines, ``loss_log.txt`` and TensorBoard. Never a server."""

from __future__ import annotations

import logging
import resource
import sys
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_logger = logging.getLogger("torchp2p")
_RATE_WINDOW = 50


class Reporter:
    """Reports one training; a context manager that owns the progress bar.

    Losses reach it as numbers, on the steps that are logged only, so no other step waits for the device.

    Args:
        folder: of the run; ``loss_log.txt`` and TensorBoard's ``events.*`` files are written there.
        total_steps: of the whole training.
        start_step: steps already done, by an earlier part of the training.
        console: where the bar and the lines go.
    """

    def __init__(self, folder: Path, total_steps: int, start_step: int, console: Console) -> None:
        self.console = console
        self._log = folder / "loss_log.txt"
        self._stamps: deque[float] = deque(maxlen=_RATE_WINDOW)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]} it/s"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[losses]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("epoch 1", total=total_steps, completed=start_step, rate="-", losses="")
        self._board = _tensorboard(folder, start_step)

    def __enter__(self) -> Reporter:
        self._bar.start()
        with self._log.open("a", encoding="utf-8") as log:
            log.write(f"================ Training Loss ({time.strftime('%c')}) ================\n")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        if self._board is not None:
            self._board.close()

    def tick(self, epoch: int, step: int) -> None:
        """One step is done."""
        self._stamps.append(time.monotonic())
        self._bar.update(self._task, completed=step, description=f"epoch {epoch}", rate=f"{self.rate():.2f}")

    def rate(self) -> float:
        """Steps per second over the latest steps; 0 before the second one."""
        if len(self._stamps) < 2:
            return 0.0
        return (len(self._stamps) - 1) / max(self._stamps[-1] - self._stamps[0], 1e-9)

    def losses(self, epoch: int, step: int, values: Mapping[str, float], lr: float) -> None:
        """One line of losses: on the bar, in the log and on the board."""
        text = " ".join(f"{name}: {value:.3f}" for name, value in values.items())
        self._bar.update(self._task, losses=f"{text} | peak {peak_memory_gb():.1f} GB")
        line = f"(epoch: {epoch}, iters: {step}, time: {1 / self.rate() if self.rate() else 0:.3f}) {text}"
        with self._log.open("a", encoding="utf-8") as log:
            log.write(line + "\n")
        if not self.console.is_terminal:
            # One line of losses is one line of a log file, however wide.
            speed = f"{self.rate():.2f} it/s | peak {peak_memory_gb():.1f} GB"
            self.console.print(f"{line} | {speed}", highlight=False, soft_wrap=True)
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(f"loss/{name}", value, step)
            self._board.add_scalar("lr", lr, step)

    def picture(self, label: str, image: Any, step: int) -> None:
        """A uint8 (H, W, 3) image on the board."""
        if self._board is not None:
            self._board.add_image(label, image, step, dataformats="HWC")


def peak_memory_gb() -> float:
    """Peak memory of this process so far: of the CUDA device where one is in use, else resident memory."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 1e9
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e9 if sys.platform == "darwin" else peak * 1024 / 1e9


def _tensorboard(folder: Path, start_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        _logger.info("TensorBoard is not installed (pip install torchp2p[tensorboard]); scalars go to loss_log.txt")
        return None
    return SummaryWriter(str(folder), purge_step=start_step + 1 if start_step else None)
