"""What tests of networks share: weights of ordinary sizes, and the comparison with a plain network."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def layout(net: nn.Module) -> list[tuple[str, tuple[int, ...]]]:
    """Every entry of the state_dict, in its order."""
    return [(name, tuple(value.shape)) for name, value in net.state_dict().items()]


def parameter_count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def randomise(net: nn.Module, seed: int = 0) -> None:
    """Weights, biases and running statistics of ordinary sizes: nothing hides behind a zero or a one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in net.state_dict().items():
            if name.endswith("num_batches_tracked"):
                continue
            if name.endswith("running_var") or (value.dim() == 1 and name.endswith("weight")):
                value.uniform_(0.5, 1.5, generator=generator)
            else:
                fan_in = value[0].numel() if value.dim() == 4 else 1
                value.normal_(0, 1.0 / fan_in**0.5, generator=generator)


def assert_close(ours: Tensor, theirs: Tensor, what: str, at_least: float = 0.0) -> None:
    """Equal up to 1e-10 of the largest value, or of ``at_least`` where that is larger."""
    scale = max(theirs.abs().max().item(), at_least)
    error = (ours - theirs).abs().max().item()
    assert error <= 1e-10 * scale, f"{what} is off by {error:.1e} where values reach {scale:.1e}"


def assert_same_function(ours: nn.Module, theirs: nn.Module, x: Tensor) -> None:
    """Same outputs, gradients and buffers, in float64, from the same weights and the same dropout masks.

    The entries are paired by their order, which every state_dict of ours shares with the plain network.
    """
    randomise(theirs)
    entries = zip(ours.state_dict(), theirs.state_dict().values(), strict=True)
    ours.load_state_dict(dict(entries))
    outputs, gradients = [], []
    for net in (ours, theirs):
        torch.manual_seed(1)
        image = x.clone().requires_grad_()
        y = net(image)
        net.zero_grad()
        (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape)).sum().backward()
        outputs.append(y.detach())
        gradients.append([image.grad, *(parameter.grad for parameter in net.parameters())])
    assert outputs[1].std() > 1e-3
    assert_close(outputs[0], outputs[1], "output")
    names = ["input", *(name for name, _ in theirs.named_parameters())]
    # The gradient of a bias in front of an instance norm is zero: rounding noise there, and none at all here.
    noise = 1e-3 * max(gradient.abs().max().item() for gradient in gradients[1])
    for name, mine, plain in zip(names, *gradients, strict=True):
        assert_close(torch.zeros_like(plain) if mine is None else mine, plain, f"gradient of {name}", at_least=noise)
    for (name, mine), plain in zip(ours.named_buffers(), theirs.buffers(), strict=True):
        assert_close(mine.double(), plain.double(), name)
