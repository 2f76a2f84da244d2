"""The options of ``bench_step``: which cases, which providers, how long."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from jsonargparse import ArgumentParser, Namespace

from torchp2p.cli.parsing import UsageError, make_parser, parse, parse_size
from torchp2p.data.transforms import Size
from torchp2p.files import atomic_write
from torchp2p.models import VGG19Features
from torchp2p.train import HDTrainConfig
from torchp2p.train.estimate import size_multiple

from .. import machine
from ..plain.pix2pixhd import PlainVGG19
from .compare import Plan
from .providers import DEFAULT, PRECISIONS, Provider, ablations, against
from .training import Case

SCALE_SIZES = ((256, 256), (256, 512), (512, 512), (512, 1024), (1024, 2048))
SCALE_AGAINST = "reference,autocast"
DEVICES = ("cpu", "cuda")
ROUNDS, WARM_UP, TOGETHER = 7, 10, 3
QUICK_ROUNDS, QUICK_WARM_UP = 3, 5
FREE_SHARE = 0.9
"""Of the memory that is free, that a process may take unless told otherwise."""


def parsed(arguments: Sequence[str]) -> Namespace:
    """The options given.

    Raises:
        UsageError: an unknown option, a wrong value, options that are not for one another.
    """
    given = parse(_parser(), arguments)
    for name, choices in (("device", DEVICES), ("precision", PRECISIONS)):
        if given[name] not in choices:
            raise UsageError(f"--{name} must be one of {', '.join(choices)}, got {given[name]!r}")
    for name in ("batch_size", "rounds", "warm_up", "together", "limit"):
        if given[name] is not None and not given[name] > 0:
            raise UsageError(f"--{name} must be more than 0, got {given[name]}")
    for one, other in (("ablate", "scale"), ("ablate", "against"), ("scale", "size"), ("quick", "once")):
        if given[one] and given[other]:
            raise UsageError(f"--{one} and --{other} must not both be given")
    return given


def _parser() -> ArgumentParser:
    parser = make_parser("bench step", "Whole training steps against the original procedure on plain modules.")
    add = parser.add_argument
    add("--preset", type=str, default="pix2pix", help="of the trainer; several with commas")
    add("--size", type=str, help="HEIGHTxWIDTH, several with commas; left out, the preset's own")
    add("--against", type=str, help=f"providers with commas, the first is the base; left out, {DEFAULT}")
    add("--ablate", type=bool, default=False, help="torchp2p against itself, one switch at a time the other way")
    add("--precision", type=str, default="float32", help="of --ablate: float32 or bfloat16")
    add("--scale", type=bool, default=False, help="sizes 256x256 to 1024x2048, on one thread and on all")
    add("--vgg", type=str, help="with the VGG loss: a file of torchvision's weights, or random")
    add("--batch_size", type=int, default=1, help="images in a step")
    add("--threads", type=str, help="of every provider; several with commas")
    add("--device", type=str, default="cpu", help="cpu or cuda")
    add("--rounds", type=int, help=f"steps that are timed; left out, {ROUNDS}")
    add("--warm_up", type=int, help=f"steps before them, after which weights are compared; left out, {WARM_UP}")
    add("--quick", type=bool, default=False, help=f"{QUICK_ROUNDS} rounds after {QUICK_WARM_UP} steps")
    add(
        "--once",
        type=bool,
        default=False,
        help="one round after one step, of one process at a time: memory at large sizes",
    )
    add("--profile", type=bool, default=False, help="also the time by kind of work, from torch's profiler")
    add("--together", type=int, help=f"processes that are there at a time, the base among them; left out, {TOGETHER}")
    add("--limit", type=float, help="gigabytes that a process may take; left out, 90 percent of what is free")
    add("--results", type=str, help="folder of the rows")
    return parser


def part(given: Namespace) -> str:
    """What the run is about, as rows have it."""
    return "ablate" if given.ablate else "scale" if given.scale else "against"


def providers(given: Namespace) -> list[Provider]:
    """In the order in which they take their steps, the base first.

    Raises:
        UsageError: an unknown one.
    """
    if given.ablate:
        return ablations(given.precision, given.device)
    return against(given.against or (SCALE_AGAINST if given.scale else DEFAULT))


def plan(given: Namespace) -> Plan:
    """How long to measure, and in how much memory."""
    rounds, warm_up = ROUNDS, WARM_UP
    if given.quick or given.once:
        rounds, warm_up = (QUICK_ROUNDS, QUICK_WARM_UP) if given.quick else (1, 1)
    limit = given.limit or FREE_SHARE * machine.available_bytes() / 1e9
    together = given.together or (1 if given.once else TOGETHER)
    return Plan(given.rounds or rounds, given.warm_up or warm_up, together, limit, given.profile)


def cases(given: Namespace, vgg: str | None) -> list[Case]:
    """Every preset at every size on every number of threads.

    Args:
        vgg: file of the weights.

    Raises:
        UsageError: a size or a number of threads that is none, a size that the generator does not take.
        ConfigError: an unknown preset.
    """
    found = [
        Case(name, size, threads, given.device, given.batch_size, vgg)
        for name in given.preset.split(",")
        for size in _sizes(given, name)
        for threads in _threads(given)
    ]
    for case in found:
        multiple = size_multiple(case.config("float32"))
        if any(side % multiple for side in case.size):
            raise UsageError(f"--size must be of multiples of {multiple} with {case.preset}, got {_shown(case.size)}")
        if vgg and not isinstance(case.config("float32"), HDTrainConfig):
            raise UsageError(f"--vgg is for presets of pix2pixHD, got {case.preset}")
    return found


def _sizes(given: Namespace, name: str) -> Sequence[Size]:
    if given.scale:
        return SCALE_SIZES
    if given.size:
        return [parse_size(text) for text in given.size.split(",")]
    config = Case(name, (0, 0), 1).config("float32")
    # The images of the originals: twice as wide as high, or square.
    high = config.load_size // 2 if isinstance(config, HDTrainConfig) else config.crop_size
    return [(high, config.load_size if isinstance(config, HDTrainConfig) else config.crop_size)]


def _threads(given: Namespace) -> list[int]:
    if not given.threads:
        return sorted({1, torch.get_num_threads()}) if given.scale else [torch.get_num_threads()]
    numbers = given.threads.split(",")
    for number in numbers:
        if not number.isdigit() or not int(number):
            raise UsageError(f"--threads must be whole numbers from 1, with commas, got {given.threads!r}")
    return [int(number) for number in numbers]


def _shown(size: Size) -> str:
    return f"{size[0]}x{size[1]}"


@contextmanager
def vgg_weights(wanted: str | None) -> Iterator[str | None]:
    """The file of the weights; random ones cost what trained ones do, and are gone afterwards.

    Raises:
        FileNotFoundError, ValueError: ``wanted`` is no file, or not of such weights.
    """
    if wanted != "random":
        if wanted is not None:
            VGG19Features(wanted)
        yield wanted
        return
    with tempfile.TemporaryDirectory(prefix="torchp2p_vgg_") as folder:
        path = Path(folder) / "vgg19.pth"
        atomic_write(path, lambda file: torch.save(PlainVGG19().state_dict(), file))
        yield str(path)
