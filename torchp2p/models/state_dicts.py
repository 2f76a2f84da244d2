"""Checkpoints into networks, by the rules of spec section 2.9; one sentence when one does not fit."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from torchp2p.files import atomic_write
from torchp2p.models.describe import Description, describe_state_dict

_PREFIX = "module."
_RUNNING = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class Report:
    """What ``load_state_dict_compatible`` did, by entry name.

    Attributes:
        loaded: entries of the network that were filled from the checkpoint.
        stripped_prefix: the checkpoint's names began with ``module.``.
        dropped: running statistics that old checkpoints carry for instance norms.
        defaulted: ``num_batches_tracked`` that old checkpoints lack; set to 0.
        fresh: entries of the network left as they were (with ``strict=False`` only).
        unused: entries of the checkpoint that found no place (with ``strict=False`` only).
    """

    loaded: tuple[str, ...]
    stripped_prefix: bool
    dropped: tuple[str, ...]
    defaulted: tuple[str, ...]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]

    @property
    def fresh_modules(self) -> tuple[str, ...]:
        """Names of the top-level modules that hold ``fresh`` entries."""
        return tuple(dict.fromkeys(name.split(".", 1)[0] for name in self.fresh))

    def summary(self) -> str:
        """One line for people: what was copied, what found no place, what is left as it was."""
        parts = [f"copied {len(self.loaded)} entries"]
        if self.unused:
            layers = dict.fromkeys(name.rpartition(".")[0] for name in self.unused)
            parts.append(f"dropped {len(self.unused)} without a place ({', '.join(layers)})")
        if self.fresh:
            parts.append(f"left {len(self.fresh)} as initialised (in {', '.join(self.fresh_modules)})")
        return ", ".join(parts)


def load_state_dict_compatible(net: nn.Module, state_dict: Mapping[str, Tensor], *, strict: bool = True) -> Report:
    """Fill ``net`` from a checkpoint of today or of an older PyTorch; one that does not fit changes nothing.

    A ``module.`` in front of every name is stripped, running statistics under instance norms are dropped, and
    missing ``num_batches_tracked`` are set to 0.

    Args:
        net: the network to fill.
        state_dict: names and tensors, on any device; values are converted to the network's dtypes.
        strict: every entry must then match. Otherwise entries of the same name and shape are copied, and the
            report says what stayed fresh and what was not used.

    Raises:
        ValueError: with ``strict``, the checkpoint does not fit; the message names the network options that
            differ where it can tell them (``ngf``, ``norm``, ...), the first entries otherwise.
    """
    expected: dict[str, Tensor] = net.state_dict()
    given = dict(state_dict)
    stripped = _has_module_prefix(given) and not _has_module_prefix(expected)
    if stripped:
        given = {name.removeprefix(_PREFIX): value for name, value in given.items()}

    dropped = _stale_instance_statistics(given, expected)
    for name in dropped:
        del given[name]
    defaulted = _untold_batch_counts(given, expected)
    for name in defaulted:
        given[name] = torch.zeros((), dtype=torch.long)

    loaded = [name for name in given if name in expected and given[name].shape == expected[name].shape]
    taken = set(loaded)
    fresh = [name for name in expected if name not in taken]
    unused = [name for name in given if name not in taken]
    if strict and (fresh or unused):
        raise ValueError(_mismatch(given, expected, fresh, unused))
    net.load_state_dict({name: given[name] for name in loaded}, strict=False)
    return Report(
        loaded=tuple(name for name in loaded if name not in set(defaulted)),
        stripped_prefix=stripped,
        dropped=tuple(dropped),
        defaulted=tuple(defaulted),
        fresh=tuple(fresh),
        unused=tuple(unused),
    )


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """Read a ``.pth`` file of weights, onto the CPU, running none of the code that a pickle could carry.

    Returns:
        Names and tensors, in the order of the file.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it cannot be read (a folder, no permission).
        ValueError: it is damaged, is no PyTorch file, carries pickled code, or holds something else than a
            state_dict.
    """
    return _as_state_dict(read_checkpoint(path), Path(path))


def save_weights(path: str | Path, state_dict: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Write a plain state_dict, as the original projects do, that carries the configuration of its training.

    The file holds the same entries as any state_dict and loads wherever one does; the configuration
    (numbers, strings, booleans, None) is an attribute of the dictionary, beside torch's own ``_metadata``.
    Written atomically, tensors on the CPU.

    Raises:
        OSError: naming ``path``; the file that stood there is then unharmed.
    """
    content = OrderedDict((name, tensor.detach().cpu()) for name, tensor in state_dict.items())
    content._metadata = getattr(state_dict, "_metadata", OrderedDict())  # type: ignore[attr-defined]
    content._torchp2p_config = dict(config)  # type: ignore[attr-defined]
    write_checkpoint(path, content)


