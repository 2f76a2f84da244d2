"""Networks as ONNX or torch.export files of plain operators, each run and compared before it is declared done."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from torchp2p.export.formats import load_onnx, load_torch, save_onnx, save_torch
from torchp2p.export.plain import plain_program
from torchp2p.export.prepare import FromLabels, at_rest, without_dropout
from torchp2p.files import atomic_path, require_folder_of

__all__ = ["ExportError", "Exported", "FromLabels", "export"]

_FORMATS = {".onnx": (save_onnx, load_onnx), ".pt2": (save_torch, load_torch)}


class ExportError(ValueError):
    """What was exported does not compute what the network does, so nothing was written."""


@dataclass(frozen=True)
class Exported:
    """A file that was written.

    Attributes:
        path: of the file.
        largest_difference: of an output of the file from that of the network, over all inputs that were tried.
        largest_value: of the network's outputs.
        operators: how often each operator is in it.
    """

    path: Path
    largest_difference: float
    largest_value: float
    operators: dict[str, int]


def export(
    net: nn.Module, example_inputs: Tensor | Sequence[Tensor], path: str | Path, *, tolerance: float = 1e-4
) -> Exported:
    """Write a network, fused or not, as plain operators, and run what was written.

    The mode of ``net`` decides on the statistics of its batch norms: in training mode those of the images, as the
    original pix2pix tests, in eval mode the running ones. Dropout is off. The file takes inputs of the shapes and
    dtypes of ``example_inputs``.

    Args:
        net: any network; not changed.
        example_inputs: what it is called with; the file is tried on them and on their mirror image.
        path: ``.onnx`` (run with onnxruntime; needs the extra ``export``) or ``.pt2`` (torch.export).
        tolerance: largest difference that is allowed, relative to the largest output where that is above 1.

    Raises:
        ValueError: another suffix, a negative tolerance.
        OSError: the file cannot be written.
        ExportError: the difference is larger than allowed; no file is left.
        ImportError: a package of the extra is missing.
    """
    path = Path(path)
    if path.suffix not in _FORMATS:
        raise ValueError(f"path must end in {' or '.join(_FORMATS)}, got {path}")
    if not tolerance >= 0:
        raise ValueError(f"tolerance must not be negative, got {tolerance}")
    require_folder_of(path)
    save, load = _FORMATS[path.suffix]
    inputs = [example_inputs] if isinstance(example_inputs, Tensor) else list(example_inputs)
    with torch.no_grad(), atomic_path(path) as written:
        operators = save(plain_program(at_rest(net), inputs), inputs, _input_names(net, len(inputs)), written)
        run = load(written)
        difference = value = 0.0
        for tried in (inputs, [x.flip(-1) for x in inputs]):
            ours = run(tried)
            theirs = _flat(without_dropout(net)(*(x.clone() for x in tried)))  # which it may change in place
            value = max(value, *(float(y.abs().max()) for y in theirs))
            difference = max(difference, _difference(ours, theirs))
        if not difference <= tolerance * max(1.0, value):
            raise ExportError(
                f"{path} would differ from the network by {difference:.1e} where its outputs reach {value:.1e}, more "
                f"than the tolerance {tolerance:.0e}: nothing was written"
            )
    return Exported(path, difference, value, operators)


def _input_names(net: nn.Module, count: int) -> list[str] | None:
    """What the network calls its inputs."""
    names = getattr(net, "input_names", None) or list(inspect.signature(net.forward).parameters)
    return list(names[:count]) if len(names) >= count else None


def _difference(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    if [y.shape for y in ours] != [y.shape for y in theirs]:
        return float("inf")
    differences = [float((mine - plain.cpu()).abs().max()) for mine, plain in zip(ours, theirs, strict=True)]
    return float("inf") if any(each != each for each in differences) else max(differences)


def _flat(value: object) -> list[Tensor]:
    """The tensors of nested lists, in their order, which is that of a file's outputs."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, (list, tuple)):
        return [tensor for part in value for tensor in _flat(part)]
    raise TypeError(f"net must return tensors, or lists of them, to be exported, got {type(value).__name__}")
