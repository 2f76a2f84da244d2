"""``torchp2p train``: a preset, a YAML file and flags, in this order of precedence; or ``--resume``."""

from __future__ import annotations

import signal
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from torchp2p.cli.parsing import UsageError, make_parser, parse, parse_mapping, read_yaml
from torchp2p.train.config import PRESETS, TrainConfig, preset
from torchp2p.train.state import read_state
from torchp2p.train.trainer import Outcome, run_folder, train


def run(arguments: list[str]) -> int:
    """Train; returns 0, or 128 + the signal that stopped it after saving."""
    parser = _parser()
    given = parse(parser, arguments, defaults=False)
    config = _configuration(parser, given)
    if given.get("dry_run"):
        print(yaml.safe_dump(config.as_dict(), sort_keys=False), end="")
        return 0
    console = Console()
    outcome = train(config, resume=bool(given.get("resume")), console=console)
    _say_how_it_ended(console, outcome)
    if outcome.stopped_by.startswith("SIG"):
        return 128 + int(signal.Signals[outcome.stopped_by])
    return 0


def _parser() -> ArgumentParser:
    parser = make_parser("train", "Train pix2pix on paired images.")
    parser.add_argument("--preset", type=str, help=f"starting point: {', '.join(PRESETS)}")
    parser.add_argument("--config", type=str, help="YAML file of options; flags take precedence")
    parser.add_argument("--resume", type=bool, default=False, help="continue the training in checkpoints_dir/name")
    parser.add_argument("--dry_run", type=bool, default=False, help="print the resolved options and stop")
    parser.add_class_arguments(TrainConfig)
    return parser


def _configuration(parser: ArgumentParser, given: Namespace) -> TrainConfig:
    values: dict[str, Any] = {}
    if given.get("config"):
        values |= vars(parse_mapping(parser, read_yaml(given["config"]), given["config"]))
        for key in ("config", "resume", "dry_run"):
            if key in values:
                raise UsageError(f"{given['config']}: {key!r} belongs on the command line")
    values |= vars(given)
    asked_preset = values.pop("preset", None)
    for key in ("config", "resume", "dry_run"):
        values.pop(key, None)
    base = preset(asked_preset) if asked_preset else TrainConfig()
    if given.get("resume"):
        # What the state was trained with is the starting point; a preset only says where it is.
        where = TrainConfig.from_mapping(values, base)
        stored = read_state(run_folder(where))["config"]
        values = {**stored, **values, "name": where.name, "checkpoints_dir": where.checkpoints_dir}
    elif not asked_preset and not values:
        raise UsageError("say what to train: a --preset, a --config file, or options such as --dataroot")
    return TrainConfig.from_mapping(values, base)


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
