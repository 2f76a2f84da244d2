"""The one harness of all benchmarks.

All providers of a case run in one process and in turn (A B C A B C ...), so a machine that slows down slows
them all; ratios are taken round by round. Inputs and random numbers are made before the clock starts; what a
call allocates for its results, and giving that back, is inside. The memory bandwidth of the machine and the speed of a
large matrix product are measured in the same run. Every row is kept, the losing ones too.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NoReturn

import torch
from rich.console import Console
from torch import Tensor

from torchp2p import backend, ops
from torchp2p.cli.parsing import UsageError
from torchp2p.reference.norm_act import memory_format_of

from . import machine, results

Call = Callable[[], object]

EAGER = "eager"
BANDWIDTH_BYTES = 256 * 2**20
PEAK_SIDE = 2048
PEAK_DTYPES = (torch.float32, torch.bfloat16)


@dataclass(frozen=True)
class Provider:
    """One way to do the same work.

    Args:
        name: ``eager``, ``compile``, ``native``, ...
        prepare: takes a mode, allocates all that the work needs, and returns the work: what is timed.
        layout: of the tensors, ``contiguous`` or ``channels_last``.
    """

    name: str
    prepare: Callable[[str], Call]
    layout: str = "contiguous"


@dataclass(frozen=True)
class Case:
    """What all providers compute. ``traffic`` is the least number of bytes to read and write, by mode."""

    op: str
    config: str
    dtype: str
    shape: str
    traffic: Mapping[str, int]


@dataclass(frozen=True)
class Summary:
    """Several values of one quantity."""

    median: float
    p20: float
    p80: float


def summarise(values: Sequence[float]) -> Summary:
    """Median and the 20 % and 80 % quantiles of at least two values."""
    fifths = statistics.quantiles(values, n=5, method="inclusive")
    return Summary(statistics.median(values), fifths[0], fifths[3])


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """The median of the quotients taken pair by pair."""
    return statistics.median(a / b for a, b in zip(numerators, denominators, strict=True))


def measure(
    calls: Sequence[Call],
    *,
    rounds: int,
    warmup: int = 3,
    least_seconds: float = 1e-3,
    clock: Callable[[], float] = time.perf_counter,
) -> list[list[float]]:
    """Seconds per call: for each of ``calls`` one value a round, taken in turn.

    After ``warmup`` calls of each, one sample is as many calls as the fastest needs to fill
    ``least_seconds``, the same number for all. The garbage collector rests meanwhile.
    """
    for call in calls:
        for _ in range(warmup):
            call()
    fastest = min(_seconds(call, 1, clock) for call in calls)
    repeats = max(1, math.ceil(least_seconds / fastest)) if fastest > 0 else 1
    samples: list[list[float]] = [[] for _ in calls]
    collecting = gc.isenabled()
    gc.disable()
    try:
        for _ in range(rounds):
            for call, taken in zip(calls, samples, strict=True):
                taken.append(_seconds(call, repeats, clock))
    finally:
        if collecting:
            gc.enable()
    return samples


def _seconds(call: Call, repeats: int, clock: Callable[[], float]) -> float:
    start = clock()
    for _ in range(repeats):
        call()
    return (clock() - start) / repeats


def timed_call(function: Callable[..., Tensor], inputs: Sequence[Tensor], mode: str) -> Call:
    """``function`` of ``inputs`` as it is timed.

    Modes: ``forward`` (no_grad), ``forward_grad`` (the graph is recorded and dropped), ``forward_backward``
    (gradients of all inputs for a given random gradient of the result). That gradient is channels_last where the first
    input is, for so a convolution hands it back. Eager's instance norm makes a contiguous result of a channels_last
    input, but in a channels_last network its gradient comes channels_last all the same.
    """
    if mode == "forward":

        def forward() -> Tensor:
            with torch.no_grad():
                return function(*inputs)

        return forward
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    if mode == "forward_grad":
        return lambda: function(*leaves)
    if mode != "forward_backward":
        raise ValueError(f"mode must be forward, forward_grad or forward_backward, got {mode!r}")
    gradient = torch.randn_like(function(*leaves))
    if memory_format_of(inputs[0]) == torch.channels_last:
        gradient = gradient.contiguous(memory_format=torch.channels_last)
    return lambda: torch.autograd.grad(function(*leaves), leaves, gradient)


def with_both_kernels(providers: Sequence[Provider]) -> list[Provider]:
    """The providers, ours by the native and by the Triton kernels: on a GPU there are two."""

    def on(name: str, prepare: Callable[[str], Call], mode: str) -> Call:
        with backend(name):
            call = prepare(mode)

        def run() -> None:
            with backend(name):
                call()

        return run

    return [
        replace(provider, name=name, prepare=partial(on, name, provider.prepare)) if name else provider
        for provider in providers
        for name in ((results.OURS, "triton") if provider.name == results.OURS else ("",))
    ]


def compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``function`` under torch.compile for the one shape it will see, with no memory of earlier cases."""
    torch.compiler.reset()
    result: Callable[..., Tensor] = torch.compile(function, dynamic=False)
    return result


