"""Which training is meant: a preset, a YAML file and flags, in this order of precedence; or ``--resume``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from torchp2p.cli.parsing import UsageError, make_parser, parse_mapping, read_yaml
from torchp2p.train import PRESETS, RunConfig
from torchp2p.train.presets import MODELS, config_class, stored_config
from torchp2p.train.stages import stages_of
from torchp2p.train.state import has_state, read_state, run_folder

_NOT_IN_A_FILE = ("config", "resume", "dry_run", "size")
_NOT_FIELDS = (*_NOT_IN_A_FILE, "model", "preset")


def training_model(arguments: list[str]) -> type[RunConfig]:
    """Which model is meant, which decides what options there are: by its preset, its name, or what is resumed.

    Raises:
        UsageError: an option of another model.
        ConfigError: an unknown preset or model.
        CheckpointError: there is nothing to resume.
    """
    kind = _model_meant(arguments)
    _require_own_options(arguments, kind)
    return kind


def _require_own_options(arguments: list[str], kind: type[RunConfig]) -> None:
    """Raise UsageError at an option that another model alone has, rather than suggest one of a similar name."""
    names = {known: name for name, known in MODELS.items()}
    for argument in arguments:
        field = argument.partition("=")[0].removeprefix("--")
        others = [name for known, name in names.items() if field in known.fields()]
        if argument.startswith("--") and others and field not in kind.fields():
            raise UsageError(f"--{field} is for {others[0]}, and what is to be trained is {names[kind]}")


def _model_meant(arguments: list[str]) -> type[RunConfig]:
    peek = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    for flag in ("--preset", "--model", "--config", "--name", "--checkpoints_dir"):
        peek.add_argument(flag)
    peek.add_argument("--resume", nargs="?", const="true", default="false")
    try:
        seen = vars(peek.parse_known_args(arguments)[0])
    except argparse.ArgumentError:
        return config_class(None)  # the whole parser says what is wrong
    if seen["config"] and Path(seen["config"]).is_file():
        told = read_yaml(seen["config"])
        seen |= {key: told.get(key) for key in ("preset", "model", "name") if seen[key] is None}
    if seen["preset"] is None and seen["model"] is None and seen["resume"] == "true" and seen["name"]:
        folder = Path(seen["checkpoints_dir"] or RunConfig.checkpoints_dir, seen["name"])
        return type(stored_config(read_state(folder)["config"], device="auto"))
    return config_class(seen["preset"], seen["model"])


def training_parser(command: str, description: str, kind: type[RunConfig]) -> ArgumentParser:
    """A parser of everything that says what to train; a command adds its own."""
    parser = make_parser(command, description)
    parser.add_argument("--preset", type=str, help=f"starting point: {', '.join(PRESETS)}")
    parser.add_argument("--model", type=str, help=f"without a preset: {' or '.join(MODELS)}")
    parser.add_argument("--config", type=str, help="YAML file of options; flags take precedence")
    parser.add_argument("--resume", type=bool, default=False, help="go on with the training in checkpoints_dir/name")
    parser.add_class_arguments(kind)
    return parser


def training_configuration(parser: ArgumentParser, given: Namespace, kind: type[RunConfig]) -> RunConfig:
    """The options in their order of precedence: flags, the file of ``--config``, what is resumed, the preset.

    Raises:
        UsageError, ConfigError: they say nothing, or what cannot be.
        CheckpointError: there is nothing to resume.
    """
    values: dict[str, Any] = {}
    if given.get("config"):
        values |= vars(parse_mapping(parser, read_yaml(given["config"]), given["config"]))
        for key in _NOT_IN_A_FILE:
            if key in values:
                raise UsageError(f"{given['config']}: {key!r} belongs on the command line")
    values |= vars(given)
    preset = values.get("preset")
    values = {key: value for key, value in values.items() if key not in _NOT_FIELDS}
    if preset is None and not values:
        raise UsageError("say what to train: a --preset, a --config file, or options such as --dataroot")
    starting = {} if preset is None else PRESETS[preset]
    if given.get("resume"):
        starting = _stored({**starting, **values}, kind)
    return kind.from_mapping({**starting, **values})


def _stored(values: dict[str, Any], kind: type[RunConfig]) -> dict[str, Any]:
    """What a resumed training was trained with; a preset only says where it is.

    Raises:
        CheckpointError: there is nothing to resume.
    """
    place = {key: values.get(key, getattr(kind, key)) for key in ("checkpoints_dir", "name")}
    folder = Path(*place.values())
    if not has_state(folder) and values.get("coarse_to_fine"):
        stages = stages_of(kind.from_mapping(values))
        if any(has_state(run_folder(stage.config)) for stage in stages):
            return values  # the last stage has not begun
    return {**read_state(folder)["config"], **place}
