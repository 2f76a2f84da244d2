"""A training, in a process of its own, to which something real happens at a given step.

``python train_and_interrupt.py WHEN WHAT train ...`` runs ``torchp2p train ...``; after optimiser step WHEN:

* SIGKILL, SIGINT, SIGTERM: the signal is sent to the whole process group, as a terminal does;
* killed-while-saving: the next state file is half on the disk when SIGKILL comes;
* full-disk: no file can grow beyond half of the state file any more.
"""

from __future__ import annotations

import io
import os
import resource
import signal
import sys
from pathlib import Path

import torch

from torchp2p.cli.main import main
from torchp2p.train import Pix2PixStep


def interrupt(what: str) -> None:
    if what.startswith("SIG"):
        os.killpg(0, signal.Signals[what])
    elif what == "killed-while-saving":
        torch.save = write_half_and_die
    elif what == "full-disk":
        (state,) = Path.cwd().rglob("latest_state.pth")
        half = state.stat().st_size // 2
        resource.setrlimit(resource.RLIMIT_FSIZE, (half, half))
    else:
        raise SystemExit(f"cannot do {what!r}")


def write_half_and_die(content, file) -> None:
    whole = io.BytesIO()
    _save(content, whole)
    file.write(whole.getvalue()[: whole.tell() // 2])
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)


_save = torch.save

if __name__ == "__main__":
    when, what, *arguments = sys.argv[1:]
    take_step, taken = Pix2PixStep.__call__, 0

    def take_step_and_maybe_interrupt(step, batch):
        global taken
        losses = take_step(step, batch)
        taken += 1
        if taken == int(when):
            interrupt(what)
        return losses

    Pix2PixStep.__call__ = take_step_and_maybe_interrupt
    sys.exit(main(arguments))
