"""Errors of every op against float64, ours beside eager PyTorch's in the same dtype.

    python -m benchmarks.error_table [--device cpu]

The oracle is the op's reference on the same values in float64. An error is given relative to the size of the
exact result: the largest difference over the largest value, and the root mean square of both. The table is
printed and written to ``benchmarks/results/errors_<device>.csv``.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import io
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks import machine
from benchmarks.results import OURS
from torchp2p import ops
from torchp2p.files import atomic_write

EAGER = "eager"
DTYPES = (torch.float32, torch.bfloat16, torch.float16)

Run = Callable[[str, Mapping[str, Tensor]], Tensor]
"""(provider, tensors by name) to the result; a provider is ``eager`` or one of our backends."""


@dataclass(frozen=True)
class Case:
    """One call: which op, how, on what."""

    op: str
    config: str
    shape: str
    tensors: Mapping[str, Tensor]
    run: Run


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
    device = torch.device(parser.parse_args(argv).device)
    name = machine.device_name() if device.type == "cpu" else torch.cuda.get_device_name()
    rows = [row for case in cases() for dtype in DTYPES for row in errors(case, dtype, device)]
    Console().print(*tables(rows), sep="\n")
    write(Path(__file__).resolve().parent / "results" / f"errors_{device.type}.csv", rows, name)


def cases() -> Iterator[Case]:
    """The shapes of the real networks, and what is hard: a mean far from zero, a tiny variance, large logits."""
    torch.manual_seed(0)
    yield norm_act_case("instance", "leaky_relu", (1, 64, 64, 64))
    yield norm_act_case("instance", "relu", (1, 64, 32, 64), pad=1)
    yield norm_act_case("batch", "leaky_relu", (4, 64, 32, 32))
    yield norm_act_case("none", "tanh", (1, 3, 256, 256), pad=3)
    yield norm_act_case("instance", "leaky_relu", (1, 8, 512, 1024))
    yield norm_act_case("instance", "leaky_relu", (1, 8, 512, 1024), mean=1000.0)
    yield norm_act_case("batch", "relu", (2, 16, 128, 128), mean=1.0, spread=1e-3)
    for mode in ("vanilla", "lsgan", "hinge", "wgan"):
        yield gan_loss_case(mode, 1.0)
    yield gan_loss_case("vanilla", 30.0)


def norm_act_case(
    norm: str, act: str, shape: tuple[int, int, int, int], *, pad: int = 0, mean: float = 0.0, spread: float = 1.0
) -> Case:
    """Affine, on normally distributed values."""
    channels = shape[1]
    tensors = {"x": mean + spread * torch.randn(shape, dtype=torch.float64)}
    tensors |= {"weight": 0.5 + torch.rand(channels), "bias": torch.randn(channels) / 2}

    def run(provider: str, t: Mapping[str, Tensor]) -> Tensor:
        if provider != EAGER:
            return ops.norm_act(t["x"], t["weight"], t["bias"], norm=norm, act=act, pad=pad, backend=provider)
        return eager_norm_act(t["x"], t["weight"], t["bias"], norm, act, pad)

    values = "" if (mean, spread) == (0.0, 1.0) else f", x = {mean:g} + {spread:g} noise"
    return Case("norm_act", f"{norm} {act} pad {pad}{values}", "x".join(map(str, shape)), tensors, run)


def eager_norm_act(x: Tensor, weight: Tensor, bias: Tensor, norm: str, act: str, pad: int) -> Tensor:
    """The same as separate layers."""
    if norm == "instance":
        h = F.instance_norm(x, weight=weight, bias=bias)
    elif norm == "batch":
        h = F.batch_norm(x, None, None, weight, bias, training=True)
    else:
        h = x * weight.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1)
    h = F.leaky_relu(h, 0.2) if act == "leaky_relu" else getattr(torch, act)(h)
    return F.pad(h, (pad,) * 4, mode="reflect") if pad else h


def gan_loss_case(mode: str, spread: float) -> Case:
    """The maps of the three discriminators of pix2pixHD at 512 x 1024."""
    sizes = ((67, 131), (35, 67), (19, 35))
    tensors = {f"map{i}": spread * torch.randn(1, 1, *size, dtype=torch.float64) for i, size in enumerate(sizes)}

    def run(provider: str, t: Mapping[str, Tensor]) -> Tensor:
        if provider != EAGER:
            return ops.gan_loss(list(t.values()), True, mode, backend=provider)
        return torch.stack([eager_gan_loss(p, mode) for p in t.values()]).sum()

    shape = " + ".join(f"1x1x{h}x{w}" for h, w in sizes)
    return Case("gan_loss", f"{mode}, {spread:g} noise", shape, tensors, run)


def eager_gan_loss(p: Tensor, mode: str) -> Tensor:
    """The loss of one map towards real."""
    if mode == "vanilla":
        return F.binary_cross_entropy_with_logits(p, torch.ones_like(p))
    if mode == "lsgan":
        return F.mse_loss(p, torch.ones_like(p))
    return F.relu(1 - p).mean() if mode == "hinge" else -p.mean()


def errors(case: Case, dtype: torch.dtype, device: torch.device) -> Iterator[Row]:
    """Of the result and every gradient, by eager and by ours."""
    inputs = {name: tensor.to(device, dtype) for name, tensor in case.tensors.items()}
    exact_inputs = {name: tensor.double() for name, tensor in inputs.items()}
    grad = torch.randn_like(case.run(EAGER, inputs))
    exact = quantities(case.run, "reference", exact_inputs, grad.double())
    for provider in (EAGER, OURS):
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
    """One a case: eager's errors, ours, and how many times as large eager's are."""
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
    """Keep ``rows`` as a CSV file, in place of those of the last run."""
    made_by = (machine.commit(), device_name, torch.__version__)
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["commit", "device", "torch", *(field.name for field in dataclasses.fields(Row))])
    for row in rows:
        cells = (*made_by, *dataclasses.astuple(row))
        writer.writerow(f"{cell:.3g}" if isinstance(cell, float) else cell for cell in cells)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, lambda file: file.write(text.getvalue().encode()))


if __name__ == "__main__":
    main()
