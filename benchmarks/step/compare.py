"""Several providers on one case: their steps in turn, their memory, and how far their results are apart."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .providers import Provider
from .training import Case
from .worker import Failed, Memory, Process, WarmUp


@dataclass
class Found:
    """What one provider did. ``failure`` says why there is no more of it; empty for none."""

    provider: Provider
    warm_up: WarmUp | None = None
    memory: Memory | None = None
    seconds: list[float] = field(default_factory=list)
    of_base: list[float] = field(default_factory=list)
    """Of the base in the same rounds."""
    loss_error: float = math.nan
    breakdown: dict[str, float] = field(default_factory=dict)
    failure: str = ""


@dataclass(frozen=True)
class Plan:
    """How to measure.

    Args:
        rounds: steps of each provider that are timed.
        warm_up: steps before them.
        together: processes there at the same time: the base, and the others by turns. With 1 a provider is there alone
            and its rounds are beside those that the base took before.
        limit: gigabytes of memory that a process may take.
        profile: whether to take one more step under the profiler.
    """

    rounds: int
    warm_up: int
    together: int
    limit: float
    profile: bool = False


def compare(
    case: Case, providers: Sequence[Provider], plan: Plan, say: Callable[[str], object] = lambda _: None
) -> list[Found]:
    """Measure all providers. The first is the base; the first of each precision is what errors are about.

    The processes of one group all live, and one at a time works: a round is a step of each. The base is in every group.
    """
    with tempfile.TemporaryDirectory(prefix="torchp2p_steps_") as folder:
        comparison = _Comparison(case, plan, Path(folder), say)
        return comparison.run(list(providers))


class _Comparison:
    def __init__(self, case: Case, plan: Plan, folder: Path, say: Callable[[str], object]) -> None:
        self.case, self.plan, self.folder, self.say = case, plan, folder, say
        self.truths: dict[str, Found] = {}

    def run(self, providers: list[Provider]) -> list[Found]:
        found = [Found(provider) for provider in providers]
        if self.plan.together == 1:
            for each in found:
                self._take_turns(each, [])
                each.of_base = found[0].seconds[: len(each.seconds)] or [math.nan] * len(each.seconds)
            return found
        size = self.plan.together - 1
        others = found[1:]
        self._take_turns(found[0], [others[start : start + size] for start in range(0, len(others), size)])
        return found

    def _take_turns(self, base: Found, groups: list[list[Found]]) -> None:
        """The rounds of all groups, with the base in each of them."""
        process = self._start(base)
        try:
            for group in groups or [[]]:
                self._take_rounds(base, process, group)
            if process is not None:
                self._finish(base, process)
        finally:
            if process is not None:
                process.close()

    def _take_rounds(self, base: Found, of_base: Process | None, group: list[Found]) -> None:
        started = {each.provider.name: self._start(each) for each in group}
        processes = {name: process for name, process in started.items() if process is not None}
        try:
            for number in range(self.plan.rounds):
                self.say(f"round {number + 1} of {self.plan.rounds}")
                base_seconds = self._step(base, of_base)
                for each in group:
                    seconds = self._step(each, processes.get(each.provider.name))
                    if not math.isnan(seconds):
                        each.of_base.append(base_seconds)
            for each in group:
                if each.provider.name in processes:
                    self._finish(each, processes[each.provider.name])
        finally:
            for process in processes.values():
                process.close()

    def _start(self, found: Found) -> Process | None:
        """Its process after the warm-up; None where it fails, and what is compared with it then is not."""
        provider = found.provider
        self.say(f"{provider.name}: first steps")
        truth = self.truths.get(provider.precision)
        weights = str(self.folder / f"{provider.precision}.pt")
        compares = self.plan.warm_up > 1
        try:
            process = Process(self.case, provider, self.plan.limit)
            files = (weights, None) if truth else (None, weights if compares else None)
            found.warm_up = process.call("warm_up", self.plan.warm_up, *(files if compares else (None, None)))
        except Failed as failed:
            found.failure = str(failed)
            return None
        if found.warm_up and found.warm_up.draws_alike:
            if truth is None:
                self.truths[provider.precision] = found
            elif truth.warm_up:
                found.loss_error = _largest_difference(found.warm_up.losses, truth.warm_up.losses)
        return process

    def _step(self, found: Found, process: Process | None) -> float:
        """Seconds; nan where the provider has failed."""
        if process is None or found.failure:
            return math.nan
        try:
            seconds: float = process.call("step")
        except Failed as failed:
            found.failure = str(failed)
            return math.nan
        found.seconds.append(seconds)
        return seconds

    def _finish(self, found: Found, process: Process) -> None:
        if found.failure:
            return
        try:
            found.memory = process.call("memory")
            if self.plan.profile:
                found.breakdown = process.call("breakdown")
        except Failed as failed:
            found.failure = str(failed)


def _largest_difference(ours: dict[str, float], theirs: dict[str, float]) -> float:
    return max(abs(ours[name] - theirs[name]) / abs(theirs[name]) for name in theirs)
