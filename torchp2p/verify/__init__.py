"""``verify``: a certificate that a fused network computes what the original does, made from a network and an input.

It answers what stops a maintainer from taking a faster network in: is it the same with and without? See docs/fuse.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from torchp2p.fuse import fuse, unfuse
from torchp2p.verify.certificate import Certificate, Check, Measurement
from torchp2p.verify.checks import exactness, float32_errors, names, training
from torchp2p.verify.measure import environment, measure

__all__ = ["Certificate", "Check", "Measurement", "verify"]


def verify(
    net: nn.Module, example_inputs: Tensor | Sequence[Tensor], *, steps: int = 10, repeats: int = 5, seed: int = 0
) -> Certificate:
    """Hold ``fuse(net)`` against ``net``: names, outputs, gradients, a short training, time and memory.

    What passes: the same state_dict, in the same order; in float64 outputs, buffers and gradients of inputs and
    parameters equal to 1e-10, in training mode (where ``net`` is in it) and in eval mode; in float32 an error no
    larger than twice the original's own; losses of a training side by side equal to 1e-8. Time and memory are
    measured, and judge nothing.

    Args:
        net: any network that :func:`torchp2p.fuse` takes; not changed. A fused one is held against what it was.
        example_inputs: what it is called with; floating tensors are cast to the dtypes that are checked.
        steps: of Adam (learning rate 2e-4) in the training.
        repeats: of the measured step; the median counts.
        seed: of dropout and of the random numbers that losses are made of.

    Raises:
        TypeError: ``net`` is no network that can be fused, or an input is no tensor.
        ValueError: no inputs, a number of steps or repeats below 1, or a network that returns no floating tensor.
    """
    inputs = [example_inputs] if isinstance(example_inputs, Tensor) else list(example_inputs)
    if not inputs:
        raise ValueError("example_inputs must hold at least one tensor, got none")
    for place, value in enumerate(inputs):
        if not isinstance(value, Tensor):
            raise TypeError(f"example_inputs[{place}] must be a Tensor, got {type(value).__name__}")
    for name, count in (("steps", steps), ("repeats", repeats)):
        if count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}")
    original = unfuse(net)
    fused, report = fuse(original, report=True)
    cuda = [x.device for x in inputs if x.is_cuda]
    with torch.random.fork_rng(devices=cuda), torch.enable_grad():
        checks = [names(fused, original)]
        checks += exactness(fused, original, inputs, seed)
        checks += float32_errors(fused, original, inputs, seed)
        checks.append(training(fused, original, inputs, steps, seed))
        measured = measure(fused, original, inputs, repeats, seed)
    shapes = ", ".join("x".join(map(str, x.shape)) for x in inputs)
    return Certificate(type(original).__name__, shapes, environment(inputs[0]), tuple(checks), measured, report)
