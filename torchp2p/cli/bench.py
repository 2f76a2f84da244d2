"""``torchp2p bench step`` and ``torchp2p bench ops``: the benchmarks that are installed with the package."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from rich.console import Console

from torchp2p.cli.parsing import UsageError, nearest

USAGE = """usage: torchp2p bench step [options]        whole training steps against the original procedure; see --help
       torchp2p bench ops [NAME ...] [options]   single ops against eager PyTorch and torch.compile; see --help"""


def run(arguments: list[str]) -> int:
    """Measure, show, and append the rows to CSV files, whose names are printed."""
    kinds = {"step": _step, "ops": _ops}
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    kind, rest = arguments[0], arguments[1:]
    if kind not in kinds:
        raise UsageError(f"what to measure must be step or ops, got {kind!r}{nearest(kind, list(kinds))}")
    kinds[kind](rest)
    return 0


def _step(arguments: list[str]) -> None:
    _benchmark("step").main(arguments)


def _ops(arguments: list[str]) -> None:
    """The named benchmarks one after another, or all; what follows the names is for each of them."""
    if arguments and arguments[0] in ("-h", "--help"):
        _print_help()
        return
    known = _known()
    count = next((place for place, word in enumerate(arguments) if word.startswith("-")), len(arguments))
    names, options = arguments[:count], arguments[count:]
    for name in names:
        if name not in known:
            raise UsageError(f"NAME must be of {', '.join(known)}, got {name!r}{nearest(name, known)}")
    console = Console(highlight=False)
    for name in names or known:
        console.rule(name)
        _benchmark(name).main(options)


def _print_help() -> None:
    """The names, and the options that all of them have; a benchmark may have more."""
    parser = importlib.import_module("torchp2p.benchmarks.harness").arguments(
        f"NAME, all without one: {', '.join(_known())}"
    )
    parser.prog = "torchp2p bench ops [NAME ...]"
    parser.print_help()


def _known() -> list[str]:
    """All benchmarks but that of steps, which has options of its own."""
    folder = importlib.import_module("torchp2p.benchmarks").__path__
    found = (module.name for module in pkgutil.iter_modules(folder) if module.name.startswith("bench_"))
    return sorted({name.removeprefix("bench_") for name in found} - {"step"})


def _benchmark(name: str) -> ModuleType:
    return importlib.import_module(f"torchp2p.benchmarks.bench_{name}")
