"""``torchp2p features cluster | convert``: the styles of instances, file in and file out."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console

from torchp2p.cli.parsing import UsageError, make_parser, nearest, parse
from torchp2p.edit import FeatureTable, cluster_features, convert_features

_CONSOLE = Console(highlight=False, markup=False, soft_wrap=True)


def run(arguments: list[str]) -> int:
    """Run one of the sub-commands."""
    commands: dict[str, Callable[[list[str]], int]] = {"cluster": _cluster, "convert": _convert}
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: torchp2p features cluster | convert [options]")
        return 0
    if arguments[0] not in commands:
        raise UsageError(f"{arguments[0]!r} is not a sub-command{nearest(arguments[0], list(commands))}")
    return commands[arguments[0]](arguments[1:])


def _cluster(arguments: list[str]) -> int:
    parser = make_parser("features cluster", "Group the encoded instances of each class into typical styles.")
    parser.add_argument("table", type=str, help="instance features (.npz)")
    parser.add_argument("out", type=str, help="the clusters, to be written (.npz)")
    parser.add_argument("--n_clusters", type=int, default=10, help="most clusters of a class")
    given = parse(parser, arguments)
    clusters = cluster_features(FeatureTable.load(given.table), given.n_clusters)
    clusters.save(given.out)
    count = sum(map(len, clusters.rows.values()))
    _CONSOLE.print(f"{count} clusters of {len(clusters.rows)} classes written to {given.out}")
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
