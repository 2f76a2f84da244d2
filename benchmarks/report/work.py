"""How much arithmetic a step is: counted on tensors without memory, so that no machine has a part in it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from torchp2p.train import HDTrainConfig, Lean, TrainConfig
from torchp2p.train.pix2pix_recipe import build_step
from torchp2p.train.pix2pixhd_recipe import build_hd_networks, build_hd_step
from torchp2p.train.probe import random_batch

from ..step.providers import PROVIDERS
from ..step.training import Case, training
from .records import markdown

CASES = (
    Case("pix2pix", (256, 256), 1),
    Case("pix2pixhd-512p", (256, 512), 1),
    Case("pix2pixhd-512p", (512, 1024), 1),
    Case("pix2pixhd-1024p", (1024, 2048), 1),
)


def table(cases: Sequence[Case] = CASES) -> str:
    """10^9 operations of a step: of the original, of what is left by direct convolutions, and as torchp2p takes it."""
    lines = []
    for case in cases:
        original, direct, taken = of_original(case), of_ours(case, Lean(algorithm="vendor")), of_ours(case, Lean())
        name = f"{case.preset} {case.size[0]}x{case.size[1]}"
        lines.append((name, *(f"{count / 1e9:.0f}" for count in (original, direct, taken)), f"{original / taken:.2f}"))
    heads = ("step, without VGG", "original", "without what it wastes", "torchp2p", "times fewer")
    return markdown(heads, lines)


def of_original(case: Case) -> int:
    """Operations of a step of the original, two for a multiplication and its addition."""
    with _without_memory():
        made = training(case, PROVIDERS["reference"])
        return _counted(made.step, made.optimizers)


def of_ours(case: Case, lean: Lean) -> int:
    """Of a step of torchp2p; looking a label up is no multiplication."""
    config = case.config("float32")
    with _without_memory():
        batch = random_batch(config, case.size)
        if isinstance(config, HDTrainConfig):
            step_hd = build_hd_step(config, build_hd_networks(config), lean=lean)
            step_hd.skipping_on_device = lambda *_: None  # there is no loss to look at
            return _counted(lambda: step_hd(batch), (step_hd.optimizer_G, step_hd.optimizer_D))
        assert isinstance(config, TrainConfig)
        step = build_step(config, lean=lean)
        assert step.optimizer_D is not None
        return _counted(lambda: step(batch), (step.optimizer_G, step.optimizer_D))


@contextlib.contextmanager
def _without_memory() -> Iterator[None]:
    """Tensors have shapes, dtypes and devices, and nothing else: they cannot be moved, nor labels be looked at."""
    staying = mock.patch.object(nn.Module, "to", lambda module, *_, **__: module)
    unseen = mock.patch("torchp2p.models.inputs._check_ids")
    with FakeTensorMode(), staying, unseen:
        yield


def _counted(step: Callable[[], object], optimizers: Sequence[torch.optim.Optimizer]) -> int:
    for optimizer in optimizers:
        optimizer.step = lambda *_: None  # type: ignore[assignment, method-assign]  # it multiplies no matrices
    with FlopCounterMode(display=False, custom_mapping=_FORMULAS) as counter:
        step()
    return int(counter.get_total_flops())


# --- what the operators of torchp2p take, of the shapes of their arguments ----------------------------------------


def _convolution(image: Sequence[int], weight: Sequence[int], algorithm: str = "vendor", stride: int = 1) -> int:
    """One way of a convolution whose smaller side is ``image``, (N, C, H, W)."""
    direct = 2 * image[0] * image[2] * image[3] * math.prod(weight)
    return int(direct * _share(algorithm, weight[2], weight[3], stride))


def _share(algorithm: str, height: int, width: int, stride: int) -> Fraction:
    """Of the multiplications of a direct convolution by a kernel of height x width."""
    if algorithm == "phased":
        return Fraction((height + 1) * (width + 1), height * width)
    if algorithm == "winograd":
        products = {(4, 2): 64, (3, 2): 49}.get((height, stride), 46)
        results = 16 if (height, stride) == (3, 1) else 9
        return Fraction(products, results * height * width)
    return Fraction(1)


def _conv_norm_act(*args: Any, out_shape: Any) -> int:
    x, weight, stride, transposed, algorithm = args[0], args[11], args[13], args[16], args[19]
    return _convolution(x if transposed else out_shape[0], weight, algorithm, stride[0])


def _conv_norm_act_backward(*args: Any, out_shape: Any) -> int:
    grad, x, weight, stride, transposed, algorithm = args[0], args[1], args[12], args[13], args[16], args[22]
    ways = int(args[18]) + int(args[20])  # the gradients of x and of the weight
    return ways * _convolution(x if transposed else grad, weight, algorithm, stride[0])


def _label_conv2d(*args: Any, out_shape: Any) -> int:
    return _dense(args[1], args[3], out_shape)


def _label_conv2d_backward(*args: Any, out_shape: Any) -> int:
    of_weight, _, of_dense = args[8]
    return (int(of_weight) + int(of_dense)) * _dense(args[2], args[4], args[0])


def _dense(weight: Sequence[int], dense: Sequence[int] | None, y: Sequence[int]) -> int:
    return 0 if dense is None else _convolution(y, (weight[0], dense[1], *weight[2:]))


_FORMULAS: dict[Any, Callable[..., int]] = {
    torch.ops.torchp2p.conv_norm_act: _conv_norm_act,
    torch.ops.torchp2p.conv_norm_act_backward: _conv_norm_act_backward,
    torch.ops.torchp2p.label_conv2d: _label_conv2d,
    torch.ops.torchp2p.label_conv2d_backward: _label_conv2d_backward,
}
