"""What the commands share: parsers whose complaints are one sentence, with the nearest name suggested."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace

from torchp2p.train.run_config import KINDS

_WRONG_TYPE = re.compile(r""""(\w+)": .*?Expected a <class '(\w+)'>.* value: (.*)""")


class UsageError(ValueError):
    """The command was called wrongly; the message is one sentence."""


def make_parser(command: str, description: str) -> ArgumentParser:
    """A parser for ``torchp2p <command>`` that raises instead of leaving the process."""
    return ArgumentParser(prog=f"torchp2p {command}", description=description, exit_on_error=False, allow_abbrev=False)


def parse(parser: ArgumentParser, arguments: Sequence[str], *, defaults: bool = True) -> Namespace:
    """Parse; with ``defaults=False`` only what was given is in the result.

    Raises:
        UsageError: an unknown option (the nearest is suggested), a missing or a wrong value.
    """
    flags = {flag for action in parser._actions for flag in action.option_strings}
    given = _with_bare_switches(parser, arguments)
    for argument in given:
        flag = argument.partition("=")[0]
        if flag.startswith("--") and flag != "--" and flag not in flags:
            raise UsageError(f"{flag} is not an option{nearest(flag, sorted(flags))}")
    try:
        parsed: Namespace = parser.parse_args(_positionals_first(given), defaults=defaults)
        return parsed
    except argparse.ArgumentError as error:
        raise UsageError(_one_line(error)) from error


def parse_mapping(parser: ArgumentParser, values: dict[str, Any], source: str) -> Namespace:
    """Values of a file, checked against the parser's types; only what was given is in the result.

    Raises:
        UsageError: an unknown key (the nearest is suggested) or a value of the wrong type.
    """
    known = [action.dest for action in parser._actions]
    for key in values:
        if key not in known:
            raise UsageError(f"{source}: {key!r} is not an option{nearest(str(key), known)}")
    try:
        parsed: Namespace = parser.parse_object(values, defaults=False)
        return parsed
    except argparse.ArgumentError as error:
        raise UsageError(f"{source}: {_one_line(error)}") from error


def read_yaml(path: str) -> dict[str, Any]:
    """The mapping that a YAML file holds; plain values only.

    Raises:
        OSError: it cannot be read.
        UsageError: it is no YAML, or no mapping.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UsageError(f"{path} must hold a mapping of options to values, got a {type(values).__name__}")
    return values


def parse_size(text: str) -> tuple[int, int]:
    """HEIGHTxWIDTH as (height, width).

    Raises:
        UsageError: it is something else.
    """
    height, cross, width = text.lower().partition("x")
    if not (cross and height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise UsageError(f"--size must be HEIGHTxWIDTH in pixels, such as 256x512, got {text!r}")
    return int(height), int(width)


def nearest(word: str, choices: Sequence[str]) -> str:
    """``; did you mean 'x'?``, or nothing where no choice is near."""
    close = difflib.get_close_matches(word, choices, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _with_bare_switches(parser: ArgumentParser, arguments: Sequence[str]) -> list[str]:
    """``--no_flip`` alone means ``--no_flip=true``, as in the original projects."""
    switches = {
        flag
        for action in parser._actions
        if getattr(action, "_typehint", None) in (bool, bool | None) or getattr(action, "type", None) is bool
        for flag in action.option_strings
    }
    given = []
    for index, argument in enumerate(arguments):
        following = arguments[index + 1] if index + 1 < len(arguments) else "--"
        bare = argument in switches and following.lower() not in ("true", "false")
        given.append(f"{argument}=true" if bare else argument)
    return given


def _positionals_first(arguments: Sequence[str]) -> list[str]:
    """``translate CHECKPOINT --single FOLDER`` is as good as ``translate CHECKPOINT FOLDER --single``.

    To argparse it is not: it takes a positional that may be left out only right behind the one before it.
    """
    positionals, options = [], []
    rest = iter(arguments)
    for argument in rest:
        if not argument.startswith("-"):
            positionals.append(argument)
            continue
        options.append(argument)
        if "=" not in argument and argument not in ("-h", "--help"):
            options += list(islice(rest, 1))  # every option takes one value
    return positionals + options


def _one_line(error: argparse.ArgumentError) -> str:
    text = " ".join(str(error).split()).removeprefix("Parser key ")
    wrong = _WRONG_TYPE.fullmatch(text)
    if wrong and wrong[2] in KINDS:
        return f"{wrong[1]} must be {KINDS[wrong[2]]}, got {wrong[3]!r}"
    return text
