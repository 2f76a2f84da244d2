"""Peak memory and time of one pix2pixHD step at real sizes, ours and that of plain modules, on the CPU.

    python tests/step_memory.py [--limit GB] [--threads N] [--case NAME ...]

Each step runs in a process of its own, with the state of Adam already there, which ends itself where it would need
more than the limit. Rows replace those of the same case in ``benchmarks/results/step_memory.csv``.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import io
import multiprocessing
import os
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.plain.pix2pixhd import PlainGlobal, PlainLocal, PlainMultiscale, PlainVGG19
from benchmarks.plain.steps import plain_hd_step

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as a script: benchmarks stand beside tests

from benchmarks import machine
from torchp2p import tune_cpu_memory
from torchp2p.files import atomic_write
from torchp2p.models import MultiscaleDiscriminator, VGG19Features, hd_generator_from_config
from torchp2p.train import HDTrainConfig, Pix2PixHDStep, preset

LABELS = 35
CASES = {
    f"{name} {size[1]}x{size[0]}{' VGG' if vgg else ''}": (name, size, vgg)
    for name, size in (("pix2pixhd-512p", (512, 1024)), ("pix2pixhd-1024p", (1024, 2048)))
    for vgg in (False, True)
}
RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "step_memory.csv"
COLUMNS = ("case", "who", "peak_gb", "seconds", "outcome", "threads", "commit", "device", "torch", "date")


def main() -> None:
    """Measure, show and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=float, default=20.0, help="gigabytes that a process may use")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "vgg19.pth"
        torch.save(PlainVGG19().state_dict(), weights)  # random, which costs what trained ones do
        for case in options.case:
            for who in ("ours", "plain"):
                row = measured(case, who, weights, options.limit, options.threads)
                print(f"{case} {who}: {row['peak_gb']} GB, {row['seconds']} s, {row['outcome']}", flush=True)
                keep(row)


def measured(case: str, who: str, weights: Path, limit: float, threads: int) -> dict[str, str]:
    """One step in a process of its own."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=take_step, args=(there, case, who, weights, limit, threads))
    process.start()
    there.close()
    try:
        peak, seconds = here.recv()
        found = {"peak_gb": f"{peak:.2f}", "seconds": f"{seconds:.1f}", "outcome": "done"}
    except EOFError:
        found = {"peak_gb": f"> {limit:g}", "seconds": "", "outcome": f"needs more than {limit:g} GB"}
    process.join()
    return {
        "case": case, "who": who, **found, "threads": str(threads), "commit": machine.commit(),
        "device": machine.processor_name(), "torch": torch.__version__,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }  # fmt: skip


def take_step(connection: Connection, case: str, who: str, weights: Path, limit: float, threads: int) -> None:
    """The process: builds the networks, takes a step, and sends its peak memory in gigabytes and the seconds."""
    threading.Thread(target=end_at, args=(limit,), daemon=True).start()
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    tune_cpu_memory()
    name, size, vgg = CASES[case]
    config = preset(name, no_vgg_loss=True)
    assert isinstance(config, HDTrainConfig)
    step = (ours if who == "ours" else plain)(config, weights if vgg else None)
    batch = {
        "label": torch.randint(0, LABELS, (1, 1, size[0] // 32, size[1] // 32), dtype=torch.uint8),
        "inst": torch.randint(0, 40, (1, 1, size[0] // 32, size[1] // 32), dtype=torch.int32),
    }
    batch = {part: blocks.repeat_interleave(32, 2).repeat_interleave(32, 3) for part, blocks in batch.items()}
    batch["image"] = torch.rand(1, 3, *size) * 2 - 1
    start = time.perf_counter()
    step(batch)
    seconds = time.perf_counter() - start
    connection.send((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, seconds))


def end_at(limit: float) -> None:
    """End the process before it takes the memory that others need."""
    page = os.sysconf("SC_PAGE_SIZE")
    while int(Path("/proc/self/statm").read_text().split()[1]) * page < limit * 1e9:
        time.sleep(0.05)
    os._exit(1)


def ours(config: HDTrainConfig, weights: Path | None) -> Pix2PixHDStep:
    """The step of the trainer."""
    G = hd_generator_from_config(config.as_dict())
    D = MultiscaleDiscriminator(config.condition_nc + 3, config.ndf, config.n_layers_D, config.num_D)
    vgg = None if weights is None else VGG19Features(weights)
    step = Pix2PixHDStep(G, D, no_vgg_loss=vgg is None, vgg=vgg)
    warm(step.optimizer_G)
    warm(step.optimizer_D)
    return step


def plain(config: HDTrainConfig, weights: Path | None):
    """The procedure of the original on plain modules, line by line."""
    sizes = (config.condition_nc, 3, config.ngf, config.n_downsample_global, config.n_blocks_global)
    G = PlainGlobal(*sizes) if config.netG == "global" else PlainLocal(*sizes)
    nets: dict[str, nn.Module] = {
        "G": G, "D": PlainMultiscale(config.condition_nc + 3, config.ndf, config.n_layers_D, config.num_D)
    }  # fmt: skip
    if weights is not None:
        nets["vgg"] = PlainVGG19().requires_grad_(False)
    optimizers = [torch.optim.Adam(nets[label].parameters(), 2e-4, (0.5, 0.999)) for label in ("G", "D")]
    for optimizer in optimizers:
        warm(optimizer)

    def step(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return plain_hd_step(nets, *optimizers, dict(batch), LABELS, config.n_layers_D, config.num_D, lambda x: x)

    return step


def warm(optimizer: torch.optim.Optimizer) -> None:
    """Give every parameter its state, as it has from the second step on; zero gradients move nothing."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()


def keep(row: dict[str, str]) -> None:
    """Write the row in place of the last one of its case."""
    rows: list[dict[str, str]] = []
    if RESULTS.exists():
        with RESULTS.open(encoding="utf-8", newline="") as file:
            rows = [old for old in csv.DictReader(file) if (old["case"], old["who"]) != (row["case"], row["who"])]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows([*rows, row])
    atomic_write(RESULTS, lambda file: file.write(text.getvalue().encode()))


if __name__ == "__main__":
    main()
