"""What a layer is to the fuser: a convolution, a norm, an activation, a pad, or something that it leaves alone.

Only layers whose arithmetic is known exactly are recognised: the classes of torch themselves, not their subclasses,
without hooks on them, without parametrizations, and not replaced on the instance.
"""

from __future__ import annotations

from typing import Any, Union

from torch import nn

from torchp2p.fuse.classes import original_class
from torchp2p.nn import ConvNormAct, ConvTransposeNormAct, NormAct

Conv = Union[nn.Conv2d, nn.ConvTranspose2d]

_KINDS: dict[type[nn.Module], str] = {
    nn.Conv2d: "conv",
    nn.ConvTranspose2d: "conv",
    nn.BatchNorm2d: "norm",
    nn.InstanceNorm2d: "norm",
    nn.ReLU: "act",
    nn.LeakyReLU: "act",
    nn.Tanh: "act",
    nn.ReflectionPad2d: "pad",
    nn.ReplicationPad2d: "pad",
    nn.ZeroPad2d: "pad",
    nn.Dropout: "dropout",
    nn.Dropout2d: "dropout",
    nn.Identity: "nothing",
}
_PAD_MODES: dict[type[nn.Module], str] = {
    nn.ReflectionPad2d: "reflect",
    nn.ReplicationPad2d: "replicate",
    nn.ZeroPad2d: "zeros",
}
_FUSIBLE = ("conv", "norm", "act", "pad")
_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm)


def kind_of(module: nn.Module) -> str:
    """``conv``, ``norm``, ``act``, ``pad``, ``dropout``, ``nothing`` (Identity), or ``other``: not recognised."""
    kind = _KINDS.get(original_class(type(module)), "other")
    if kind == "other" or is_watched(module):
        return "other"
    if kind == "act" and isinstance(module, nn.LeakyReLU) and module.negative_slope < 0:
        return "other"
    if kind == "pad" and border_of(module) is None:
        return "other"
    return kind


def is_watched(module: nn.Module) -> bool:
    """Whether calling the module does more than its class's forward: hooks, a forward of its own, compiled."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or "forward" in module.__dict__
        or module._compiled_call_impl is not None
    )


def is_chain(module: nn.Module) -> bool:
    """Whether calling the module is calling its children one after the other, and nothing else."""
    return isinstance(module, nn.Sequential) and original_class(type(module)).forward is nn.Sequential.forward


def links_of(chain: nn.Sequential, prefix: str = "") -> list[tuple[str, nn.Module]]:
    """The layers of a chain and their names, in the order in which they run, through the chains inside it."""
    links: list[tuple[str, nn.Module]] = []
    for name, child in chain._modules.items():
        assert child is not None
        if isinstance(child, nn.Sequential) and is_chain(child) and not is_watched(child):
            links += links_of(child, f"{prefix}{name}.")
        elif kind_of(child) != "nothing":
            links.append((prefix + name, child))
    return links


def border_of(pad: Any) -> int | None:
    """Pixels that a pad adds on every side; None where the sides differ or are cropped."""
    left, right, top, bottom = pad.padding
    return int(left) if left == right == top == bottom and left >= 0 else None


def padding_of(conv: Conv, pad: nn.Module | None) -> tuple[int, str] | None:
    """The padding of a convolution together with that of the pad before it, as conv_norm_act takes it; else None."""
    if isinstance(conv.padding, str) or conv.padding[0] != conv.padding[1]:
        return None
    if conv.dilation[0] != 1 or conv.dilation[1] != 1 or conv.groups != 1:
        return None
    own, mode = int(conv.padding[0]), conv.padding_mode
    if mode == "circular":
        return None
    if pad is None:
        return own, mode
    border, pad_mode = border_of(pad), _PAD_MODES[type(pad)]
    if border is None or isinstance(conv, nn.ConvTranspose2d):
        return None
    if own == 0:
        return border, pad_mode
    return (own + border, mode) if mode == pad_mode == "zeros" else None


def pad_mode_of(pad: nn.Module) -> str:
    """The name of a pad's mode."""
    return _PAD_MODES[type(pad)]


def activation_of(act: nn.Module | None) -> dict[str, Any]:
    """What ``Deferred`` is told about an activation."""
    if isinstance(act, nn.LeakyReLU):
        return {"act": "leaky_relu", "slope": act.negative_slope}
    return {"act": "none" if act is None else "tanh" if isinstance(act, nn.Tanh) else "relu"}


def why_left(module: nn.Module) -> str:
    """Why a layer is not recognised, in a few words."""
    cls = original_class(type(module))
    if nn.utils.parametrize.is_parametrized(module):
        return "its " + " and ".join(module.parametrizations) + " is parametrized"  # type: ignore[arg-type]
    if is_watched(module):
        return _why_watched(module)
    if isinstance(module, (NormAct, ConvNormAct, ConvTransposeNormAct)):
        return "it is a fused layer already"
    for known, kind in _KINDS.items():
        if kind in _FUSIBLE and isinstance(module, known) and cls is not known:
            return f"it is a subclass of {known.__name__}, which may do anything"
    if isinstance(module, nn.LeakyReLU):
        return "its negative slope is below 0"
    if _KINDS.get(cls) == "pad":
        return "its sides differ"
    if isinstance(module, _NORMS):
        return "of the norms, BatchNorm2d and InstanceNorm2d are fused"
    return "it is no layer that is fused"


def _why_watched(module: nn.Module) -> str:
    if "forward" in module.__dict__:
        return "its forward was replaced"
    if module._compiled_call_impl is not None:
        return "it is compiled by itself"
    hooks = [*module._forward_pre_hooks.values(), *module._forward_hooks.values()]
    names = [type(hook).__name__ for hook in hooks if type(hook).__name__ in ("WeightNorm", "SpectralNorm")]
    return f"{names[0]} makes its weight in a hook" if names else "a hook on it must see what it always saw"
