"""What a fused network has to have in common with the original."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from torchp2p.verify.certificate import Check
from torchp2p.verify.steps import (
    NOISE,
    apart,
    cast,
    copies,
    distance,
    largest_error,
    loss_of,
    numbered,
    outputs_of,
    step,
)

EXACT = 1e-10
SAME_LOSS = 1e-8
FLOAT32 = 1e-5
DRAWS = 5


def names(fused: nn.Module, original: nn.Module) -> Check:
    """The same keys in the same order, of the same tensors; the same order of parameters."""
    ours, theirs = fused.state_dict(keep_vars=True), original.state_dict(keep_vars=True)
    same = list(ours) == list(theirs) and all(ours[key] is theirs[key] for key in theirs)
    same = same and [n for n, _ in fused.named_parameters()] == [n for n, _ in original.named_parameters()]
    found = f"{len(theirs)} entries, {'the same' if same else 'NOT the same'}"
    return Check("state_dict and order of parameters", found, "the same", same)


def exactness(fused: nn.Module, original: nn.Module, inputs: Sequence[Tensor], seed: int) -> list[Check]:
    """In float64: outputs, gradients and buffers, in the modes that the network is used in."""
    checks = []
    for mode in ("training", "eval") if original.training else ("eval",):
        ours, theirs = (
            step(_in_mode(apart(net, torch.float64), mode), cast(inputs, torch.float64), seed)
            for net in (fused, original)
        )
        of_inputs, of_parameters = (
            [
                {name: g for name, g in each.gradients.items() if name.startswith("input ") == wanted}
                for each in (ours, theirs)
            ]
            for wanted in (True, False)
        )
        errors = {
            "outputs": largest_error(numbered(ours.outputs), numbered(theirs.outputs)),
            "input gradients": largest_error(of_inputs[0], of_inputs[1]),
            "parameter gradients": largest_error(of_parameters[0], of_parameters[1], NOISE),
            "buffers": largest_error(ours.buffers, theirs.buffers, NOISE),
        }
        checks += [
            Check(f"{what}, float64, {mode} mode", f"{error:.1e}", f"{EXACT:.0e}", error <= EXACT)
            for what, error in errors.items()
        ]
    return checks


def float32_errors(fused: nn.Module, original: nn.Module, inputs: Sequence[Tensor], seed: int) -> list[Check]:
    """Errors of float32 against the original in float64, beside the original's own.

    Where a value is close to the kink of an activation float32 may take the other side, in either network, and a
    gradient jumps. So the median of several draws, around the inputs, may be twice what the original's error is in the
    worst of them.
    """
    found: dict[str, list[tuple[float, float]]] = {"outputs": [], "gradients": []}
    for draw in range(DRAWS):
        generator = torch.Generator().manual_seed(seed + draw)
        drawn = [
            x * (1 + 0.01 * torch.randn(x.shape, generator=generator).to(x)) if x.is_floating_point() else x
            for x in inputs
        ]
        exact = step(apart(original, torch.float64), cast(drawn, torch.float64), seed)
        pair = [step(apart(net, torch.float32), cast(drawn, torch.float32), seed) for net in (fused, original)]
        outputs = [distance(numbered(each.outputs), numbered(exact.outputs)) for each in pair]
        gradients = [distance(each.gradients, exact.gradients) for each in pair]
        found["outputs"].append((outputs[0], outputs[1]))
        found["gradients"].append((gradients[0], gradients[1]))
    checks = []
    for what, pairs in found.items():
        ours, theirs = statistics.median(mine for mine, _ in pairs), max(plain for _, plain in pairs)
        bound = max(2 * theirs, FLOAT32)
        checks.append(
            Check(
                f"{what}, float32, against float64",
                f"{ours:.1e} (original {theirs:.1e})",
                f"{bound:.1e}",
                ours <= bound,
            )
        )
    return checks


def training(fused: nn.Module, original: nn.Module, inputs: Sequence[Tensor], steps: int, seed: int) -> Check:
    """The losses of both, trained side by side in float64."""
    ours, theirs = (
        _losses(apart(net, torch.float64), cast(inputs, torch.float64), steps, seed) for net in (fused, original)
    )
    error = max(abs(mine - plain) / max(abs(plain), 1e-12) for mine, plain in zip(ours, theirs, strict=True))
    found = f"{error:.1e} (loss {theirs[0]:.4g} to {theirs[-1]:.4g})"
    return Check(f"losses of {steps} steps of Adam, float64", found, f"{SAME_LOSS:.0e}", error <= SAME_LOSS)


def _losses(net: nn.Module, inputs: Sequence[Tensor], steps: int, seed: int) -> list[float]:
    trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
    optimiser = torch.optim.Adam(trained, 2e-4, betas=(0.5, 0.999)) if trained else None
    losses = []
    for number in range(steps):
        torch.manual_seed(seed + number)
        outputs = outputs_of(net, copies(inputs))
        loss = torch.stack([y.square().mean() for y in outputs]).sum() + loss_of(outputs, seed)
        if optimiser is not None:
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        losses.append(loss.item())
    return losses


def _in_mode(net: nn.Module, mode: str) -> nn.Module:
    return net.eval() if mode == "eval" else net
