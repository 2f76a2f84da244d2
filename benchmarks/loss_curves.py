"""Loss curves of torchp2p beside those of the original procedure, in float32 from the same weights on the same scenes.

    python -m benchmarks.loss_curves [--preset pix2pix] [--size 256x256] [--steps 100] [--threads 1,2] [--draw]

The original is run with every number of threads, contiguous and channels_last, which changes the order of sums and
nothing else: the band that these runs span is what rounding makes of one training (``curves/band.py``). torchp2p is
run once, with its savings on, and held against it; then against the contiguous runs alone. There is no dropout: which
values it drops would depend on the layout. All losses of all runs are rows of ``loss_curves_<preset>.csv``, which
``--draw`` alone makes a picture of, without running anything.
"""

from __future__ import annotations

import csv
import datetime
import io
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from jsonargparse import ArgumentParser, Namespace
from rich import box
from rich.console import Console
from rich.table import Table

from torchp2p.cli.parsing import UsageError, make_parser, parse, parse_size
from torchp2p.files import atomic_write
from torchp2p.memory import tune_cpu_memory
from torchp2p.train import TrainConfig
from torchp2p.train.presets import config_class

from . import machine
from .curves.band import Verdict, judge, verdicts
from .curves.plot import draw
from .curves.scenes import scene_batches
from .program import run_as_program
from .step.providers import OURS, PROVIDERS, Provider
from .step.training import Case, training

REFERENCES = ("reference", "channels_last")
"""The original procedure in either layout."""
KEY = ("date", "commit", "device", "torch", "preset", "size", "provider", "threads", "step")
PLOTS = Path(__file__).resolve().parent.parent / "docs" / "plots"

Curves = dict[str, list[float]]
"""Of each loss its value at every step."""


def main(argv: Sequence[str] | None = None) -> None:
    """Train, keep, judge and draw.

    Raises:
        UsageError: of the options; ``--draw`` without a file of curves.
        ImportError: ``--draw`` without matplotlib.
    """
    given = parse(_parser(), sys.argv[1:] if argv is None else argv)
    folder = Path(given.results) if given.results else machine.results_folder()
    path = folder / f"loss_curves_{machine.slug(given.preset)}.csv"
    console = Console(highlight=False)
    if not given.draw:
        _keep(path, given, _all_runs(given, console))
    if not path.is_file():
        raise UsageError(f"--draw needs the curves in {path}, which is not there: run without --draw first")
    title, ours, references = read(path)
    contiguous = [curves for run, curves in references.items() if run.startswith(f"{REFERENCES[0]},")]
    of_threads = [judge(OURS, loss, curve, [each[loss] for each in contiguous]) for loss, curve in ours.items()]
    console.print(table([*verdicts(ours, references, OURS), *of_threads]))
    if given.draw:
        picture = (Path(given.results) if given.results else PLOTS) / f"{path.stem}.svg"
        draw(picture, title, ours, references)
        console.print(f"drawn in {picture}", soft_wrap=True)


def _parser() -> ArgumentParser:
    parser = make_parser("loss_curves", "Loss curves of torchp2p beside the band of the original procedure.")
    add = parser.add_argument
    add("--preset", type=str, default="pix2pix", help="of the trainer")
    add("--size", type=str, default="256x256", help="HEIGHTxWIDTH")
    add("--steps", type=int, default=100, help="of every run")
    add("--scenes", type=int, default=10, help="images, shown in turn")
    add("--threads", type=str, default="1,2", help="of the runs of the original; torchp2p takes torch's own number")
    add("--results", type=str, help="folder of the rows, and of the picture")
    add("--draw", type=bool, default=False, help="make the picture of the rows that are there, and run nothing")
    return parser


def _all_runs(given: Namespace, console: Console) -> dict[tuple[str, int], Curves]:
    """By provider and number of threads.

    Raises:
        UsageError: numbers of threads that are none, or only one.
    """
    numbers = dict.fromkeys(given.threads.split(","))
    if len(numbers) < 2 or not all(number.isdigit() and int(number) for number in numbers):
        raise UsageError(f"--threads must be at least 2 whole numbers from 1, with a comma, got {given.threads!r}")
    tune_cpu_memory()
    size, own = parse_size(given.size), torch.get_num_threads()
    changes = {"no_dropout": True} if config_class(given.preset) is TrainConfig else {"no_vgg_loss": True}
    plan = [*((name, int(number)) for number in numbers for name in REFERENCES), (OURS, own)]
    found = {}
    for name, threads in plan:
        with console.status(f"{name} on {threads} threads"):
            case = Case(given.preset, size, threads, changes=changes)
            found[name, threads] = run(case, PROVIDERS[name], given.steps, given.scenes)
    torch.set_num_threads(own)
    return found


def run(case: Case, provider: Provider, steps: int, scenes: int) -> Curves:
    """Train for so many steps on so many scenes."""
    torch.set_num_threads(case.threads)
    trained = training(case, provider, scene_batches(case.config(provider.precision), case.size, scenes))
    curves: Curves = {}
    for _ in range(steps):
        for name, loss in trained.step().items():
            curves.setdefault(name, []).append(float(loss))
    return curves


def _keep(path: Path, given: Namespace, runs: dict[tuple[str, int], Curves]) -> None:
    """Write the rows; the ones of an earlier run are replaced."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = sorted(next(iter(runs.values())))
    writer.writerow([*KEY, *names])
    date, about = datetime.date.today().isoformat(), (machine.commit(), machine.processor_name(), torch.__version__)
    for (provider, threads), curves in runs.items():
        for step, values in enumerate(zip(*(curves[name] for name in names), strict=True), 1):
            writer.writerow([date, *about, given.preset, given.size, provider, threads, step, *map(repr, values)])
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, lambda file: file.write(text.getvalue().encode()))


def read(path: Path) -> tuple[str, Curves, dict[str, Curves]]:
    """What the rows are of, in words; the curves of torchp2p; and those of the references by name."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    runs: dict[str, Curves] = {}
    for row in rows:
        label = OURS if row["provider"] == OURS else f"{row['provider']}, threads: {row['threads']}"
        for name in row.keys() - set(KEY):
            runs.setdefault(label, {}).setdefault(name, []).append(float(row[name]))
    ours = runs.pop(OURS)
    title = f"{rows[0]['preset']} {rows[0]['size']} in float32, {rows[0]['device']}"
    return title, dict(sorted(ours.items())), runs


def table(found: Sequence[Verdict]) -> Table:
    """A row a run and loss: the share of its steps that are inside the band, that of one more reference, how far it
    leaves the band, in units of the band's mean width, and how far it is from a reference.
    """
    shown = Table(box=box.SIMPLE_HEAD)
    for name in ("loss", "run", "band of", "inside", "expected", "excursion", "apart"):
        shown.add_column(name)
    for each in found:
        shown.add_row(
            each.loss, each.run, f"{each.references} runs", f"{each.inside:.0%}", f"{each.expected:.0%}",
            f"{each.excursion:.2f}", f"{each.apart:.3g}",
        )  # fmt: skip
    return shown


if __name__ == "__main__":
    run_as_program(main)
