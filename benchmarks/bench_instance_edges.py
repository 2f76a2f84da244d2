"""instance_edges against the comparisons of the original project and torch.compile, on street scenes.

    python -m benchmarks.bench_instance_edges [--quick] [--threads N] [--allocator keep]

Instances as in ``bench_instance_avg_pool``. Eager is what the original does: four comparisons of neighbours, each
or-ed into a map of bytes, which becomes float at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from torchp2p import ops
from torchp2p.reference import instance_edges as reference

from .bench_instance_avg_pool import Street, street
from .harness import EAGER, Call, Case, Provider, Session, arguments, compiled
from .program import run_as_program
from .results import OURS


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, show and keep."""
    options = arguments(__doc__).parse_args(argv)
    session = Session(options)
    full = street()
    for scene in (full.every(4),) if options.quick else (full, full.every(2)):
        for id_dtype in (torch.int32,) if options.quick else (torch.int32, torch.uint16):
            ids = scene.ids.to(id_dtype)
            session.run(case(Street(scene.source, ids)), list(providers(ids)), ["forward"])
    session.save()


def case(scene: Street) -> Case:
    """The least traffic: read the ids, write float32 edges."""
    ids = scene.ids
    return Case(
        op="instance_edges",
        config=f"{scene.source} to float32",
        dtype=str(ids.dtype).removeprefix("torch."),
        shape="x".join(map(str, ids.shape)),
        traffic={"forward": ids.numel() * (ids.element_size() + 4)},
    )


def providers(ids: Tensor) -> Iterator[Provider]:
    """Everybody, on the same ids."""

    def run(function: Callable[[Tensor], Tensor]) -> Callable[[str], Call]:
        return lambda mode: lambda: function(ids)

    yield Provider(EAGER, run(eager))
    yield Provider("compile", lambda mode: run(compiled(reference_in_float32))(mode))
    yield Provider(OURS, run(native))


def native(ids: Tensor) -> Tensor:
    return ops.instance_edges(ids)


def reference_in_float32(ids: Tensor) -> Tensor:
    return reference.instance_edges(ids, torch.float32)  # of eager's own text Inductor makes C++ that does not compile


def eager(ids: Tensor) -> Tensor:
    edges = torch.zeros(ids.shape, dtype=torch.bool)
    edges[..., 1:] |= ids[..., 1:] != ids[..., :-1]
    edges[..., :-1] |= ids[..., 1:] != ids[..., :-1]
    edges[..., 1:, :] |= ids[..., 1:, :] != ids[..., :-1, :]
    edges[..., :-1, :] |= ids[..., 1:, :] != ids[..., :-1, :]
    return edges.float()


if __name__ == "__main__":
    run_as_program(main)
