"""``torchp2p estimate``: memory and time of a training, stage by stage, before it is started."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from jsonargparse import ArgumentParser
from rich.console import Console

from torchp2p.cli.parsing import parse, parse_size
from torchp2p.cli.training_options import training_configuration, training_model, training_parser
from torchp2p.data.transforms import Size
from torchp2p.train.estimate import Estimate, data_of, estimate
from torchp2p.train.run_config import RunConfig
from torchp2p.train.stages import Stage, stages_of
from torchp2p.train.state import run_folder


def run(arguments: list[str]) -> int:
    """Estimate; prints a paragraph a stage."""
    kind = training_model(arguments)
    parser = training_parser("estimate", "Memory and time of a training with these options, before it starts.", kind)
    add_size(parser)
    given = parse(parser, arguments, defaults=False)
    print_estimates(stages_of(training_configuration(parser, given, kind)), given.get("size"))
    return 0


def add_size(parser: ArgumentParser) -> None:
    """The option ``--size``."""
    parser.add_argument("--size", type=str, help="estimate for images of HEIGHTxWIDTH; left out, as in the dataset")


def print_estimates(
    stages: Sequence[Stage], size: str | None, *, comment: str = "", without_data: bool = False
) -> None:
    """The stages, and what they take.

    Args:
        stages: of one training.
        size: HEIGHTxWIDTH of the images of the last stage; None for what the dataset has.
        comment: stands before every line.
        without_data: where there is neither a size nor data, name the stages alone.

    Raises:
        UsageError: ``size`` is none.
        FileNotFoundError: there is neither a size nor data.
        What ``estimate`` raises.
    """
    wanted = None if size is None else parse_size(size)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    for number, stage in enumerate(stages, 1):
        config = stage.config
        console.print(
            f"{comment}stage {number} of {len(stages)}: {stage.title}; {config.epochs} epochs in {run_folder(config)}"
        )
        try:
            of_stage, samples = _size_and_samples(stage, wanted)
        except FileNotFoundError as error:
            if not without_data:
                raise FileNotFoundError(f"{error}; --size HEIGHTxWIDTH estimates without data") from error
            console.print(f"{comment}  not estimated: {error}, and no --size is given")
            continue
        with console.status("") as status:
            found = estimate(config, of_stage, samples, say=status.update)
        for line in _lines(found, config):
            console.print(f"{comment}  {line}")


def _size_and_samples(stage: Stage, wanted: Size | None) -> tuple[Size, int | None]:
    """What is asked for, or else what the data have."""
    try:
        size, samples = data_of(stage.config)
    except FileNotFoundError:
        if wanted is None:
            raise
        return (wanted[0] // stage.shrink, wanted[1] // stage.shrink), None
    return (size if wanted is None else (wanted[0] // stage.shrink, wanted[1] // stage.shrink)), samples


def _lines(found: Estimate, config: RunConfig) -> Iterator[str]:
    yield f"images    {_shown(found.size)} (height x width), batches of {config.batch_size}, on {config.torch_device()}"
    yield f"memory    {found.peak_bytes / 2**30:.1f} GiB at the peak"
    for phase in found.phases:
        title = f" ({phase.title}, {phase.epochs} epochs)" if phase.title else ""
        yield f"step      {phase.cost.seconds:.2f} s{title}"
    if found.hours is not None:
        yield f"training  {found.hours:.1f} hours: {found.steps_per_epoch} steps an epoch"
    sizes = " and ".join(map(_shown, found.measured))
    yield f"found by  steps at {sizes}" + (", extrapolated" if len(found.measured) > 1 else "")


def _shown(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
