"""The one page that says what was checked, what came out, and what was fused."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from torchp2p.fuse import Report


@dataclass(frozen=True)
class Check:
    """One thing that had to be so.

    Attributes:
        name: what was compared.
        found: what came out.
        bound: what was allowed.
        passed: whether it was kept.
    """

    name: str
    found: str
    bound: str
    passed: bool


@dataclass(frozen=True)
class Measurement:
    """A step (forward and backward) of both networks, as it was called with; medians.

    Attributes:
        original_ms, fused_ms: milliseconds.
        original_mib, fused_mib: MiB kept between forward and backward, without parameters and inputs.
    """

    original_ms: float
    fused_ms: float
    original_mib: float
    fused_mib: float

    @property
    def speedup(self) -> float:
        """How many times as fast the fused step is; below 1 it is slower."""
        return self.original_ms / self.fused_ms

    @property
    def memory_ratio(self) -> float:
        """What the fused step keeps of what the original keeps."""
        return self.fused_mib / self.original_mib if self.original_mib else 1.0


@dataclass(frozen=True)
class Certificate:
    """What :func:`torchp2p.verify` found.

    Attributes:
        network: class of the network.
        inputs: shapes of what it was called with.
        environment: versions and machine.
        checks: what was compared.
        measured: time and memory.
        report: what was fused, and what was left and why.
    """

    network: str
    inputs: str
    environment: dict[str, str]
    checks: tuple[Check, ...]
    measured: Measurement
    report: Report

    @property
    def passed(self) -> bool:
        """Whether every check was passed."""
        return all(check.passed for check in self.checks)

    def to_json(self) -> str:
        """All of it."""
        fields: dict[str, Any] = {"passed": self.passed, **asdict(self)}
        ratios = {"speedup": self.measured.speedup, "memory_ratio": self.measured.memory_ratio}
        return json.dumps(fields | {"ratios": ratios}, indent=2)

    def to_markdown(self) -> str:
        """One page."""
        found = self.measured
        lines = [
            f"# {self.network}: fused against original",
            "",
            f"**{'Passed' if self.passed else 'FAILED'}**: {sum(check.passed for check in self.checks)} of "
            f"{len(self.checks)} checks, on {self.inputs}.",
            "",
            "| check | found | allowed | |",
            "|---|---|---|---|",
            *(f"| {c.name} | {c.found} | {c.bound} | {'passed' if c.passed else 'FAILED'} |" for c in self.checks),
            "",
            "| a step, forward and backward | original | fused | |",
            "|---|---:|---:|---:|",
            f"| time | {found.original_ms:.1f} ms | {found.fused_ms:.1f} ms | {found.speedup:.2f} x as fast |",
            f"| kept for the backward pass | {found.original_mib:.1f} MiB | {found.fused_mib:.1f} MiB | "
            f"{found.memory_ratio:.0%} |",
            "",
            "```",
            str(self.report),
            "```",
            "",
            "; ".join(f"{name} {value}" for name, value in self.environment.items()),
        ]
        return "\n".join(lines) + "\n"
