"""Who takes training steps: the original procedure in its variants, torch.compile of it, and torchp2p.

Names are put together: ``channels_last``, ``channels_last_bfloat16``, ``channels_last_bfloat16_keep``. ``reference`` in
bfloat16 is called ``autocast``; ``_keep`` tells the allocator to keep freed memory, as torchp2p does by itself;
``torchp2p_small`` is torchp2p with all that it can do for memory, at the cost of time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from torchp2p.cli.parsing import UsageError, nearest
from torchp2p.train.lean import Lean

OURS, SMALL = "torchp2p", "torchp2p_small"
PRECISIONS = ("float32", "bfloat16")
TITLES = {"reference_bfloat16": "autocast"}


@dataclass(frozen=True)
class Provider:
    """One way to take the same step.

    Args:
        name: that rows carry.
        ours: whether it is torchp2p's step, or the original procedure on plain modules.
        precision: ``float32``, or ``bfloat16`` by autocast.
        allocator: ``default``, or ``keep`` for freed memory that stays with the process.
        channels_last: networks and images in this layout; None for what the trainer does on the device, for ours, and
            for contiguous ones otherwise.
        compile_mode: of torch.compile on each plain network; None for eager.
        lean: of ours, which work is saved.
        backend: of ours, that every op is asked for; None for the best.
        cuda_graph: of ours, the step as one graph on CUDA.
        fused_adam: of ours, False for the Adam that the original makes.
    """

    name: str
    ours: bool = False
    precision: str = "float32"
    allocator: str = "default"
    channels_last: bool | None = None
    compile_mode: str | None = None
    lean: Lean = Lean()
    backend: str | None = None
    cuda_graph: bool = True
    fused_adam: bool = True


_PLAIN: dict[str, dict[str, Any]] = {
    "reference": {},
    "channels_last": {"channels_last": True},
    "compile": {"compile_mode": "default"},
    "compile_max": {"compile_mode": "max-autotune-no-cudagraphs"},
}


def _all() -> Iterator[Provider]:
    for precision, of_precision in zip(PRECISIONS, ("", "_bfloat16"), strict=True):
        for stem, how in _PLAIN.items():
            name = TITLES.get(stem + of_precision, stem + of_precision)
            for allocator, kept in (("default", ""), ("keep", "_keep")):
                yield Provider(name + kept, precision=precision, allocator=allocator, **how)
        ours = Provider(OURS + of_precision, ours=True, precision=precision, allocator="keep")
        small = Lean(recompute=True, bf16_state=True)
        yield from (ours, replace(ours, name=SMALL + of_precision, allocator="default", lean=small))


PROVIDERS = {provider.name: provider for provider in _all()}

DEFAULT = "reference,reference_keep,channels_last,compile,autocast,channels_last_bfloat16,compile_bfloat16"
"""Whom torchp2p is held against unless told otherwise; the first is what ratios are about."""


def against(names: str) -> list[Provider]:
    """The providers of a list with commas, and torchp2p in each precision that is among them, or in both.

    Raises:
        UsageError: there is none of such a name; the nearest is suggested.
    """
    listed = list(filter(None, names.split(",")))
    for name in listed:
        if name not in PROVIDERS:
            choices = ", ".join(PROVIDERS)
            raise UsageError(f"--against must be of {choices}, got {name!r}{nearest(name, list(PROVIDERS))}")
    if not listed:
        raise UsageError(f"--against must name at least one of {', '.join(PROVIDERS)}")
    both = [OURS if precision == "float32" else f"{OURS}_{precision}" for precision in PRECISIONS]
    return [PROVIDERS[name] for name in dict.fromkeys([*listed, *both])]


def ablations(precision: str, device: str) -> list[Provider]:
    """torchp2p, and torchp2p with each switch of its step that matters on the device the other way, alone."""
    ours = next(provider for provider in PROVIDERS.values() if provider.ours and provider.precision == precision)

    def with_lean(name: str, **change: Any) -> Provider:
        return replace(ours, name=name, lean=replace(ours.lean, **change))

    return [
        ours,
        *(
            with_lean(f"{'with' if value else 'without'} {switch.name}", **{switch.name: value})
            for switch in dataclasses.fields(Lean)
            if "bool" in str(switch.type)
            for value in (False, True)
            if value != switch.default
        ),
        with_lean("algorithm vendor", algorithm="vendor"),
        replace(ours, name="backend reference", backend="reference"),
        replace(ours, name="without fused Adam", fused_adam=False),
        *(
            (
                replace(ours, name="without cuda_graph", cuda_graph=False),
                replace(ours, name="without channels_last", channels_last=False),
            )
            if device == "cuda"
            else (
                replace(ours, name="allocator default", allocator="default"),
                replace(ours, name="with channels_last", channels_last=True),
            )
        ),
    ]