class Parser(argparse.ArgumentParser):
    """Raises UsageError instead of leaving the process."""

    def error(self, message: str) -> NoReturn:
        """See above."""
        raise UsageError(message)


def arguments(description: str | None) -> Parser:
    """The flags that all benchmarks share; a benchmark may add its own."""
    parser = Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few cases and rounds, under a minute")
    parser.add_argument("--large", action="store_true", help="also activations at 2048 x 1024 (8 GB of memory)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where all providers run")
    parser.add_argument("--threads", type=_count, default=torch.get_num_threads(), help="threads of every provider")
    parser.add_argument(
        "--allocator",
        choices=machine.ALLOCATORS,
        default="default",
        help="keep: glibc holds on to large freed buffers, for all providers alike",
    )
    parser.add_argument(
        "--results",
        type=Path,
        default=machine.results_folder(),
        metavar="FOLDER",
        help="rows are appended to FOLDER/<device>.csv",
    )
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, got {text!r}")
    return int(text)


class Session:
    """One run of a benchmark: sets the machine up, measures cases, shows them, and keeps the rows at the end.

    Args:
        options: what `arguments` parsed.

    Raises:
        OSError: the allocator asked for cannot be had, or the folder of the rows not be written to.
        BackendUnavailableError: there are no native kernels for the device.
        ValueError: there is no such device, or the file of the rows has other columns.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        machine.use_allocator(options.allocator)
        torch.set_num_threads(options.threads)
        torch.manual_seed(0)
        self.options = options
        self.console = Console()
        self.on_cuda = options.device == "cuda"
        self.device = machine.gpu_name() if self.on_cuda else machine.cpu_name(options.threads)
        self.path = options.results / f"{machine.slug(self.device)}.csv"
        results.prepare(self.path, results.Row)
        if self.on_cuda:
            torch.set_default_device("cuda")  # the tensors of every case are made there
        ops.norm_act(torch.zeros(1, 1, 2, 2), backend="native")  # raises where a fallback would be measured as ours
        self.commit = machine.commit()
        self.rounds = 5 if options.quick else 21
        self.rows: list[results.Row] = []
        self.console.print(f"{self.device}, torch {torch.__version__}, commit {self.commit}", highlight=False)
        self.copy_gb_per_s = self._memory_bandwidth()
        self._peak()

    def run(
        self, case: Case, providers: Sequence[Provider], modes: Iterable[str], *, rounds: int | None = None
    ) -> None:
        """Measure one case in every mode, and show each. One provider is ``eager``, contiguous.

        A provider that takes seconds a call asks for fewer ``rounds``, at least two.
        """
        rounds = self.rounds if rounds is None else rounds
        if self.on_cuda:
            providers = with_both_kernels(providers)
        for mode in modes:
            calls = [provider.prepare(mode) for provider in providers]
            samples = self._measure(calls, rounds)
            eager = samples[[provider.name for provider in providers].index(EAGER)]
            rows = [
                self._row(case, provider, mode, taken, eager)
                for provider, taken in zip(providers, samples, strict=True)
            ]
            title = f"{case.op} {case.config} {mode} {case.dtype} {case.shape}"
            over = advantage(providers, samples)
            self.console.print(results.table(title, rows, over, self.copy_gb_per_s))
            self.rows += rows

    def save(self) -> None:
        """Append all rows to the file of this device."""
        results.append_rows(self.path, self.rows)
        self.console.print(f"{len(self.rows)} rows appended to {self.path}", highlight=False)

    def _memory_bandwidth(self) -> float:
        """Measure a copy and a read of a large buffer; the copy's GB/s is what tables compare with."""
        source = torch.ones(BANDWIDTH_BYTES // 4)
        target = torch.empty_like(source)
        # The largest value is found as fast as memory can be read; a sum is not.
        providers = [
            Provider("copy", lambda _: lambda: target.copy_(source)),
            Provider("read", lambda _: source.max),
        ]
        traffic = {"copy": 2 * BANDWIDTH_BYTES, "read": BANDWIDTH_BYTES}
        samples = self._measure([provider.prepare("forward") for provider in providers], self.rounds)
        for provider, taken in zip(providers, samples, strict=True):
            case = Case("memory", "", "float32", f"{BANDWIDTH_BYTES} bytes", {"forward": traffic[provider.name]})
            row = self._row(case, provider, "forward", taken, samples[0])
            self.rows.append(row)
            self.console.print(f"{provider.name} bandwidth {row.gb_per_s:.1f} GB/s", highlight=False)
        return self.rows[0].gb_per_s

    def _peak(self) -> None:
        """Measure the product of two large matrices, which is as fast as arithmetic gets."""
        for dtype in PEAK_DTYPES:
            left, right = (torch.ones(PEAK_SIDE, PEAK_SIDE, dtype=dtype) for _ in range(2))
            provider = Provider("matmul", lambda _, left=left, right=right: lambda: left @ right)  # type: ignore[misc]
            samples = self._measure([provider.prepare("forward")], self.rounds)
            case = Case("peak", "", str(dtype).removeprefix("torch."), "x".join([str(PEAK_SIDE)] * 3), {})
            row = self._row(case, provider, "forward", samples[0], samples[0])
            self.rows.append(row)
            gflops = 2 * PEAK_SIDE**3 / row.median_ms / 1e6
            self.console.print(f"{case.dtype} matrix product {gflops:.0f} GFLOP/s", highlight=False)

    def _measure(self, calls: Sequence[Call], rounds: int) -> list[list[float]]:
        """On a GPU a sample ends when the device has done its work, and nothing else of torch is told where to be."""
        warmup = min(3, rounds - 1)
        if not self.on_cuda:
            return measure(calls, rounds=rounds, warmup=warmup)
        torch.set_default_device(None)
        try:
            return measure(calls, rounds=rounds, warmup=warmup, clock=machine.clock_of_gpu)
        finally:
            torch.set_default_device("cuda")

    def _row(
        self, case: Case, provider: Provider, mode: str, samples: Sequence[float], eager: Sequence[float]
    ) -> results.Row:
        summary = summarise(samples)
        traffic = case.traffic.get(mode)
        return results.Row(
            date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            commit=self.commit,
            device=self.device,
            threads=self.options.threads,
            torch=torch.__version__,
            allocator=self.options.allocator,
            op=case.op,
            config=case.config,
            provider=provider.name,
            mode=mode,
            dtype=case.dtype,
            layout=provider.layout,
            shape=case.shape,
            rounds=len(samples),
            median_ms=summary.median * 1e3,
            p20_ms=summary.p20 * 1e3,
            p80_ms=summary.p80 * 1e3,
            speedup_over_eager=ratio(eager, samples),
            gb_per_s=math.nan if traffic is None else traffic / summary.median / 1e9,
        )


def advantage(providers: Sequence[Provider], samples: Sequence[Sequence[float]]) -> list[float | None]:
    """How many times as fast as each provider ours is, in the same layout if we have it; None for ours."""
    ours = {p.layout: taken for p, taken in zip(providers, samples, strict=True) if p.name == results.OURS}
    if not ours:
        return [None] * len(providers)
    first = next(iter(ours.values()))
    return [
        None if provider.name == results.OURS else ratio(taken, ours.get(provider.layout, first))
        for provider, taken in zip(providers, samples, strict=True)
    ]
