"""Prints the certificates of the zoo at sizes of use, a row each: python tests/zoo_table.py [WIDTH [SCALE [REPEATS]]]

Run it on a machine that does nothing else: time is measured.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as a script: benchmarks stand beside tests

from zoo import ZOO

from benchmarks import machine
from torchp2p import verify


def main(width: int = 32, scale: int = 4, repeats: int = 5) -> None:
    """The machine, the call, and a Markdown table; a network that fails is named so."""
    where = f"{machine.cpu_name(torch.get_num_threads())}, torch {torch.__version__}, commit {machine.commit()}"
    print(f"{where}: python tests/zoo_table.py {width} {scale} {repeats}\n")
    print("| network | inputs | runs | checks | times as fast | of the memory |")
    print("|---|---|---:|---|---:|---:|")
    for name, exhibit in ZOO.items():
        torch.manual_seed(0)
        found = verify(exhibit.make(width), exhibit.inputs(scale), steps=2, repeats=repeats)
        print(
            f"| {name} | {found.inputs} | {len(found.report.fused)} | {'passed' if found.passed else 'FAILED'} "
            f"| {found.measured.speedup:.2f} | {found.measured.memory_ratio:.0%} |",
            flush=True,
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
