"""``fuse``: one line that makes the conv-norm-act runs of any existing network into fused ones.

The layers stay where and what they are, with their parameters, names and hooks; what changes is how the Sequentials
that hold them run them. See docs/fuse.md.
"""

from __future__ import annotations

import logging
from typing import Literal, overload

import torch
from torch import nn

from torchp2p.fuse.classes import Fused, fused_class, original_class
from torchp2p.fuse.kinds import is_chain
from torchp2p.fuse.layers import FusedChain, FusedNorm
from torchp2p.fuse.report import FusedRun, LeftLayer, Report, is_replaced, report_on
from torchp2p.fuse.sharing import sharing_copy

_logger = logging.getLogger("torchp2p")

__all__ = ["FusedRun", "LeftLayer", "Report", "fuse", "report_on", "unfuse"]


@overload
def fuse(module: nn.Module, *, inplace: bool = False, report: Literal[False] = False) -> nn.Module: ...
@overload
def fuse(module: nn.Module, *, inplace: bool = False, report: Literal[True]) -> tuple[nn.Module, Report]: ...
def fuse(module: nn.Module, *, inplace: bool = False, report: bool = False) -> nn.Module | tuple[nn.Module, Report]:
    """Run the conv-norm-act runs of a network as fused operations; the same numbers, faster, in less memory.

    Runs ``[pad] conv|convT [dropout] [norm] [act]`` in Sequentials, nested ones included, are fused, and lone
    InstanceNorm2d wherever they stand. All else is left as it is. state_dict keys, the order of the parameters,
    hooks, training mode, dtype and device stay. A layer that changes later (a hook, another norm in its place) is
    noticed when it runs.

    Args:
        module: any network; not yet compiled by torch.compile (compile what ``fuse`` returns).
        inplace: change ``module`` itself. By default a copy is returned that has the very same parameters and
            buffers, so an optimiser made for the one trains the other.
        report: return what was fused, and what was left and why, as well.

    Returns:
        The fused network, or it and its :class:`Report`.

    Raises:
        TypeError: ``module`` is no module, or one whose inside is fixed (compiled or scripted), or, without
            ``inplace``, wrapped for several processes.
    """
    _check_network(module, "fuse", inplace)
    network = module if inplace else sharing_copy(module)
    for part in network.modules():
        if isinstance(part, Fused) or is_replaced(part):
            continue
        if is_chain(part):
            part.__class__ = fused_class(FusedChain, type(part))
        elif type(part) is nn.InstanceNorm2d:
            part.__class__ = fused_class(FusedNorm, nn.InstanceNorm2d)
    found = report_on(network)
    if not found.fused and not report:
        _logger.warning("fuse found nothing to fuse in %s; fuse(net, report=True) says why", type(module).__name__)
    return (network, found) if report else network


def unfuse(module: nn.Module, *, inplace: bool = False) -> nn.Module:
    """The network as it was before :func:`fuse`, with the parameters and buffers that it has now.

    Args:
        module: a network, fused or not, in whole or in part.
        inplace: change ``module`` itself; by default a copy is returned that shares parameters and buffers.

    Raises:
        TypeError: as ``fuse``.
    """
    _check_network(module, "unfuse", inplace)
    network = module if inplace else sharing_copy(module)
    for part in network.modules():
        if isinstance(part, Fused):
            part.__class__ = original_class(type(part))
    return network


def _check_network(module: object, what: str, inplace: bool) -> None:
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, got {type(module).__name__}")
    if hasattr(module, "_orig_mod") or module._compiled_call_impl is not None:
        raise TypeError(f"module is compiled already: {what} the network first, then torch.compile what is returned")
    if isinstance(module, torch.jit.ScriptModule):
        raise TypeError(f"module is a ScriptModule, whose inside is fixed: {what} the network that it was made from")
    if not inplace and isinstance(module, nn.parallel.DistributedDataParallel):
        raise TypeError(f"module is wrapped for several processes already: {what} the network before it is wrapped")