def load_config(path: str | Path) -> dict[str, Any]:
    """The configuration in a file of ``save_weights``; empty for weights of another project.

    Raises:
        FileNotFoundError, OSError, ValueError: as ``load_weights``.
    """
    return dict(getattr(read_checkpoint(path), "_torchp2p_config", {}))


def read_checkpoint(path: str | Path) -> Any:
    """What a file of torch.save holds: tensors and plain values only, on the CPU.

    Raises:
        FileNotFoundError, OSError, ValueError: as ``load_weights``.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"weights file {path} does not exist")
    if path.is_dir():
        raise IsADirectoryError(f"weights file {path} is a folder")
    with path.open("rb") as file:
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # torch.load lets almost any exception out of a damaged file
            fault = "is damaged or is not a PyTorch file"
            if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
                fault = "carries pickled Python objects, which can run code, or is damaged"
            raise ValueError(f"weights file {path} {fault}; expected a state_dict of tensors") from error


def write_checkpoint(path: str | Path, content: object) -> None:
    """Write what ``read_checkpoint`` reads, atomically.

    Raises:
        OSError: naming ``path``; the file that stood there is then unharmed.
    """
    atomic_write(path, lambda file: _save(content, file))


def _save(content: object, file: BinaryIO) -> None:
    try:
        torch.save(content, file)
    except RuntimeError as error:
        # Closing its archive, torch complains about the position and hides what the disk had said.
        if isinstance(error.__context__, OSError):
            raise error.__context__ from error
        raise


def _as_state_dict(content: object, path: Path) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        raise ValueError(f"weights file {path} must hold a state_dict, got a {type(content).__name__}")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ValueError(
                f"weights file {path} must hold a state_dict of tensors, got a {type(value).__name__} under {name!r}"
            )
    return dict(content)


def _has_module_prefix(names: Iterable[str]) -> bool:
    names = list(names)
    return bool(names) and all(name.startswith(_PREFIX) for name in names)


def _stale_instance_statistics(given: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """Running statistics without a place here, in slots without a weight: those of old instance norms."""
    stale = []
    for name in given:
        slot, _, entry = name.rpartition(".")
        if entry in _RUNNING and name not in expected and f"{slot}.weight" not in given:
            stale.append(name)
    return stale


def _untold_batch_counts(given: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """Batch counts the checkpoint lacks in slots where it has running statistics."""
    missing = []
    for name in expected:
        slot, _, entry = name.rpartition(".")
        if entry == "num_batches_tracked" and name not in given and f"{slot}.running_mean" in given:
            missing.append(name)
    return missing


def _mismatch(given: Mapping[str, Tensor], expected: Mapping[str, Tensor], fresh: list[str], unused: list[str]) -> str:
    """One sentence on how the checkpoint and the network differ: by options, or by entries."""
    theirs, ours = describe_state_dict(given), describe_state_dict(expected)
    different = _different_options(theirs, ours) if theirs and ours else []
    if theirs and ours and different:
        return (
            f"checkpoint does not fit this network: checkpoint has {_listed(theirs, different)}, "
            f"this network has {_listed(ours, different)}"
        )
    faults = [_fault(name, given, expected) for name in dict.fromkeys([*fresh, *unused])]
    return f"checkpoint does not fit this network: {len(faults)} entries differ, first {'; '.join(faults[:3])}"


def _different_options(theirs: Description, ours: Description) -> list[str]:
    kinds = ["netG", "netD", "netE"]
    if any((kind in theirs) != (kind in ours) for kind in kinds):
        return kinds
    return [option for option in ours if option in theirs and theirs[option] != ours[option]]


def _listed(description: Description, options: list[str]) -> str:
    return ", ".join(f"{option} {description[option]}" for option in options if option in description)


def _fault(name: str, given: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    if name not in given:
        return f"{name} is missing"
    if name not in expected:
        return f"{name} is unexpected"
    return f"{name} has shape {tuple(given[name].shape)}, expected {tuple(expected[name].shape)}"
