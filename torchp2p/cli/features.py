"""``torchp2p features encode | cluster | precompute | convert``: the styles of instances."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console
from torch import nn

from torchp2p.cli.checkpoint import Checkpoint, device_of, open_checkpoint
from torchp2p.cli.label_maps import labelled_data
from torchp2p.cli.parsing import UsageError, make_parser, nearest, parse
from torchp2p.cli.progress import progress_bar
from torchp2p.cli.styles import cluster_file, encoder_of
from torchp2p.data import LabelledDataset, LabelledFilesDataset, check_dataset
from torchp2p.edit import FeatureTable, cluster_features, convert_features, encode_features, precompute_features
from torchp2p.models import run_encoder
from torchp2p.train import HDTrainConfig

TABLE_FILE = "features.npz"
"""The encoded instances, in the folder of a run."""

_CONSOLE = Console(highlight=False, markup=False, soft_wrap=True)


def run(arguments: list[str]) -> int:
    """Run one of the sub-commands."""
    commands: dict[str, Callable[[list[str]], int]] = {
        "encode": _encode,
        "cluster": _cluster,
        "precompute": _precompute,
        "convert": _convert,
    }
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: torchp2p features encode | cluster | precompute | convert [options]")
        return 0
    if arguments[0] not in commands:
        raise UsageError(f"{arguments[0]!r} is not a sub-command{nearest(arguments[0], list(commands))}")
    return commands[arguments[0]](arguments[1:])


def _encode(arguments: list[str]) -> int:
    parser = _parser_of_data("encode", "Encode the style of every instance of a dataset into a table.")
    parser.add_argument("--out", type=str, help="the table (.npz); features.npz in the run's folder if left out")
    given = parse(parser, arguments)
    checkpoint, config, dataset, encoder = _open(given)
    out = given.out or checkpoint.path.parent / TABLE_FILE
    with progress_bar(_CONSOLE, "encode") as progress:
        table = encode_features(
            partial(run_encoder, encoder), dataset, label_feat=config.label_feat, device=device_of(given.device),
            progress=progress,
        )  # fmt: skip
    table.save(out)
    count = sum(map(len, table.rows.values()))
    _CONSOLE.print(f"{count} instances of {len(table.rows)} classes written to {out}")
    return 0


def _cluster(arguments: list[str]) -> int:
    parser = make_parser("features cluster", "Group the encoded instances of each class into typical styles.")
    parser.add_argument("table", type=str, help="instance features (.npz), or the run's folder that holds them")
    parser.add_argument("out", type=str, nargs="?", help="the clusters (.npz); beside the table if left out")
    parser.add_argument("--n_clusters", type=int, help="most clusters of a class; as in training, or 10")
    given = parse(parser, arguments)
    table, n_clusters = Path(given.table), given.n_clusters
    if table.is_dir():
        n_clusters = open_checkpoint(given.table).pix2pixHD("features").n_clusters if n_clusters is None else n_clusters
        table = table / TABLE_FILE
        if not table.exists():
            raise FileNotFoundError(f"{table} does not exist: make it with torchp2p features encode {table.parent}")
    n_clusters = HDTrainConfig.n_clusters if n_clusters is None else n_clusters
    clusters = cluster_features(FeatureTable.load(table), n_clusters)
    out = given.out or cluster_file(table.parent, n_clusters)
    clusters.save(out)
    count = sum(map(len, clusters.rows.values()))
    _CONSOLE.print(f"{count} clusters of {len(clusters.rows)} classes written to {out}")
    return 0


def _precompute(arguments: list[str]) -> int:
    parser = _parser_of_data("precompute", "Write the feature map of every image of a dataset at twice its size.")
    given = parse(parser, arguments)
    _, config, dataset, encoder = _open(given)
    if not isinstance(dataset, LabelledFilesDataset):
        raise UsageError("features are kept beside the files of a dataset, which the demo does not have: name a folder")
    with progress_bar(_CONSOLE, "encode") as progress:
        written = precompute_features(
            partial(run_encoder, encoder), dataset, label_feat=config.label_feat, device=device_of(given.device),
            progress=progress,
        )  # fmt: skip
    _CONSOLE.print(f"{len(written)} feature maps written to {dataset.options.dataroot}/{given.phase}_feat")
    return 0


def _convert(arguments: list[str]) -> int:
    parser = make_parser("features convert", "Convert a feature file of the original pix2pixHD, running nothing in it.")
    parser.add_argument("file", type=str, help="features.npy or features_clustered_010.npy")
    parser.add_argument("out", type=str, help="file to be written (.npz)")
    parser.add_argument("--kind", type=str, required=True, help="table (features.npy) or clusters")
    given = parse(parser, arguments)
    converted = convert_features(given.file, given.out, given.kind)
    _CONSOLE.print(f"{converted.KIND} of {len(converted.rows)} classes written to {given.out}")
    return 0


def _parser_of_data(name: str, description: str) -> ArgumentParser:
    parser = make_parser(f"features {name}", description)
    parser.add_argument("checkpoint", type=str, help="the folder of a run with features, or its generator's .pth file")
    parser.add_argument("dataroot", type=str, nargs="?", help="folder of the data; the training's own if left out")
    parser.add_argument("--epoch", type=str, default="latest", help="which weights of the run")
    parser.add_argument("--phase", type=str, default="train", help="which phase of the data")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1, ...")
    return parser


def _open(given: Namespace) -> tuple[Checkpoint, HDTrainConfig, LabelledDataset, nn.Module]:
    """The checkpoint, its options, its data, checked, and its encoder, on the device."""
    checkpoint = open_checkpoint(given.checkpoint, given.epoch)
    config = checkpoint.pix2pixHD("features")
    encoder = encoder_of(checkpoint).to(device_of(given.device))
    dataset = labelled_data(config, given.dataroot, given.phase)
    check_dataset(dataset)
    return checkpoint, config, dataset, encoder
