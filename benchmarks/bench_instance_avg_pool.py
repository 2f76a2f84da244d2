"""instance_avg_pool against the loop of the original project, plain PyTorch and torch.compile, on street scenes.

    python -m benchmarks.bench_instance_avg_pool [--quick] [--threads N] [--allocator keep]

Instances are those of the first Cityscapes frame in the folder that TORCHP2P_CITYSCAPES names (its ``test_inst``),
else of a drawn scene. Eager numbers the ids with torch.unique and adds up with index_add; scatter_add is the fastest
that we know in plain PyTorch; the original loops over ids, samples and channels, with a search of the map for each
id, and is measured a few times only.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from torchp2p import ops
from torchp2p.data.demo import draw_scene
from torchp2p.data.images import read_ids

from .harness import EAGER, Case, Provider, Session, arguments, compiled, timed_call
from .program import run_as_program
from .results import OURS

MODES = ("forward", "forward_backward")
FEATURES = 3  # channels of the feature encoder
ORIGINAL_ROUNDS = 3


@dataclass(frozen=True)
class Street:
    """Instance ids (1, 1, H, W) and where they come from."""

    source: str
    ids: Tensor

    def every(self, step: int) -> Street:
        """The street at 1 / step of its size."""
        return Street(self.source, self.ids[:, :, ::step, ::step].contiguous())


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, show and keep."""
    options = arguments(__doc__).parse_args(argv)
    session = Session(options)
    full = street()
    for scene in (full.every(4),) if options.quick else (full, full.every(2)):
        for dtype in (torch.float32,) if options.quick else (torch.float32, torch.bfloat16):
            x = torch.randn(1, FEATURES, *scene.ids.shape[2:]).to(dtype)
            session.run(case(scene, x), list(providers(scene.ids, x)), MODES)
            if dtype == torch.float32:
                session.run(case(scene, x), list(with_original(scene.ids, x)), MODES, rounds=ORIGINAL_ROUNDS)
    session.save()


def street() -> Street:
    """1024 x 2048 pixels: a real frame where there is one."""
    here = torch.get_default_device()
    folder = os.environ.get("TORCHP2P_CITYSCAPES")
    if folder:
        path = min((Path(folder) / "test_inst").iterdir())
        return Street("cityscapes", torch.as_tensor(read_ids(path), device=here)[None, None])
    return Street("drawn", torch.as_tensor(draw_scene((1024, 2048), seed=0).inst, device=here)[None, None])


def case(scene: Street, x: Tensor) -> Case:
    """The least traffic: read x and ids, write the result; the gradient does the same."""
    traffic = 2 * x.numel() * x.element_size() + scene.ids.numel() * scene.ids.element_size()
    return Case(
        op="instance_avg_pool",
        config=f"{scene.source} {len(scene.ids.unique())} ids",
        dtype=str(x.dtype).removeprefix("torch."),
        shape="x".join(map(str, x.shape)),
        traffic={"forward": traffic, "forward_backward": 2 * traffic},
    )


def providers(ids: Tensor, x: Tensor) -> Iterator[Provider]:
    """Everybody but the original, on the same values."""
    channels_last = x.contiguous(memory_format=torch.channels_last)

    def run(function: Callable[[Tensor, Tensor], Tensor], x: Tensor = x) -> Callable[[str], Callable[[], object]]:
        return lambda mode: timed_call(lambda x: function(x, ids), [x], mode)

    yield Provider(EAGER, run(index_add))
    yield Provider(EAGER, run(index_add, channels_last), "channels_last")
    yield Provider("scatter_add", run(scatter_add))
    yield Provider("compile", lambda mode: timed_call(compiled(lambda x: scatter_add(x, ids)), [x], mode))
    yield Provider(OURS, run(native))
    yield Provider(OURS, run(native, channels_last), "channels_last")


def with_original(ids: Tensor, x: Tensor) -> Iterator[Provider]:
    """The original beside eager and ours."""
    ways = {"original": original, EAGER: index_add, OURS: native}
    for name, function in ways.items():
        yield Provider(name, lambda mode, f=function: timed_call(lambda x: f(x, ids), [x], mode))  # type: ignore[misc]


def native(x: Tensor, ids: Tensor) -> Tensor:
    return ops.instance_avg_pool(x, ids)


def numbered(ids: Tensor) -> tuple[Tensor, Tensor]:
    """For one sample: the number of every pixel's id, flat, and how many pixels each id has."""
    numbers = torch.unique(ids, return_inverse=True)[1].flatten()
    return numbers, torch.bincount(numbers)


def index_add(x: Tensor, ids: Tensor) -> Tensor:
    numbers, counts = numbered(ids)
    pixels = x[0].permute(1, 2, 0).reshape(-1, x.shape[1])
    sums = pixels.new_zeros(len(counts), x.shape[1]).index_add(0, numbers, pixels)
    means = sums / counts.unsqueeze(1)
    return means.to(x.dtype)[numbers].view(1, *x.shape[2:], x.shape[1]).permute(0, 3, 1, 2)


def scatter_add(x: Tensor, ids: Tensor) -> Tensor:
    numbers, counts = numbered(ids)
    numbers = numbers.expand(x.shape[1], -1)
    sums = x.new_zeros(x.shape[1], len(counts)).scatter_add(1, numbers, x[0].flatten(1))
    return (sums / counts).to(x.dtype).gather(1, numbers).view(x.shape)


def original(x: Tensor, ids: Tensor) -> Tensor:
    pooled = x.clone()
    for value in ids.unique().tolist():
        for n in range(x.shape[0]):
            samples, channels, rows, columns = (ids[n : n + 1] == value).nonzero().unbind(1)
            for c in range(x.shape[1]):
                pixels = x[samples + n, channels + c, rows, columns]
                pooled[samples + n, channels + c, rows, columns] = pixels.mean().expand_as(pixels)
    return pooled


if __name__ == "__main__":
    run_as_program(main)
