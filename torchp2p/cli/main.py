"""``torchp2p <command>``: finds and runs the command; what users can mend becomes one sentence."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Callable

COMMANDS = {
    "train": "train a network on paired images, or continue a training",
    "estimate": "say what memory and time a training will take",
    "translate": "run a trained generator over images or label maps, into images and an HTML gallery",
    "evaluate": "measure a trained generator on unseen pairs",
    "features": "encode the styles of instances, cluster them, convert those of the original",
    "export": "write a generator as ONNX or torch.export, and try what was written",
    "data": "make side-by-side pairs, check a dataset, draw the demo set",
    "verify": "hold a fused network against the original and certify that nothing changed",
    "bench": "measure ops or whole training steps against eager PyTorch and torch.compile",
    "doctor": "show which backend runs each op here, and why not the others",
}


_IN_WORKER = "in DataLoader worker process"


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 1 for an error in the work, 2 for one in the call."""
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return 0
    if arguments[0] == "--version":
        from torchp2p import __version__

        print(f"torchp2p {__version__}")
        return 0
    command, rest = arguments[0], arguments[1:]
    if command not in COMMANDS:
        from torchp2p.cli.parsing import nearest

        return _complain("torchp2p", f"{command!r} is not a command{nearest(command, list(COMMANDS))}", 2)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("torchp2p").setLevel(logging.INFO)
    return _run(command, rest)


def _run(command: str, arguments: list[str]) -> int:
    def work() -> int:
        status: int = importlib.import_module(f"torchp2p.cli.{command}").run(arguments)
        return status

    return in_one_sentence(f"torchp2p {command}", work)


def in_one_sentence(who: str, work: Callable[[], int]) -> int:
    """Do ``work`` and return its exit status; for what users can mend 1 or 2, after a sentence on standard error."""
    from torchp2p.cli.parsing import UsageError
    from torchp2p.ops import BackendUnavailableError
    from torchp2p.train import ConfigError

    try:
        return work()
    except (UsageError, ConfigError) as error:
        return _complain(who, str(error), 2, error)
    except (ValueError, TypeError, OSError, ImportError, FloatingPointError, BackendUnavailableError) as error:
        # The classes that the package raises for what a user can mend; anything else is a fault of ours.
        return _complain(who, _sentence(error), 1, error)
    except KeyboardInterrupt:
        return _complain(who, "interrupted", 130)


def _sentence(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.strerror}: {error.filename}"
    # What a process that reads data raised comes with its traceback in front.
    sentence = str(error).rpartition(f"{type(error).__name__}: ")[2] if _IN_WORKER in str(error) else str(error)
    return sentence.strip() or type(error).__name__


def _complain(who: str, sentence: str, status: int, error: BaseException | None = None) -> int:
    if error is not None and os.environ.get("TORCHP2P_DEBUG") == "1":
        raise error
    print(f"{who}: error: {sentence}", file=sys.stderr)
    return status


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name.ljust(width)}  {what}" for name, what in COMMANDS.items()]
    return "\n".join(
        [
            "usage: torchp2p <command> [options]",
            "",
            *lines,
            "",
            "torchp2p <command> --help shows its options.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
