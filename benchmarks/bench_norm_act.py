"""norm_act against eager modules and torch.compile, on the activations of the real networks.

    python -m benchmarks.bench_norm_act [--quick] [--threads N] [--allocator keep] [--large]

Eager is what the original networks do: instance norm, then the activation in place, then padding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
class Block:
    """The activations that one kind of block sees, and what comes after its norm."""

    shape: tuple[int, int, int, int]
    act: str = "leaky_relu"
    pad: int = 0


BLOCKS = (
    Block((1, 64, 512, 1024)),  # pix2pixHD 512 x 1024: first and last stage of the generator
    Block((2, 128, 129, 257)),  # and the second layer of the discriminator, real and fake together
    Block((1, 64, 256, 512)),  # pix2pixHD 512 x 256: first and last stage
    Block((1, 64, 256, 256)),  # generators at 256 x 256
    Block((1, 256, 64, 64)),  # their residual blocks
    Block((1, 1024, 16, 32)),  # residual blocks of the global generator
    Block((1, 1024, 16, 32), act="relu", pad=1),  # the same, written ready for the next convolution
    Block((1, 512, 31, 31)),  # last normalised layer of the 70 x 70 discriminator
)
QUICK_BLOCKS = (BLOCKS[3], BLOCKS[5])
LARGE_BLOCK = Block((1, 32, 1024, 2048))  # the local enhancer at full resolution


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, show and keep."""
    options = arguments(__doc__).parse_args(argv)
    session = Session(options)
    blocks = QUICK_BLOCKS if options.quick else BLOCKS
    dtypes = (torch.float32,) if options.quick else (torch.float32, torch.bfloat16)
    for block in (*blocks, LARGE_BLOCK) if options.large else blocks:
        for dtype in dtypes:
            x = torch.randn(block.shape).to(dtype)
            session.run(case(block, x), list(providers(block, x)), MODES)
    session.save()


def case(block: Block, x: Tensor) -> Case:
    """The least traffic: read x, write y; then read x and the gradient of y, write the gradient of x."""
    n, c, h, w = block.shape
    x_bytes = x.numel() * x.element_size()
    y_bytes = n * c * (h + 2 * block.pad) * (w + 2 * block.pad) * x.element_size()
    return Case(
        op="norm_act",
        config=f"instance {block.act}" + (f" reflect {block.pad}" if block.pad else ""),
        dtype=str(x.dtype).removeprefix("torch."),
        shape="x".join(map(str, block.shape)),
        traffic={"forward": x_bytes + y_bytes, "forward_backward": 3 * x_bytes + 2 * y_bytes},
    )


def providers(block: Block, x: Tensor) -> Iterator[Provider]:
    """Everybody, on the same values."""
    channels_last = x.contiguous(memory_format=torch.channels_last)

    def run(function: Callable[[Tensor], Tensor], x: Tensor = x) -> Callable[[str], Callable[[], object]]:
        return lambda mode: timed_call(function, [x], mode)

    def eager(x: Tensor) -> Tensor:
        y = F.instance_norm(x)
        y = F.leaky_relu(y, 0.2, inplace=True) if block.act == "leaky_relu" else F.relu(y, inplace=True)
        return F.pad(y, (block.pad,) * 4, mode="reflect") if block.pad else y

    def native(x: Tensor) -> Tensor:
        return ops.norm_act(x, act=block.act, pad=block.pad)

    yield Provider(EAGER, run(eager))
    yield Provider(EAGER, run(eager, channels_last), "channels_last")
    yield Provider("compile", lambda mode: timed_call(compiled(eager), [x], mode))
    yield Provider(OURS, run(native))
    yield Provider(OURS, run(native, channels_last), "channels_last")


if __name__ == "__main__":
    run_as_program(main)
