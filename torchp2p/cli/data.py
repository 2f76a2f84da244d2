"""``torchp2p data pairs | cityscapes | check | demo``: making and checking datasets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from rich.console import Console

from torchp2p.cli.label_maps import phases_of
from torchp2p.cli.parsing import UsageError, make_parser, nearest, parse, parse_size
from torchp2p.cli.progress import progress_bar
from torchp2p.data import (
    build_dataset,
    build_labelled_dataset,
    check_files,
    combine_cityscapes,
    combine_folders,
    contact_sheet,
)
from torchp2p.data.demo import write_dataset
from torchp2p.data.epochs import EpochDataset
from torchp2p.train import HDTrainConfig, TrainConfig

_CONSOLE = Console(highlight=False, markup=False, soft_wrap=True)


def run(arguments: list[str]) -> int:
    """Run one of the sub-commands."""
    commands: dict[str, Callable[[list[str]], int]] = {
        "pairs": _pairs,
        "cityscapes": _cityscapes,
        "check": _check,
        "demo": _demo,
    }
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: torchp2p data pairs | cityscapes | check | demo [options]")
        return 0
    if arguments[0] not in commands:
        raise UsageError(f"{arguments[0]!r} is not a sub-command{nearest(arguments[0], list(commands))}")
    return commands[arguments[0]](arguments[1:])


def _pairs(arguments: list[str]) -> int:
    parser = make_parser("data pairs", "Join two folders of images with equal names into files A|B.")
    parser.add_argument("A", type=str, help="folder of input images")
    parser.add_argument("B", type=str, help="folder of target images")
    _add_output(parser, None, "HEIGHTxWIDTH of each half; left out, sizes stay and must agree")
    parser.add_argument("--a_suffix", type=str, default="", help="end of the names in A that B does not have")
    parser.add_argument("--b_suffix", type=str, default="", help="end of the names in B that A does not have")
    given = parse(parser, arguments)
    size = None if given.size is None else parse_size(given.size)
    with progress_bar(_CONSOLE, "join") as progress:
        written = combine_folders(
            given.A, given.B, given.out, size, a_suffix=given.a_suffix, b_suffix=given.b_suffix,
            extension=given.extension, overwrite=given.overwrite, progress=progress,
        )  # fmt: skip
    _CONSOLE.print(f"{len(written)} pairs written to {given.out}")
    return 0


def _cityscapes(arguments: list[str]) -> int:
    parser = make_parser("data cityscapes", "Make files 'colour label | photo' from Cityscapes folders.")
    parser.add_argument("labels", type=str, help="folder of *_gtFine_labelIds.png")
    parser.add_argument("photos", type=str, help="folder of *_leftImg8bit.png")
    _add_output(parser, "256x256", "HEIGHTxWIDTH of each half")
    parser.add_argument("--unknown", type=int, help="label to show ids outside 0..34 as; left out, they are an error")
    given = parse(parser, arguments)
    with progress_bar(_CONSOLE, "join") as progress:
        written = combine_cityscapes(
            given.labels, given.photos, given.out, parse_size(given.size), unknown=given.unknown,
            extension=given.extension, overwrite=given.overwrite, progress=progress,
        )  # fmt: skip
    _CONSOLE.print(f"{len(written)} pairs written to {given.out}")
    return 0


def _check(arguments: list[str]) -> int:
    parser = make_parser("data check", "Decode every file of a dataset and draw a contact sheet.")
    parser.add_argument("dataroot", type=str, help="folder of the data")
    parser.add_argument("--sheet", type=str, help="where the contact sheet goes (PNG); left out, none is drawn")
    parser.add_argument("--count", type=int, default=24, help="pairs on the contact sheet")
    parser.add_argument("--dataset_mode", type=str, help="as in training; aligned, or labelled for label maps")
    for name in ("phase", "direction", "unknown_label"):
        parser.add_argument(f"--{name}", type=str, help="as in training")
    for name in ("input_nc", "output_nc", "label_nc"):
        parser.add_argument(f"--{name}", type=int, help="as in training")
    for name in ("no_instance", "load_features"):
        parser.add_argument(f"--{name}", type=bool, help="as in training")
    given = parse(parser, arguments)
    dataset = _dataset({
        key: value for key, value in vars(given).items() if key not in ("sheet", "count") and value is not None
    })  # fmt: skip
    with progress_bar(_CONSOLE, "decode") as progress:
        problems = check_files(dataset, progress=progress)
    for problem in problems:
        _CONSOLE.print(problem.reason)
    _CONSOLE.print(f"{len(dataset)} samples, {len(problems)} problems")
    if given.sheet and not problems:
        contact_sheet(dataset.unaugmented(), given.sheet, given.count)
        _CONSOLE.print(f"contact sheet: {Path(given.sheet).resolve()}")
    return 1 if problems else 0


def _dataset(options: dict[str, Any]) -> EpochDataset[Any]:
    """Of label maps where the options or the folders say so, of pairs otherwise."""
    root = Path(options["dataroot"])
    if "dataset_mode" not in options and "label_nc" not in options:
        if phases_of(root, rgb=False):
            options |= {"label_nc": HDTrainConfig.label_nc}
        elif phases_of(root, rgb=True):
            options |= {"label_nc": 0, "no_instance": True}
    if "label_nc" in options:
        options = {"dataset_mode": "labelled", **options}
    if options.get("dataset_mode") != "labelled":
        return build_dataset(TrainConfig.from_mapping(options))
    features = {"instance_feat": True} if options.get("load_features") else {}
    return build_labelled_dataset(HDTrainConfig.from_mapping({**options, "no_vgg_loss": True, **features}))


def _demo(arguments: list[str]) -> int:
    parser = make_parser(
        "data demo", "Draw street scenes: labels, instance ids and images, in the layout of pix2pixHD."
    )
    parser.add_argument("out", type=str, help="folder, made if missing")
    parser.add_argument("--count", type=int, default=20, help="scenes")
    parser.add_argument("--size", type=str, default="512x1024", help="HEIGHTxWIDTH")
    parser.add_argument("--seed", type=int, default=0, help="of the first scene")
    parser.add_argument("--phase", type=str, default="train", help="folders are PHASE_label, PHASE_inst, PHASE_img")
    given = parse(parser, arguments)
    for name, least in (("count", 1), ("seed", 0)):
        if given[name] < least:
            raise UsageError(f"--{name} must be at least {least}, got {given[name]}")
    write_dataset(given.out, given.count, parse_size(given.size), given.seed, phase=given.phase)
    _CONSOLE.print(f"{given.count} scenes written to {given.out}")
    return 0


def _add_output(parser: ArgumentParser, size: str | None, size_help: str) -> None:
    parser.add_argument("out", type=str, help="folder, made if missing")
    parser.add_argument("--size", type=str, default=size, help=size_help)
    parser.add_argument("--extension", type=str, default=".png", help=".png, .jpg (quality 100, 4:4:4) or .tif")
    parser.add_argument("--overwrite", type=bool, default=False, help="replace files that exist")
