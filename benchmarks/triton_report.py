"""What the Triton kernels become on GPUs that need not be there: registers, shared memory, spills, bytes moved.

``make triton-report``, or ``python -m benchmarks.triton_report [--quick] [op ...]``. Compiles every launch that a
kernel file lists for sm_80 and sm_90 (``--quick``: each kernel once), and ends with status 1 where one spills registers
or needs more shared memory than there is.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from torchp2p.kernels.aot import (
    SHARED_MEMORY,
    Compilation,
    Example,
    Resources,
    compiled_resources,
    each_compilation,
    examples_of,
    ops,
)


class Row(NamedTuple):
    """One compilation and what became of it."""

    op: str
    example: Example
    compilation: Compilation
    resources: Resources

    @property
    def fault(self) -> str:
        """Why it may not stay; empty if it may."""
        architecture = self.compilation.target.arch
        name = f"{self.op}, {self.example.label}: {self.compilation.source.name} on sm_{architecture}"
        if self.resources.spilled:
            return f"{name} spills {self.resources.spilled} bytes a thread"
        if self.resources.shared > SHARED_MEMORY[architecture]:
            return f"{name} needs {self.resources.shared} bytes of shared memory, of {SHARED_MEMORY[architecture]}"
        return ""


def compilations(wanted: list[str], quick: bool) -> Iterator[tuple[str, Example, Compilation]]:
    """All that is to be compiled; quick: the first of each kernel."""
    seen = set()
    for op in wanted:
        for example, compilation in each_compilation(op):
            if quick and compilation.source.name in seen:
                continue
            seen.add(compilation.source.name)
            yield op, example, compilation


def compiled(wanted: list[str], quick: bool) -> list[Row]:
    """The rows of the report. Threads, for most of the time is the machine code compiler's, another program."""
    work = list(compilations(wanted, quick))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        resources = pool.map(compiled_resources, (compilation for *_, compilation in work))
        return [Row(*item, found) for item, found in zip(work, resources, strict=True)]


def print_resources(rows: list[Row]) -> None:
    """A line for each compilation."""
    print(f"{'kernel':<36} {'sm':>3} {'warps':>5} {'registers':>9} {'shared':>7} {'spilled':>7}  op, first example")
    for row in rows:
        print(
            f"{row.compilation.source.name:<36} {row.compilation.target.arch:>3} "
            f"{row.compilation.options['num_warps']:>5} {row.resources.registers:>9} {row.resources.shared:>7} "
            f"{row.resources.spilled:>7}  {row.op}, {row.example.label}"
        )


def print_bytes(wanted: list[str]) -> None:
    """A line for each example: what its kernels move, by their plan, against what has to be moved."""
    print(f"\n{'MB moved':>9} {'MB least':>9} {'times':>6}  op, example")
    for op in wanted:
        for example in examples_of(op):
            print(
                f"{example.moved / 1e6:>9.1f} {example.least / 1e6:>9.1f} {example.moved / example.least:>6.2f}"
                f"  {op}, {example.label}"
            )


def main() -> int:
    """Print the report; 1 where a kernel may not stay as it is."""
    parser = argparse.ArgumentParser(description="Compile the Triton kernels ahead of time and show what they take.")
    parser.add_argument("ops", nargs="*", metavar="op", help=f"of {', '.join(ops())} (default: all)")
    parser.add_argument("--quick", action="store_true", help="each kernel once")
    arguments = parser.parse_args()
    if os.environ.get("TRITON_INTERPRET") == "1":
        parser.error("there is nothing to compile under TRITON_INTERPRET=1")
    wanted = arguments.ops or ops()
    rows = compiled(wanted, arguments.quick)
    print_resources(rows)
    print_bytes(wanted)
    faults = [row.fault for row in rows if row.fault]
    print("\n".join(["", *faults]) if faults else f"\n{len(rows)} compilations, none spills")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
