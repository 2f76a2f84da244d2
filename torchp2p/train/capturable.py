"""Whether a training step can become a CUDA graph, and what has to be arranged for it.

A graph is a list of kernels and copies with their addresses. Whatever the host decides, draws or waits for while the
list is recorded is not in it, so a step that does such a thing is refused, each with its reason.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from torchp2p.models import InstanceEncoder
from torchp2p.nn.conv_norm_act import has_hooks
from torchp2p.ops._dispatch import first_available
from torchp2p.train.pix2pix_step import Pix2PixStep
from torchp2p.train.pix2pixhd_step import Pix2PixHDStep

DEVICES = ("cuda",)
"""The types of device that have graphs."""

Step = Pix2PixStep | Pix2PixHDStep
ON_DEVICE = ("native", "triton")
"""Backends whose pooling never asks the device how many instances there are."""


def networks_of(step: Step) -> dict[str, nn.Module]:
    """The networks that take part in a step, by the name of its attribute."""
    named = {label: getattr(step, label, None) for label in ("G", "D", "E", "vgg")}
    return {label: net for label, net in named.items() if net is not None}


def optimizers_of(step: Step) -> dict[str, torch.optim.Optimizer]:
    """The optimisers of a step, by the name of its attribute."""
    named = {"optimizer_G": step.optimizer_G, "optimizer_D": step.optimizer_D}
    return {label: optimizer for label, optimizer in named.items() if optimizer is not None}


def why_not(step: Step) -> str:
    """Why the step, as it is now, cannot be captured; empty if nothing is known to be in the way."""
    device = next(step.G.parameters()).device
    if device.type not in DEVICES:
        return f"graphs need {' or '.join(DEVICES)}, and the networks are on {device.type}"
    if torch.is_autocast_enabled(device.type):
        return "it is called within autocast, whose cache of converted weights would be captured"
    if step.pool.size:
        return f"pool_size {step.pool.size} draws on the host which image D is shown"
    refusal = _why_not_hd(step) if isinstance(step, Pix2PixHDStep) else _why_not_pix2pix(step)
    if refusal:
        return refusal
    for label, optimizer in optimizers_of(step).items():
        if type(optimizer) not in (torch.optim.Adam, torch.optim.AdamW):
            return f"{label} is {type(optimizer).__name__}, and only Adam and AdamW are known to be capturable"
        if not all(group["fused"] for group in optimizer.param_groups):
            return f"{label} is not fused, and only a fused one can skip a step that is not finite on the device"
    for label, net in networks_of(step).items():
        for name, module in net.named_modules(prefix=label):
            if has_hooks(module):
                return f"{name} has hooks, which would run once, at the capture"
    return ""


def _why_not_pix2pix(step: Pix2PixStep) -> str:
    if step.gan_loss.gan_mode == "wgangp":
        return "gan_mode wgangp draws the points of its gradient penalty on the host"
    return ""


def _why_not_hd(step: Pix2PixHDStep) -> str:
    if step.scaler_G.is_enabled() or step.scaler_D.is_enabled():
        return "precision float16 scales its losses by what the host decides"
    if step.lean.recompute:
        return "recompute reads the state of random generators on the host"
    if step.E is not None and not isinstance(step.E, InstanceEncoder):
        return f"E is {type(step.E).__name__}, which may pool the features of instances in a loop of the host"
    if step.E is not None:
        parameter = next(step.G.parameters())
        pooling, reasons = first_available("instance_avg_pool", parameter.device.type, parameter.dtype)
        if pooling not in ON_DEVICE:
            return f"instance_avg_pool has no kernel here ({'; '.join(reasons)})"
    return ""


class CapturableAdam:
    """Adam whose step a graph can hold: its learning rate is a tensor, float32, that ``set_lr`` writes to.

    What it saves is what it would save without: the rate as a number, and not capturable. What it loads becomes
    capturable again.

    Args:
        optimizer: fused Adam or AdamW, changed in place.
        device: of its parameters.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, device: torch.device) -> None:
        self.optimizer, self._device = optimizer, device
        self._hooks = [
            optimizer.register_state_dict_post_hook(_as_saved),
            optimizer.register_load_state_dict_post_hook(self._arrange),
        ]
        self._arrange(optimizer)

    def release(self) -> None:
        """Make it an ordinary optimiser again."""
        for hook in self._hooks:
            hook.remove()
        for group in self.optimizer.param_groups:
            group.update(_ordinary(group))
        self.optimizer.found_inf = None  # type: ignore[attr-defined]

    def addresses(self) -> list[int]:
        """Of all that its step reads and writes besides parameters and gradients."""
        rates = [group["lr"] for group in self.optimizer.param_groups]
        kept = [value for state in self.optimizer.state.values() for value in state.values()]
        return [value.data_ptr() for value in (*rates, *kept) if isinstance(value, Tensor)]

    def _arrange(self, optimizer: torch.optim.Optimizer) -> None:
        for group in optimizer.param_groups:
            group["capturable"] = True
            group["lr"] = torch.full((), float(group["lr"]), dtype=torch.float32, device=self._device)


def _as_saved(_optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    return {**state, "param_groups": [{**group, **_ordinary(group)} for group in state["param_groups"]]}


def _ordinary(group: dict[str, Any]) -> dict[str, Any]:
    return {"lr": float(group["lr"]), "capturable": False}


class SkippingOnDevice:
    """In place of the branch on losses that are not finite: Adam leaves a step out by itself, and it is counted.

    Args:
        device: where the losses are.

    Attributes:
        in_a_row: how many steps were left out up to now, one after the other; int32, on the device.
    """

    def __init__(self, device: torch.device) -> None:
        self.in_a_row, self._most = (torch.zeros((), dtype=torch.int32, device=device) for _ in range(2))

    def __call__(self, finite: Tensor, *optimizers: torch.optim.Optimizer) -> None:
        """Have the coming steps of ``optimizers`` taken only if ``finite``, a bool on the device, is true."""
        self.in_a_row.add_(1).mul_(~finite)
        torch.maximum(self._most, self.in_a_row, out=self._most)
        for optimizer in optimizers:
            optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]

    def read(self) -> int:
        """The largest ``in_a_row`` since the last ``read``, once the device has come so far."""
        most = int(self._most)
        self._most.zero_()
        return most
