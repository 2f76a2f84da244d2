"""From ``package.module:name`` or ``file.py:name`` on the command line to a network, and inputs for it."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentParser
from torch import Tensor, nn

from torchp2p.cli.parsing import UsageError, nearest
from torchp2p.models import load_weights

MADE_BY = "package.module:name or file.py:name of a network, or of what makes one"


def add_network_options(parser: ArgumentParser) -> None:
    """What a network that is made by a function is made with, and what it is called with."""
    parser.add_argument("--options", type=str, help="what it is made with, as in '{ngf: 32, norm: batch}'")
    parser.add_argument("--weights", type=str, help="a .pth file of its state_dict; as it is initialised if left out")
    parser.add_argument(
        "--shape",
        type=str,
        action="append",
        help="of an input, as in 1x3x256x256; 1x1x256x256:35 for integers below 35",
    )


def made_network(target: str, options: str | None, weights: str | None) -> nn.Module:
    """The network that ``target`` names, with the weights of a file if one is given.

    Raises:
        UsageError: the target or the options are none.
        ImportError, OSError: what is named cannot be imported or read.
        ValueError: the file does not fit the network.
    """
    place, colon, name = target.rpartition(":")
    if not colon or not place or not name:
        raise UsageError(f"a network is named as {MADE_BY}, got {target!r}")
    module = _imported(place)
    made = getattr(module, name, None)
    if made is None:
        raise UsageError(f"{place} has no {name!r}{nearest(name, [each for each in dir(module) if each[0] != '_'])}")
    if not isinstance(made, nn.Module):
        if not callable(made):
            raise UsageError(f"{target} must be a network or make one, got a {type(made).__name__}")
        made = made(**_mapping(options))
    elif options:
        raise UsageError(f"--options is for what makes a network, {target} is one")
    if not isinstance(made, nn.Module):
        raise UsageError(f"{target} must make a torch.nn.Module, it made a {type(made).__name__}")
    if weights is not None:
        try:
            made.load_state_dict(load_weights(weights))
        except RuntimeError as error:
            raise ValueError(f"{weights} does not fit {target}: {' '.join(str(error).split())}") from error
    return made


def random_inputs(shapes: list[str], seed: int) -> list[Tensor]:
    """Values in [-1, 1], or integers, of the shapes that the command line has.

    Raises:
        UsageError: one is no shape.
    """
    generator = torch.Generator().manual_seed(seed)
    return [_random_input(shape, generator) for shape in shapes]


def require_call(net: nn.Module, inputs: list[Tensor]) -> None:
    """Call a copy of ``net``, so that its running statistics stay, before more is made of it.

    Raises:
        ValueError: it raises something, which the message says.
    """
    try:
        with torch.no_grad():
            copy.deepcopy(net)(*(x.clone() for x in inputs))
    except Exception as error:
        shapes = ", ".join("x".join(map(str, x.shape)) for x in inputs)
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ValueError(f"the network cannot be called with inputs of shape {shapes}: {reason}") from error


def _random_input(text: str, generator: torch.Generator) -> Tensor:
    shape, colon, limit = text.partition(":")
    sizes = shape.split("x")
    if not all(size.isdigit() and int(size) for size in sizes) or (colon and not (limit.isdigit() and int(limit))):
        raise UsageError(f"--shape must be sizes as in 1x3x256x256, or 1x1x256x256:35 for integers, got {text!r}")
    wanted = [int(size) for size in sizes]
    if colon:
        return torch.randint(int(limit), wanted, generator=generator)
    return torch.rand(wanted, generator=generator) * 2 - 1


def _imported(place: str) -> ModuleType:
    folder = os.getcwd()
    if folder not in sys.path:  # as `python -m` has it
        sys.path.insert(0, folder)
    if not place.endswith(".py"):
        return importlib.import_module(place)
    path = Path(place)
    if not path.is_file():
        raise FileNotFoundError(f"the file {place} does not exist")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _mapping(options: str | None) -> dict[str, Any]:
    try:
        values = yaml.safe_load(options or "{}")
    except yaml.YAMLError as error:
        raise UsageError(f"--options is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UsageError(f"--options must be a mapping as in '{{ngf: 32}}', got {options!r}")
    return values
