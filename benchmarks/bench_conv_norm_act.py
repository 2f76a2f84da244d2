"""conv_norm_act against plain modules and torch.compile: in a residual block, and as the other layers of the networks;
and the bytes that a chain of blocks keeps.

    python -m benchmarks.bench_conv_norm_act [--quick] [--threads N] [--allocator keep] [--large]

``native`` takes the convolution that torchp2p chooses. With the ``vendor``'s, the ratio shows what is done around it;
``winograd`` is there to be compared for every shape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from torchp2p import ops

from .harness import EAGER, Case, Provider, Session, arguments, compiled, timed_call
from .program import run_as_program
from .results import OURS

MODES = ("forward", "forward_backward")
SHAPES = (
    (1, 256, 64, 64),  # residual blocks at 256 x 256
    (1, 1024, 16, 32),  # of the global generator at 512 x 256
    (1, 1024, 32, 64),  # at 1024 x 512
)
LARGE_SHAPE = (1, 64, 512, 1024)  # of the local enhancer at 2048 x 1024
LAYERS: dict[
    str, tuple[tuple[int, ...], int, int, dict[str, Any]]
] = {  # of networks at 256 x 256 and 512 x 256: what it is, x, outputs, kernel, and how it is convolved
    "U-Net, 4x4 down": ((1, 128, 64, 64), 256, 4, {"stride": 2, "padding": 1}),
    "U-Net, 4x4 up": ((1, 512, 32, 32), 128, 4, {"stride": 2, "padding": 1, "transposed": True}),
    "discriminator, 4x4": ((1, 256, 33, 65), 512, 4, {"padding": 2}),
    "generator, 3x3 down": ((1, 256, 64, 128), 512, 3, {"stride": 2, "padding": 1}),
    "generator, 3x3 up": (
        (1, 512, 32, 64),
        256,
        3,
        {"stride": 2, "padding": 1, "transposed": True, "output_padding": 1},
    ),
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
CHAIN = 6

Block = Callable[[Tensor, Tensor, Tensor], Tensor]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, show and keep; the bytes are shown only."""
    options = arguments(__doc__).parse_args(argv)
    session = Session(options)
    shapes = SHAPES[:1] if options.quick else SHAPES
    for shape in (*shapes, LARGE_SHAPE) if options.large else shapes:
        for dtype in DTYPES:
            # A call on the large one takes seconds.
            rounds = 5 if shape == LARGE_SHAPE else None
            session.run(case(shape, dtype), list(providers(shape, dtype)), MODES, rounds=rounds)
    for layer in () if options.quick else LAYERS:
        for dtype in DTYPES:
            session.run(layer_case(layer, dtype), list(layer_providers(layer, dtype)), MODES)
    session.save()
    plain, ours = (saved_bytes(block, SHAPES[0]) for block in (eager, native))
    print(f"a chain of {CHAIN} residual blocks at {SHAPES[0]} keeps {plain / 1e6:.1f} MB in plain modules, ", end="")
    print(f"{ours / 1e6:.1f} MB here: {ours / plain:.0%}")


def case(shape: tuple[int, int, int, int], dtype: str) -> Case:
    """Arithmetic, not memory, limits a convolution: its traffic is left out."""
    return Case(
        op="conv_norm_act",
        config="residual block, reflect 1, instance relu",
        dtype=dtype,
        shape="x".join(map(str, shape)),
        traffic={},
    )


def eager(x: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """The original's block: a bias-free 3x3 convolution, twice."""
    h = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), first)
    h = F.relu(F.instance_norm(h), inplace=True)
    return x + F.instance_norm(F.conv2d(F.pad(h, (1, 1, 1, 1), mode="reflect"), second))


def native(x: Tensor, first: Tensor, second: Tensor, algorithm: str | None = None) -> Tensor:
    """The same as a chain."""
    how: Any = {"padding": 1, "pad_mode": "reflect", "algorithm": algorithm}
    h = ops.conv_norm_act(x, first, act="relu", defer=True, **how)
    y = ops.conv_norm_act(h, second, act="none", residual=x, **how)
    assert isinstance(y, Tensor)
    return y


def providers(shape: tuple[int, int, int, int], dtype: str) -> Iterator[Provider]:
    """Everybody, on the same values."""
    inputs = [tensor.to(DTYPES[dtype]) for tensor in _inputs(shape)]

    def run(block: Block) -> Callable[[str], Callable[[], object]]:
        return lambda mode: timed_call(block, inputs, mode)

    yield Provider(EAGER, run(eager))
    yield Provider("compile", lambda mode: timed_call(compiled(eager), inputs, mode))
    yield Provider(OURS, run(native))
    for algorithm in ("vendor", "winograd"):
        yield Provider(algorithm, run(partial(native, algorithm=algorithm)))


def layer_case(layer: str, dtype: str) -> Case:
    """As ``case``, of one of ``LAYERS``."""
    shape, outputs, *_ = LAYERS[layer]
    config = f"{layer} to {outputs}, instance leaky_relu"
    return Case(op="conv_norm_act", config=config, dtype=dtype, shape="x".join(map(str, shape)), traffic={})


def layer_providers(layer: str, dtype: str) -> Iterator[Provider]:
    """As ``providers``, of one of ``LAYERS``."""
    shape, outputs, kernel, how = LAYERS[layer]
    channels = (shape[1], outputs) if how.get("transposed") else (outputs, shape[1])
    inputs = [t.to(DTYPES[dtype]) for t in (torch.randn(shape), torch.randn(*channels, kernel, kernel) / 30)]
    plain = {name: value for name, value in how.items() if name != "transposed"}
    convolution: Callable[..., Tensor] = F.conv_transpose2d if how.get("transposed") else F.conv2d

    def eager(x: Tensor, weight: Tensor) -> Tensor:
        return F.leaky_relu(F.instance_norm(convolution(x, weight, **plain)), 0.2, inplace=True)

    def run(block: Callable[..., Any]) -> Callable[[str], Callable[[], object]]:
        return lambda mode: timed_call(block, inputs, mode)

    yield Provider(EAGER, run(eager))
    yield Provider("compile", lambda mode: timed_call(compiled(eager), inputs, mode))
    yield Provider(OURS, run(partial(ops.conv_norm_act, **how)))
    for algorithm in ("vendor", "winograd"):
        yield Provider(algorithm, run(partial(ops.conv_norm_act, algorithm=algorithm, **how)))


def saved_bytes(block: Block, shape: tuple[int, int, int, int]) -> int:
    """What autograd keeps for the backward pass of a chain of blocks, weights left out."""
    x, first, second = (tensor.requires_grad_() for tensor in _inputs(shape))
    kept: dict[int, int] = {}
    alive: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        h = x
        for _ in range(CHAIN):
            h = block(h, first, second)
    for weight in (first, second):
        kept.pop(weight.untyped_storage().data_ptr(), None)
    return sum(kept.values())


def _inputs(shape: tuple[int, int, int, int]) -> list[Tensor]:
    channels = shape[1]
    weights = [torch.randn(channels, channels, 3, 3) / channels**0.5 / 3 for _ in range(2)]
    return [torch.randn(shape), *weights]


if __name__ == "__main__":
    run_as_program(main)
