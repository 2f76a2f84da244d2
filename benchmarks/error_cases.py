"""What the error table is made of: every op on shapes of the real networks, and on what is hard.

Hard are a mean far from zero, a tiny variance, large logits. ``instance_edges`` is not here: it is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from torchp2p import ops

EAGER = "eager"
OPS = ("norm_act", "conv_norm_act", "gan_loss", "feature_matching_loss", "instance_avg_pool", "label_conv2d")

Run = Callable[[str, Mapping[str, Tensor]], Tensor]
"""(provider, tensors by name) to the result; a provider is ``eager`` or one of our backends."""


@dataclass(frozen=True)
class Case:
    """One call: which op, how, on what; ``tensors`` are float64 and are cast to the dtype under test."""

    op: str
    config: str
    shape: str
    tensors: Mapping[str, Tensor]
    run: Run


def cases() -> Iterator[Case]:
    """One after the other, so that only one is in memory."""
    torch.manual_seed(0)
    yield norm_act("instance", "leaky_relu", (1, 64, 64, 64))
    yield norm_act("instance", "relu", (1, 64, 32, 64), pad=1)
    yield norm_act("batch", "leaky_relu", (4, 64, 32, 32))
    yield norm_act("none", "tanh", (1, 3, 256, 256), pad=3)
    yield norm_act("instance", "leaky_relu", (1, 8, 1024, 2048))
    yield norm_act("instance", "leaky_relu", (1, 8, 1024, 2048), mean=1000.0)
    yield norm_act("batch", "relu", (2, 16, 128, 128), mean=1.0, spread=1e-3)
    yield conv_norm_act((1, 64, 64, 128), mean=0.0)
    yield conv_norm_act((1, 16, 512, 1024), mean=0.0)
    yield conv_norm_act((1, 64, 64, 128), mean=1000.0)
    yield conv_norm_act((1, 256, 32, 64), mean=0.0)  # by Winograd's algorithm, the backends' convolutions too
    yield down_and_up((1, 64, 64, 64), mean=0.0)  # so are these
    yield down_and_up((1, 64, 64, 64), mean=1000.0)
    for mode in ("vanilla", "lsgan", "hinge", "wgan"):
        yield gan_loss(mode, 1.0)
    yield gan_loss("vanilla", 30.0)
    yield gan_loss("lsgan", 1.0, sizes=((1024, 2048),))
    yield feature_matching_loss((1, 64, 129, 257), (1, 128, 65, 129), mean=0.0)
    yield feature_matching_loss((1, 8, 1024, 2048), mean=0.0)
    yield feature_matching_loss((1, 8, 1024, 2048), mean=1000.0)
    yield instance_avg_pool((1, 3, 256, 512), mean=0.0)
    yield instance_avg_pool((1, 3, 1024, 2048), mean=0.0)
    yield instance_avg_pool((1, 3, 1024, 2048), mean=1000.0)
    yield label_conv2d((256, 512), kernel=7, stride=1, padding=3, pad_mode="reflect", outputs=64)
    yield label_conv2d((257, 513), kernel=4, stride=2, padding=2, pad_mode="zeros", outputs=64)
    yield label_conv2d((1024, 2048), kernel=3, stride=1, padding=1, pad_mode="zeros", outputs=8)


def norm_act(
    norm: str, act: str, shape: tuple[int, int, int, int], *, pad: int = 0, mean: float = 0.0, spread: float = 1.0
) -> Case:
    """Affine, on normally distributed values."""
    channels = shape[1]
    tensors = {"x": mean + spread * torch.randn(shape, dtype=torch.float64)}
    tensors |= {"weight": 0.5 + torch.rand(channels), "bias": torch.randn(channels) / 2}

    def run(provider: str, t: Mapping[str, Tensor]) -> Tensor:
        if provider != EAGER:
            return ops.norm_act(t["x"], t["weight"], t["bias"], norm=norm, act=act, pad=pad, backend=provider)
        return eager_norm_act(t["x"], t["weight"], t["bias"], norm, act, pad)

    return Case("norm_act", f"{norm} {act} pad {pad}{values(mean, spread)}", named(shape), tensors, run)


def eager_norm_act(x: Tensor, weight: Tensor, bias: Tensor, norm: str, act: str, pad: int) -> Tensor:
    """The same as separate layers."""
    if norm == "instance":
        h = F.instance_norm(x, weight=weight, bias=bias)
    elif norm == "batch":
        h = F.batch_norm(x, None, None, weight, bias, training=True)
    else:
        h = x * weight.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1)
    h = F.leaky_relu(h, 0.2) if act == "leaky_relu" else getattr(torch, act)(h)
    return F.pad(h, (pad,) * 4, mode="reflect") if pad else h


def conv_norm_act(shape: tuple[int, int, int, int], *, mean: float) -> Case:
    """Two 3x3 convolutions with reflection pads, as a residual block has them, the first of them deferred."""
    channels = shape[1]
    tensors = {"x": mean + torch.randn(shape, dtype=torch.float64)}
    tensors |= {name: torch.randn(channels, channels, 3, 3) / 30 for name in ("first", "second")}

    def run(provider: str, t: Mapping[str, Tensor]) -> Tensor:
        if provider == EAGER:
            h = F.relu(F.instance_norm(F.conv2d(F.pad(t["x"], (1,) * 4, mode="reflect"), t["first"])))
            return F.instance_norm(F.conv2d(F.pad(h, (1,) * 4, mode="reflect"), t["second"]))
        block = partial(ops.conv_norm_act, padding=1, pad_mode="reflect", backend=provider)
        result = block(block(t["x"], t["first"], act="relu", defer=True), t["second"], act="none")
        assert isinstance(result, Tensor)
        return result

    return Case("conv_norm_act", f"two 3x3 instance relu{values(mean, 1.0)}", named(shape), tensors, run)


def down_and_up(shape: tuple[int, int, int, int], *, mean: float) -> Case:
    """A 4x4 convolution of stride 2 to twice the channels and a transposed one back, as levels of a U-Net."""
    channels = shape[1]
    tensors = {"x": mean + torch.randn(shape, dtype=torch.float64)}
    tensors |= {
        "down": torch.randn(2 * channels, channels, 4, 4) / 30,
        "up": torch.randn(2 * channels, channels, 4, 4) / 30,
    }

    def run(provider: str, t: Mapping[str, Tensor]) -> Tensor:
        if provider == EAGER:
            h = F.leaky_relu(F.instance_norm(F.conv2d(t["x"], t["down"], stride=2, padding=1)), 0.2)
            return F.instance_norm(F.conv_transpose2d(h, t["up"], stride=2, padding=1))
        block = partial(ops.conv_norm_act, stride=2, padding=1, backend=provider)
        result = block(block(t["x"], t["down"], act="leaky_relu", defer=True), t["up"], act="none", transposed=True)
        assert isinstance(result, Tensor)
        return result

    return Case("conv_norm_act", f"4x4 down and up, instance{values(mean, 1.0)}", named(shape), tensors, run)


def gan_loss(mode: str, spread: float, sizes: tuple[tuple[int, int], ...] = ((67, 131), (35, 67), (19, 35))) -> Case:
    """The maps of the three discriminators of pix2pixHD at 512 x 1024, or others."""
    tensors = {f"map{i}": spread * torch.randn(1, 1, *size, dtype=torch.float64) for i, size in enumerate(sizes)}

    def run(provider: str, t: Mapping[str, Tensor]) -> Tensor:
        if provider != EAGER:
            return ops.gan_loss(list(t.values()), True, mode, backend=provider)
        return torch.stack([eager_gan_loss(p, mode) for p in t.values()]).sum()

    return Case("gan_loss", f"{mode}, {spread:g} noise", named(*((1, 1, *size) for size in sizes)), tensors, run)


def eager_gan_loss(p: Tensor, mode: str) -> Tensor:
    """The loss of one map towards real."""
    if mode == "vanilla":
        return F.binary_cross_entropy_with_logits(p, torch.ones_like(p))
    if mode == "lsgan":
        return F.mse_loss(p, torch.ones_like(p))
    return F.relu(1 - p).mean() if mode == "hinge" else -p.mean()


def feature_matching_loss(*shapes: tuple[int, int, int, int], mean: float) -> Case:
    """Gradients for the fakes, as in training. The reals are the same numbers in every dtype."""
    reals = [(mean + torch.randn(shape)).bfloat16().double() for shape in shapes]
    tensors = {f"fake{i}": mean + torch.randn(shape, dtype=torch.float64) for i, shape in enumerate(shapes)}

    def run(provider: str, t: Mapping[str, Tensor]) -> Tensor:
        fakes = list(t.values())
        matching = [real.to(fake) for real, fake in zip(reals, fakes, strict=True)]
        if provider != EAGER:
            return ops.feature_matching_loss(fakes, matching, backend=provider)
        return torch.stack([F.l1_loss(fake, real) for fake, real in zip(fakes, matching, strict=True)]).sum()

    return Case("feature_matching_loss", f"l1{values(mean, 1.0)}", named(*shapes), tensors, run)


def instance_avg_pool(shape: tuple[int, int, int, int], *, mean: float) -> Case:
    """Blocks of 64 pixels with one of forty ids each."""
    blocks = torch.randint(0, 40, (shape[0], 1, shape[2] // 64, shape[3] // 64))
    ids = (26000 + blocks).repeat_interleave(64, 2).repeat_interleave(64, 3).int()

    def run(provider: str, t: Mapping[str, Tensor]) -> Tensor:
        where = ids.to(t["x"].device)
        return (
            eager_avg_pool(t["x"], where)
            if provider == EAGER
            else ops.instance_avg_pool(t["x"], where, backend=provider)
        )

    tensors = {"x": mean + torch.randn(shape, dtype=torch.float64)}
    return Case("instance_avg_pool", f"40 ids{values(mean, 1.0)}", named(shape), tensors, run)


def eager_avg_pool(x: Tensor, ids: Tensor) -> Tensor:
    """By index_add, of one sample."""
    found, index = ids.reshape(-1).unique(return_inverse=True)
    flat = x[0].flatten(1).T
    sums = x.new_zeros(len(found), x.shape[1]).index_add(0, index, flat)
    means: Tensor = sums / index.bincount().to(x.dtype)[:, None]
    result: Tensor = means[index].T.reshape(x.shape)
    return result


def label_conv2d(size: tuple[int, int], *, kernel: int, stride: int, padding: int, pad_mode: str, outputs: int) -> Case:
    """35 labels and one dense channel."""
    labels = torch.randint(0, 35, (1, 1, *size))
    tensors = {"dense": torch.randn(1, 1, *size, dtype=torch.float64)}
    tensors |= {"weight": torch.randn(outputs, 36, kernel, kernel) / 40, "bias": torch.randn(outputs)}

    def run(provider: str, t: Mapping[str, Tensor]) -> Tensor:
        where = labels.to(t["dense"].device)
        if provider != EAGER:
            return ops.label_conv2d(
                where, t["weight"], t["bias"], dense=t["dense"], stride=stride, padding=padding, pad_mode=pad_mode,
                backend=provider,
            )  # fmt: skip
        one_hot = F.one_hot(where[:, 0], 35).movedim(3, 1).to(t["dense"].dtype)
        mode = "constant" if pad_mode == "zeros" else pad_mode
        x = F.pad(torch.cat((one_hot, t["dense"]), 1), (padding,) * 4, mode=mode)
        return F.conv2d(x, t["weight"], t["bias"], stride)

    config = f"{kernel}x{kernel} stride {stride} {pad_mode}, 35 labels + 1 to {outputs}"
    return Case("label_conv2d", config, named((1, 36, *size)), tensors, run)


def values(mean: float, spread: float) -> str:
    """How the values lie, where it is not the usual way."""
    return "" if (mean, spread) == (0.0, 1.0) else f", x = {mean:g} + {spread:g} noise"


def named(*shapes: tuple[int, ...]) -> str:
    """Shapes in words."""
    return " + ".join("x".join(map(str, shape)) for shape in shapes)
