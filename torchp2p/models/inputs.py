"""What the pix2pixHD networks are shown of a label map: one-hot labels and instance edges (spec sections 3.3, 6.3)."""

from __future__ import annotations

import torch
from torch import Tensor

from torchp2p import ops


def encode_labels(
    label: Tensor,
    inst: Tensor | None,
    label_nc: int,
    *,
    ignored: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """One channel a label, and behind them the edges between instances.

    The generator sees this and the features of the instances, the discriminator this and the image.

    Args:
        label: integer ids 0..label_nc - 1, (N, 1, H, W); an image (N, C, H, W) in [-1, 1] when ``label_nc`` is 0,
            which is then taken as it is.
        inst: integer ids (N, 1, H, W); None for no edges.
        label_nc: number of labels.
        ignored: an id that is no label, and 0 in every channel; None for none.
        dtype: of the result.

    Returns:
        (N, label_nc or C, plus 1 with edges, H, W).

    Raises:
        TypeError: labels, or instance ids, that are not integers.
        ValueError: a shape that does not fit, or an id out of range, which is named with its place.
    """
    channels = one_hot(label, label_nc, ignored, dtype) if label_nc else label.to(dtype)
    if inst is None:
        return channels
    if inst.shape != (len(label), 1, *label.shape[2:]):
        raise ValueError(
            f"inst must be (N, 1, H, W) with the size of label {tuple(label.shape)}, got {tuple(inst.shape)}"
        )
    return torch.cat((channels, ops.instance_edges(inst, dtype=dtype)), 1)


def one_hot(label: Tensor, label_nc: int, ignored: int | None, dtype: torch.dtype) -> Tensor:
    """Integer ids (N, 1, H, W) to (N, label_nc, H, W), 1 at the channel of the id and 0 elsewhere.

    The id ``ignored`` has no channel.

    Raises:
        TypeError: ids that are not integers.
        ValueError: another shape, or an id out of range, which is named with its place.
    """
    if label.is_floating_point() or label.is_complex():
        raise TypeError(f"label must be integer ids with label_nc {label_nc}, got {label.dtype}")
    if label.dim() != 4 or label.shape[1] != 1:
        raise ValueError(f"label must be (N, 1, H, W), got shape {tuple(label.shape)}")
    label = label.long()
    outside = (label < 0) | (label >= label_nc)
    if ignored is not None:
        outside &= label != ignored
    if outside.any():
        sample, _, row, column = outside.nonzero()[0].tolist()
        raise ValueError(
            f"label must be ids 0..{label_nc - 1} (label_nc {label_nc}), got {label[sample, 0, row, column]} "
            f"in sample {sample} at row {row}, column {column}"
        )
    found = torch.zeros(len(label), label_nc, *label.shape[2:], dtype=dtype, device=label.device)
    if ignored is None:
        return found.scatter_(1, label, 1)
    return found.scatter_(1, label.clamp(0, label_nc - 1), (label != ignored).to(dtype))
