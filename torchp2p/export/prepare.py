"""A network made ready for export: without dropout, and with a decision about the statistics of its norms."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from torchp2p import ops
from torchp2p.export.plain import batch_normalised
from torchp2p.fuse import unfuse
from torchp2p.nn import NormAct


class FromLabels(nn.Module):
    """A pix2pixHD generator that takes label maps and makes its one-hot channels and edges itself.

    Args:
        generator: of ``cat(one_hot(label), edges, features)``.
        label_nc: number of labels; an id that is none of them is 0 in every channel.
        edges: whether it sees the edges between instances.
        features: whether it sees features of instances.

    ``forward``: label (N, 1, H, W), and as far as it sees them inst (N, 1, H, W), integers, and feat (N, F, H, W).
    """

    def __init__(self, generator: nn.Module, label_nc: int, *, edges: bool, features: bool = False) -> None:
        super().__init__()
        self.generator = generator
        self.label_nc = label_nc
        self.edges = edges
        self.input_names = ["label", *(["inst"] if edges else []), *(["feat"] if features else [])]

    def forward(self, label: Tensor, *others: Tensor) -> Tensor:
        """The image."""
        labels = torch.arange(self.label_nc, device=label.device).view(1, -1, 1, 1)
        seen = [(label == labels).float()]
        if self.edges:
            inst, *others_left = others
            seen.append(ops.instance_edges(inst, dtype=torch.float32))
            others = tuple(others_left)
        image: Tensor = self.generator(torch.cat([*seen, *others], 1))
        return image


def at_rest(net: nn.Module) -> nn.Module:
    """A copy in eval mode whose norms do what they do in the mode that ``net`` is in; unfused."""
    twin = copy.deepcopy(unfuse(net))
    for module in twin.modules():
        if module.training and isinstance(module, (nn.BatchNorm2d, nn.InstanceNorm2d, NormAct)):
            module.track_running_stats = False
            module.running_mean = module.running_var = module.num_batches_tracked = None
            if type(module) is nn.BatchNorm2d:
                module.__class__ = _OwnStatistics
    return twin.eval()


def without_dropout(net: nn.Module) -> nn.Module:
    """A copy that does what ``net`` does, but for dropout."""
    twin = copy.deepcopy(net)
    for module in twin.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.eval()
    return twin


class _OwnStatistics(nn.BatchNorm2d):
    """Batch norm with the statistics of its input, in an operator that exporters know."""

    def forward(self, x: Tensor) -> Tensor:
        return batch_normalised(x, self.weight, self.bias, self.eps)
