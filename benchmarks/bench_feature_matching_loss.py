"""feature_matching_loss against eager losses and torch.compile, on the features of the real networks.

    python -m benchmarks.bench_feature_matching_loss [--quick] [--threads N] [--allocator keep] [--large]

Eager is what the original projects do: an L1 loss for every pair, weighed, added up. The real features need no
gradient. How features lie in memory makes no difference to any provider, so there is one layout only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from torchp2p import ops

from .harness import EAGER, Case, Provider, Session, arguments, compiled, timed_call
from .program import run_as_program
from .results import OURS

MODES = ("forward", "forward_backward")

Shape = tuple[int, int, int, int]


@dataclass(frozen=True)
class Features:
    """The pairs of one loss, and what each weighs."""

    name: str
    shapes: tuple[Shape, ...]
    weights: tuple[float, ...]


def discriminator(*first: tuple[int, int]) -> Features:
    """Feature matching in pix2pixHD: of every scale the four layers before the map, first one (height, width)."""
    shapes: list[Shape] = []
    for height, width in first:
        for channels in (64, 128, 256):
            shapes.append((1, channels, height, width))
            last, height, width = (height, width), height // 2 + 1, width // 2 + 1
        shapes.append((1, 512, last[0] + 1, last[1] + 1))
    return Features("discriminator", tuple(shapes), (10 / len(first),) * len(shapes))


def vgg(height: int, width: int) -> Features:
    """The five layers of VGG-19 of an image."""
    channels = (64, 128, 256, 512, 512)
    shapes = tuple((1, c, height >> i, width >> i) for i, c in enumerate(channels))
    return Features("vgg", shapes, tuple(10 * w for w in (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)))


PIXELS = Features("l1", ((1, 3, 256, 256),), (100.0,))  # pix2pix
DISCRIMINATOR = discriminator((257, 513), (129, 257))  # pix2pixHD, 512 x 1024
FEATURES = (PIXELS, DISCRIMINATOR, vgg(512, 1024))
QUICK_FEATURES = (PIXELS, discriminator((129, 257)))
LARGE_FEATURES = (discriminator((513, 1025), (257, 513), (129, 257)), vgg(1024, 2048))


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, show and keep."""
    options = arguments(__doc__).parse_args(argv)
    session = Session(options)
    cases = QUICK_FEATURES if options.quick else FEATURES
    for features in (*cases, *LARGE_FEATURES) if options.large else cases:
        for dtype in (torch.float32,) if options.quick else (torch.float32, torch.bfloat16):
            fake, real = ([torch.randn(shape).to(dtype) for shape in features.shapes] for _ in range(2))
            session.run(case(features, fake), list(providers(features, fake, real)), MODES)
    session.save()


def case(features: Features, fake: Sequence[Tensor]) -> Case:
    """The least traffic is to read both tensors of every pair, and to write the gradient of one."""
    size = sum(tensor.numel() * tensor.element_size() for tensor in fake)
    return Case(
        op="feature_matching_loss",
        config=features.name,
        dtype=str(fake[0].dtype).removeprefix("torch."),
        shape=" + ".join("x".join(map(str, shape)) for shape in features.shapes),
        traffic={"forward": 2 * size, "forward_backward": 3 * size},
    )


def providers(features: Features, fake: Sequence[Tensor], real: Sequence[Tensor]) -> Iterator[Provider]:
    """Everybody, on the same values."""

    def eager(*fake: Tensor) -> Tensor:
        terms = [F.l1_loss(f, r) * w for f, r, w in zip(fake, real, features.weights, strict=True)]
        return torch.stack(terms).sum()

    def native(*fake: Tensor) -> Tensor:
        return ops.feature_matching_loss(fake, real, features.weights)

    yield Provider(EAGER, lambda mode: timed_call(eager, fake, mode))
    yield Provider("compile", lambda mode: timed_call(compiled(eager), fake, mode))
    yield Provider(OURS, lambda mode: timed_call(native, fake, mode))


if __name__ == "__main__":
    run_as_program(main)
