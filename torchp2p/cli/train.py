"""``torchp2p train``: a preset, a YAML file and flags, in this order of precedence; or ``--resume``."""

from __future__ import annotations

import signal

import yaml
from rich.console import Console

from torchp2p.cli.estimate import add_size, print_estimates
from torchp2p.cli.parsing import UsageError, parse
from torchp2p.cli.stages import train_stages
from torchp2p.cli.training_options import training_configuration, training_model, training_parser
from torchp2p.train import Outcome, RunConfig
from torchp2p.train.presets import MODELS
from torchp2p.train.stages import stages_of


def run(arguments: list[str]) -> int:
    """Train; returns 0, or 128 + the signal that stopped it after saving."""
    kind = training_model(arguments)
    parser = training_parser("train", "Train pix2pix on paired images, or pix2pixHD on label maps and images.", kind)
    parser.add_argument("--dry_run", type=bool, default=False, help="print options, stages and estimates, and stop")
    add_size(parser)
    given = parse(parser, arguments, defaults=False)
    if given.get("size") and not given.get("dry_run"):
        raise UsageError("--size is for --dry_run; what is trained has the size that load_size and crop_size give")
    config = training_configuration(parser, given, kind)
    if given.get("dry_run"):
        _print_plan(config, given.get("size"))
        return 0
    console = Console()
    outcome = train_stages(stages_of(config), resume=bool(given.get("resume")), console=console)
    _say_how_it_ended(console, outcome)
    if outcome.stopped_by.startswith("SIG"):
        return 128 + int(signal.Signals[outcome.stopped_by])
    return 0


def _print_plan(config: RunConfig, size: str | None) -> None:
    """A YAML file: all options, and as comments the stages with what they take."""
    model = next(name for name, known in MODELS.items() if known is type(config))
    print(yaml.safe_dump({"model": model, **config.as_dict()}, sort_keys=False), end="")
    print_estimates(stages_of(config), size, comment="# ", without_data=True)


def _say_how_it_ended(console: Console, outcome: Outcome) -> None:
    at = outcome.progress
    ended = {"": "finished", "max_minutes": "stopped at max_minutes"}.get(
        outcome.stopped_by, f"stopped by {outcome.stopped_by}"
    )
    console.print(
        f"{ended} after {at.step} steps, {at.seconds / 60:.1f} minutes; "
        f"{at.seconds / max(at.step, 1):.3f} s per step; saved in {outcome.folder}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    if outcome.stopped_by:
        console.print("continue with --resume", highlight=False)
    gallery = outcome.folder / "web" / "index.html"
    if gallery.exists():
        console.print(f"gallery: {gallery.resolve()}", highlight=False, markup=False, soft_wrap=True)
