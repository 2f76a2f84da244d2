"""Errors of every op against float64, ours beside eager PyTorch's in the same dtype.

    python -m benchmarks.error_table [--device cpu] [--backends native compile reference] [--ops norm_act gan_loss]

The oracle is the op's reference on the same values in float64. An error is given relative to the size of the
exact result: the largest difference over the largest value, and the root mean square of both. The table is
printed and written to ``benchmarks/results/errors_<device>.csv``; with ``--ops``, where rows of other ops stay.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor

from torchp2p.files import atomic_write

from . import machine
from .error_cases import EAGER, OPS, Case, Run, cases
from .program import run_as_program
from .results import OURS

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Row:
    """The error of one quantity (``result`` or ``grad_<tensor>``) by one provider."""

    op: str
    config: str
    shape: str
    dtype: str
    quantity: str
    provider: str
    max_relative_error: float
    rms_relative_error: float


def main(argv: Sequence[str] | None = None) -> None:
    """Compute, show and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--backends", nargs="+", default=["native", "compile", "reference"])
    parser.add_argument("--ops", nargs="+", choices=OPS, default=list(OPS), help="whose errors are computed")
    options = parser.parse_args(argv)
    device = torch.device(options.device)
    name = machine.processor_name() if device.type == "cpu" else torch.cuda.get_device_name()
    wanted = (case for case in cases() if case.op in options.ops)
    rows = [row for case in wanted for dtype in DTYPES for row in errors(case, dtype, device, options.backends)]
    Console().print(*tables(rows), sep="\n")
    write(Path(__file__).resolve().parent / "results" / f"errors_{device.type}.csv", rows, name)


def errors(case: Case, dtype: torch.dtype, device: torch.device, backends: Sequence[str]) -> Iterator[Row]:
    """Of the result and every gradient, by eager and by our backends."""
    inputs = {name: tensor.to(device, dtype) for name, tensor in case.tensors.items()}
    exact_inputs = {name: tensor.double() for name, tensor in inputs.items()}
    grad = torch.randn_like(case.run(EAGER, inputs))
    exact = quantities(case.run, "reference", exact_inputs, grad.double())
    for provider in (EAGER, *backends):
        found = quantities(case.run, provider, inputs, grad)
        for quantity, value in exact.items():
            difference = found[quantity].double() - value
            largest = (difference.abs().max() / value.abs().max()).item()
            rms = (difference.square().mean() / value.square().mean()).sqrt().item()
            name = str(dtype).removeprefix("torch.")
            yield Row(case.op, case.config, case.shape, name, quantity, provider, largest, rms)


def quantities(run: Run, provider: str, tensors: Mapping[str, Tensor], grad: Tensor) -> dict[str, Tensor]:
    """The result and the gradient of every tensor."""
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}
    result = run(provider, leaves)
    grads = torch.autograd.grad(result, list(leaves.values()), grad.to(result.dtype))
    return {"result": result.detach()} | {f"grad_{name}": g for name, g in zip(leaves, grads, strict=True)}


def tables(rows: Sequence[Row]) -> Iterator[Table]:
    """One a case: eager's errors, the native ones, and how many times as large eager's are."""
    for title, group in itertools.groupby(rows, lambda row: f"{row.op}: {row.config}, {row.shape}"):
        shown = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        shown.add_column("dtype", no_wrap=True)
        shown.add_column("quantity", no_wrap=True)
        for name in (f"{EAGER} max", f"{OURS} max", f"{EAGER} rms", f"{OURS} rms", "ratio"):
            shown.add_column(name, justify="right", no_wrap=True)
        errors_of: dict[tuple[str, str], dict[str, Row]] = {}
        for row in group:
            errors_of.setdefault((row.dtype, row.quantity), {})[row.provider] = row
        for (dtype, quantity), by in errors_of.items():
            largest = (by[EAGER].max_relative_error, by[OURS].max_relative_error)
            rms = (by[EAGER].rms_relative_error, by[OURS].rms_relative_error)
            ratio = f"{rms[0] / rms[1]:.3g}" if rms[1] else "-"
            shown.add_row(dtype, quantity, *(f"{error:.1e}" for error in (*largest, *rms)), ratio)
        yield shown


def write(path: Path, rows: Sequence[Row], device_name: str) -> None:
    """Keep ``rows`` in a CSV file, in place of those of the same ops."""
    made_by = (machine.commit(), device_name, torch.__version__)
    columns = ["commit", "device", "torch", *(field.name for field in dataclasses.fields(Row))]
    renewed = {row.op for row in rows}
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([line[name] for name in columns] for line in _lines(path) if line["op"] not in renewed)
    for row in rows:
        cells = (*made_by, *dataclasses.astuple(row))
        writer.writerow(f"{cell:.3g}" if isinstance(cell, float) else cell for cell in cells)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, lambda file: file.write(text.getvalue().encode()))


def _lines(path: Path) -> list[dict[str, str]]:
    """Of a file that ``write`` has written, if there is one."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    run_as_program(main)
