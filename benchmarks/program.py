"""A benchmark as a program: ``python -m benchmarks.bench_<name>``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from torchp2p.cli.main import in_one_sentence


def run_as_program(main: Callable[[], None]) -> None:
    """Run ``main`` and leave the process; what users can mend becomes one sentence, as in ``torchp2p``."""

    def work() -> int:
        main()
        return 0

    sys.exit(in_one_sentence(Path(sys.argv[0]).stem, work))
