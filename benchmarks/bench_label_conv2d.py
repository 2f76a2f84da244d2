"""label_conv2d against the dense convolution of one-hot labels, in the first layers of the real networks.

    python -m benchmarks.bench_label_conv2d [--quick] [--threads N] [--allocator keep] [--large]

``eager`` pads and convolves a one-hot tensor that is there already; ``eager one_hot`` scatters it first, as the
original networks do in every iteration. Label maps: a frame of Cityscapes (TORCHP2P_CITYSCAPES, left out where there
is none), a drawn street scene, and ids at random per pixel, the worst there is. Gradients are those of weight and
bias, and of the dense channels where they come from a network.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from torchp2p import ops
from torchp2p.data.demo import draw_scene

from .harness import EAGER, Case, Provider, Session, arguments, compiled, timed_call
from .program import run_as_program
from .results import OURS

Prepare = Callable[[str], Callable[[], object]]

MODES = ("forward", "forward_backward")
CLASSES = 35


@dataclass(frozen=True)
class Layer:
    """A first convolution. ``trained``: its dense channels take a gradient too."""

    name: str
    size: tuple[int, int]
    out: int = 64
    kernel: int = 7
    stride: int = 1
    padding: int = 3
    pad_mode: str = "reflect"
    dense: int = 1
    trained: bool = False


LAYERS = (
    Layer("generator", (256, 512)),  # labels and edges into the global generator
    Layer("generator with features", (256, 512), dense=4, trained=True),  # and what the encoder has learnt
    Layer("discriminator", (256, 512), 64, 4, 2, 2, "zeros", dense=4, trained=True),  # labels, edges, image
    Layer("3x3", (256, 512), 64, 3, 1, 1, "zeros"),
    Layer("few outputs", (256, 512), 12),
)
QUICK_LAYERS = (LAYERS[0], LAYERS[2])
LARGE_LAYER = Layer("enhancer", (1024, 2048), 32)  # the local enhancer at full resolution


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, show and keep."""
    options = arguments(__doc__).parse_args(argv)
    session = Session(options)
    layers = QUICK_LAYERS if options.quick else LAYERS
    for layer in (*layers, LARGE_LAYER) if options.large else layers:
        for source, labels in label_maps(layer.size):
            dtypes = (torch.float32, torch.bfloat16) if layer == LAYERS[0] and not options.quick else (torch.float32,)
            for dtype in dtypes:
                tensors = inputs(layer, dtype)
                session.run(case(layer, source, tensors), list(providers(layer, labels, tensors)), MODES)
    session.save()


def label_maps(size: tuple[int, int]) -> Iterator[tuple[str, Tensor]]:
    """(source, (1, 1, H, W) uint8) of every source that there is."""
    folder, here = os.environ.get("TORCHP2P_CITYSCAPES"), torch.get_default_device()
    if folder:
        path = sorted((Path(folder) / "train_label").glob("*.png"))[0]
        with Image.open(path) as image:
            frame = np.array(image.resize((size[1], size[0]), Image.Resampling.NEAREST))
        yield "cityscapes", torch.as_tensor(frame.astype(np.uint8), device=here)[None, None]
    yield "drawn scene", torch.as_tensor(draw_scene(size, 1).label.astype(np.uint8), device=here)[None, None]
    yield "noise", torch.randint(0, CLASSES, (1, 1, *size), dtype=torch.uint8)


def inputs(layer: Layer, dtype: torch.dtype) -> list[Tensor]:
    """Weight, bias and dense channels."""
    weight = torch.randn(layer.out, CLASSES + layer.dense, layer.kernel, layer.kernel)
    dense = torch.randn(1, layer.dense, *layer.size)
    return [tensor.to(dtype) for tensor in (weight, torch.randn(layer.out), dense)]


def case(layer: Layer, source: str, tensors: Sequence[Tensor]) -> Case:
    """The least traffic: read labels and dense channels, write y; for the gradients read those and grad_y."""
    weight, _, dense = tensors
    height, width = layer.size
    out_pixels = 1
    for side in layer.size:
        out_pixels *= (side + 2 * layer.padding - layer.kernel) // layer.stride + 1
    read = height * width + dense.numel() * dense.element_size()
    written = layer.out * out_pixels * weight.element_size()
    dense_gradient = dense.numel() * dense.element_size() if layer.trained else 0
    return Case(
        op="label_conv2d",
        config=f"{layer.name}, {source}",
        dtype=str(weight.dtype).removeprefix("torch."),
        shape=f"{CLASSES}+{layer.dense}x{height}x{width} to {layer.out}, "
        f"{layer.kernel}x{layer.kernel} stride {layer.stride}",
        traffic={"forward": read + written, "forward_backward": 2 * (read + written) + dense_gradient},
    )


def providers(layer: Layer, labels: Tensor, tensors: Sequence[Tensor]) -> Iterator[Provider]:
    """Everybody, on the same values."""
    weight, bias, dense = tensors
    one_hot = scattered(labels, weight.dtype)
    joined = torch.cat([one_hot, dense], 1)
    joined_last = joined.contiguous(memory_format=torch.channels_last)
    padding = (layer.padding,) * 4
    mode_of_pad = "constant" if layer.pad_mode == "zeros" else layer.pad_mode

    def convolve(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, padding, mode=mode_of_pad), weight, bias, layer.stride)

    def run(function: Callable[..., Tensor], weight: Tensor = weight, dense: Tensor = dense) -> Prepare:
        """``function(weight, bias, dense)``, in which the dense channels are a leaf where they are trained."""
        if layer.trained:
            return lambda mode: timed_call(function, [weight, bias, dense], mode)
        return lambda mode: timed_call(lambda w, b: function(w, b, dense), [weight, bias], mode)

    def eager(weight: Tensor, bias: Tensor, dense: Tensor) -> Tensor:
        return convolve(torch.cat([one_hot, dense], 1) if layer.trained else joined, weight, bias)

    def eager_last(weight: Tensor, bias: Tensor, dense: Tensor) -> Tensor:
        return convolve(torch.cat([one_hot_last, dense], 1) if layer.trained else joined_last, weight, bias)

    def eager_one_hot(weight: Tensor, bias: Tensor, dense: Tensor) -> Tensor:
        return convolve(torch.cat([scattered(labels, weight.dtype), dense], 1), weight, bias)

    def native(weight: Tensor, bias: Tensor, dense: Tensor) -> Tensor:
        return ops.label_conv2d(
            labels,
            weight,
            bias,
            dense=dense,
            stride=layer.stride,
            padding=layer.padding,
            pad_mode=layer.pad_mode,
        )

    one_hot_last, weight_last, dense_last = (
        tensor.contiguous(memory_format=torch.channels_last) for tensor in (one_hot, weight, dense)
    )
    yield Provider(EAGER, run(eager))
    yield Provider(EAGER, run(eager_last, weight_last, dense_last), "channels_last")
    yield Provider("eager one_hot", run(eager_one_hot))
    yield Provider("compile", lambda mode: run(compiled(eager_one_hot))(mode))
    yield Provider(OURS, run(native))
    yield Provider(OURS, run(native, weight_last, dense_last), "channels_last")


def scattered(labels: Tensor, dtype: torch.dtype) -> Tensor:
    """The one-hot tensor, as the original networks make it."""
    one_hot = torch.zeros(labels.shape[0], CLASSES, *labels.shape[2:], dtype=dtype)
    return one_hot.scatter_(1, labels.long(), 1.0)


if __name__ == "__main__":
    run_as_program(main)
