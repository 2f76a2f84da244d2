"""gan_loss against eager losses and torch.compile, on the discriminator maps of the real networks.

    python -m benchmarks.bench_gan_loss [--quick] [--threads N] [--allocator keep]

Eager is what the original projects do: the loss of each map against a target of its size (made once), summed
over scales. A map has one channel, so channels_last is the same memory and no provider of its own.
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


@dataclass(frozen=True)
class Maps:
    """What one discriminator returns: the (height, width) of every scale, and the loss it is trained with."""

    gan_mode: str
    sizes: tuple[tuple[int, int], ...]


MAPS = (
    Maps("lsgan", ((67, 131), (35, 67), (19, 35))),  # pix2pixHD, 512 x 1024
    Maps("lsgan", ((131, 259), (67, 131), (35, 67))),  # pix2pixHD, 1024 x 2048
    Maps("vanilla", ((30, 30),)),  # pix2pix, 256 x 256
    Maps("vanilla", ((256, 256),)),  # its pixel discriminator
    Maps("lsgan", ((4096, 4096),)),  # larger than any cache: what the kernel makes of the memory's bandwidth
    Maps("vanilla", ((4096, 4096),)),
)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, show and keep."""
    options = arguments(__doc__).parse_args(argv)
    session = Session(options)
    for maps in MAPS[:1] if options.quick else MAPS:
        for dtype in (torch.float32,) if options.quick else (torch.float32, torch.bfloat16):
            tensors = [torch.randn(1, 1, h, w).to(dtype) for h, w in maps.sizes]
            session.run(case(maps, tensors), list(providers(maps, tensors)), MODES)
    session.save()


def case(maps: Maps, tensors: Sequence[Tensor]) -> Case:
    """The least traffic is to read every map, and to write its gradient."""
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    return Case(
        op="gan_loss",
        config=maps.gan_mode,
        dtype=str(tensors[0].dtype).removeprefix("torch."),
        shape=" + ".join(f"1x1x{h}x{w}" for h, w in maps.sizes),
        traffic={"forward": size, "forward_backward": 2 * size},
    )


def providers(maps: Maps, tensors: Sequence[Tensor]) -> Iterator[Provider]:
    """Everybody, on the same values."""
    targets = [torch.ones_like(tensor) for tensor in tensors]
    loss = F.mse_loss if maps.gan_mode == "lsgan" else F.binary_cross_entropy_with_logits

    def eager(*predictions: Tensor) -> Tensor:
        return torch.stack([loss(p, target) for p, target in zip(predictions, targets, strict=True)]).sum()

    def native(*predictions: Tensor) -> Tensor:
        return ops.gan_loss(predictions, True, maps.gan_mode)

    yield Provider(EAGER, lambda mode: timed_call(eager, tensors, mode))
    yield Provider("compile", lambda mode: timed_call(compiled(eager), tensors, mode))
    yield Provider(OURS, lambda mode: timed_call(native, tensors, mode))


if __name__ == "__main__":
    run_as_program(main)
