"""What ``torchp2p.tune_cpu_memory()`` saves: the same plain PyTorch work in two processes, one of them tuned.

    python -m benchmarks.bench_allocator [--quick] [--threads N]

malloc's settings hold for a whole process, so each provider is a process of its own; they are asked in turn.
``eager`` leaves malloc alone. ``--allocator`` is about the process that asks, which allocates nothing.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import torchp2p

from .harness import EAGER, Call, Case, Provider, Session, arguments, timed_call
from .program import run_as_program

TUNED = "tuned"


def norm_act(size: tuple[int, int]) -> Call:
    """Instance norm and LeakyReLU of 64 channels, forward and backward."""
    x = torch.randn(1, 64, *size)
    return timed_call(lambda x: F.leaky_relu(F.instance_norm(x), 0.2), [x], "forward_backward")


def residual_blocks(size: tuple[int, int]) -> Call:
    """Four residual blocks of 64 channels, forward and backward."""
    blocks = [
        nn.Sequential(
            nn.ReflectionPad2d(1), nn.Conv2d(64, 64, 3), nn.InstanceNorm2d(64), nn.ReLU(),
            nn.ReflectionPad2d(1), nn.Conv2d(64, 64, 3), nn.InstanceNorm2d(64),
        )
        for _ in range(4)
    ]  # fmt: skip

    def run(x: Tensor) -> Tensor:
        for block in blocks:
            x = x + block(x)
        return x

    return timed_call(run, [torch.randn(1, 64, *size)], "forward_backward")


WORK: dict[str, Callable[[tuple[int, int]], Call]] = {"norm_act": norm_act, "residual blocks": residual_blocks}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, show and keep."""
    session = Session(arguments(__doc__).parse_args(argv))
    sizes = [(256, 256)] if session.options.quick else [(256, 256), (512, 1024)]
    for work in WORK:
        for size in sizes:
            with worker(work, size, tuned=False) as plain, worker(work, size, tuned=True) as tuned:
                case = Case("tune_cpu_memory", work, "float32", f"1x64x{size[0]}x{size[1]}", {})
                providers = [Provider(EAGER, partial(same, plain)), Provider(TUNED, partial(same, tuned))]
                session.run(case, providers, ["forward_backward"], rounds=5 if size[0] > 256 else None)
    session.save()


def same(call: Call, mode: str) -> Call:
    """A call that is ready, whatever the mode."""
    return call


@contextmanager
def worker(work: str, size: tuple[int, int], *, tuned: bool) -> Iterator[Call]:
    """A process that does ``work`` once for every call."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(there, work, size, tuned, torch.get_num_threads()), daemon=True)
    process.start()
    there.close()

    def call() -> None:
        here.send(True)
        here.recv()

    try:
        yield call
    finally:
        here.close()
        process.join()


def serve(connection: Connection, work: str, size: tuple[int, int], tuned: bool, threads: int) -> None:
    """The process: works when asked, until nobody can ask any more."""
    torch.set_num_threads(threads)
    if tuned and not torchp2p.tune_cpu_memory():
        raise OSError("the memory of this process cannot be tuned")
    call = WORK[work](size)
    try:
        while connection.recv():
            call()
            connection.send(True)
    except EOFError:
        return


if __name__ == "__main__":
    run_as_program(main)
