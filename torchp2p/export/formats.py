"""Writing a program to a file, and running the file."""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.export import ExportedProgram

Runner = Callable[[Sequence[Tensor]], list[Tensor]]

_MISSING = "exporting to ONNX needs {}, which is not installed: pip install torchp2p[export]"


def save_onnx(
    program: ExportedProgram, inputs: Sequence[Tensor], names: list[str] | None, path: Path
) -> dict[str, int]:
    """Write ONNX; returns how often each operator is in it."""
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(_MISSING.format("onnxscript")) from error
    chatter = logging.getLogger("torch.onnx")
    level = chatter.level
    chatter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = torch.onnx.export(program, tuple(inputs), input_names=names, dynamo=True, verbose=False)
    finally:
        chatter.setLevel(level)
    assert made is not None
    made.save(path)
    return dict(Counter(node.op_type for node in made.model_proto.graph.node).most_common())


def load_onnx(path: Path) -> Runner:
    """The file in onnxruntime, on the CPU."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(_MISSING.format("onnxruntime")) from error
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]

    def run(inputs: Sequence[Tensor]) -> list[Tensor]:
        feed = {name: x.cpu().numpy() for name, x in zip(names, inputs, strict=True)}
        return [torch.from_numpy(y) for y in session.run(None, feed)]

    return run


def save_torch(
    program: ExportedProgram, inputs: Sequence[Tensor], names: list[str] | None, path: Path
) -> dict[str, int]:
    """Write a torch.export archive; returns how often each operator is in it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program, path)
    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    return dict(Counter(str(node.target) for node in calls).most_common())


def load_torch(path: Path) -> Runner:
    """The file as torch runs it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.export.load(path).module()

    def run(inputs: Sequence[Tensor]) -> list[Tensor]:
        result = module(*inputs)
        return [y.cpu() for y in ([result] if isinstance(result, Tensor) else torch.utils._pytree.tree_leaves(result))]

    return run
