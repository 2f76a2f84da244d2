"""What was fused in a network, and what was left as it was, and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from torchp2p.fuse.classes import original_class
from torchp2p.fuse.kinds import is_chain, is_watched, kind_of, links_of, why_left
from torchp2p.fuse.runs import Run, runs_of

_OF_INTEREST = (
    nn.Conv2d,
    nn.ConvTranspose2d,
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.LayerNorm,
)


@dataclass(frozen=True)
class FusedRun:
    """Layers that run as one or two fused operations.

    Attributes:
        names: of the layers in the network, in their order.
        layers: what they are: ``Conv2d``, ``InstanceNorm2d``, ...
    """

    names: tuple[str, ...]
    layers: tuple[str, ...]


@dataclass(frozen=True)
class LeftLayer:
    """A layer that runs as it did.

    Attributes:
        name: in the network.
        layer: what it is.
        reason: why it was not fused.
    """

    name: str
    layer: str
    reason: str


@dataclass(frozen=True)
class Report:
    """What :func:`torchp2p.fuse` did to a network; ``str()`` of it is made to be read.

    Attributes:
        fused: the runs that were fused.
        left: the layers that were not, with the reason.
    """

    fused: tuple[FusedRun, ...]
    left: tuple[LeftLayer, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and dicts, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        count = len(self.fused)
        lines = [f"{count} fused run{'' if count == 1 else 's'}"]
        lines += [f"  {', '.join(run.names)}: {' + '.join(run.layers)}" for run in self.fused]
        lines.append(f"{len(self.left)} left as they were" if self.left else "nothing left as it was")
        reasons: dict[tuple[str, str], list[str]] = {}
        for layer in self.left:
            reasons.setdefault((layer.layer, layer.reason), []).append(layer.name)
        lines += [f"  {layer}: {reason} ({', '.join(names)})" for (layer, reason), names in reasons.items()]
        return "\n".join(lines)


def report_on(network: nn.Module) -> Report:
    """What ``fuse`` does, or did, to a network: it is the same before and after.

    Args:
        network: fused or not; nothing about it is changed.

    Returns:
        The runs of fused layers, and every other layer with the reason why it is left.
    """
    fused: list[FusedRun] = []
    left: list[LeftLayer] = []
    seen: set[nn.Module] = set()
    named = list(network.named_modules())
    for name, module in named:
        if module in seen or not isinstance(module, nn.Sequential) or not is_chain(module) or is_replaced(module):
            continue
        links = links_of(module, f"{name}." if name else "")
        seen.update(_chains_in(module))
        seen.update(layer for _, layer in links if not any(layer.children()))
        for run in runs_of(links):
            if run.is_fused:
                fused.append(FusedRun(tuple(name for name, _ in run.links), _layers(run)))
            else:
                left += _left_in_chain(run)
    for name, module in named:
        if module in seen:
            continue
        if _is_alone(module):
            fused.append(FusedRun((name,), (_class_name(module),)))
        elif isinstance(module, (*_OF_INTEREST, nn.Sequential)):
            left.append(LeftLayer(name, _class_name(module), _why_outside(module)))
    return Report(tuple(fused), tuple(left))


def is_replaced(module: nn.Module) -> bool:
    """Whether calling the module does not run the forward of its class."""
    return "forward" in module.__dict__ or module._compiled_call_impl is not None


def _is_alone(module: nn.Module) -> bool:
    """Whether it is fused wherever it stands."""
    return original_class(type(module)) is nn.InstanceNorm2d and not is_replaced(module)


def _chains_in(chain: nn.Sequential) -> Iterator[nn.Module]:
    """The chain and those whose layers are links of it."""
    yield chain
    for child in chain.children():
        if isinstance(child, nn.Sequential) and is_chain(child) and not is_watched(child):
            yield from _chains_in(child)


def _left_in_chain(run: Run) -> list[LeftLayer]:
    ((name, module),) = run.links
    kind = kind_of(module)
    if kind == "other" and any(module.children()):  # a block of the network's own: its inside is reported by itself
        return []
    reason = why_left(module) if kind == "other" else _why_single(kind)
    return [LeftLayer(name, _class_name(module), reason)]


def _why_single(kind: str) -> str:
    if kind == "conv":
        return "it is the vendor's convolution, with nothing beside it to fuse"
    return "there is no convolution or norm beside it to fuse it with"


def _why_outside(module: nn.Module) -> str:
    if kind_of(module) == "other":
        if isinstance(module, nn.Sequential) and not is_chain(module):
            return "its class has a forward of its own"
        return why_left(module)
    return "it is not in a Sequential, so the order of the layers around it is not known"


def _layers(run: Run) -> tuple[str, ...]:
    return tuple(_class_name(module) for _, module in run.links)


def _class_name(module: nn.Module) -> str:
    name: str = original_class(type(module)).__name__
    return name
