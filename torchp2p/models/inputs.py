"""What the pix2pixHD networks are shown of a label map: one-hot labels and instance edges (spec sections 3.3, 6.3)."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from torchp2p import ops
from torchp2p.models.pyramid import half, pyramid
from torchp2p.ops._label_range import assert_on_device, captured


def encode_labels(
    label: Tensor,
    inst: Tensor | None,
    label_nc: int,
    *,
    ignored: int | None = None,
    dtype: torch.dtype = torch.float32,
    layout: torch.memory_format = torch.contiguous_format,
) -> Tensor:
    """One channel a label, and behind them the edges between instances.

    The generator sees this and the features of the instances, the discriminator this and the image.

    Args:
        label: integer ids 0..label_nc - 1, (N, 1, H, W); an image (N, C, H, W) in [-1, 1] when ``label_nc`` is 0,
            which is then taken as it is.
        inst: integer ids (N, 1, H, W); None for no edges.
        label_nc: number of labels.
        ignored: an id that is no label, and 0 in every channel; None for none.
        dtype, layout: of the result; contiguous or channels_last.

    Returns:
        (N, label_nc or C, plus 1 with edges, H, W).

    Raises:
        TypeError: labels, or instance ids, that are not integers.
        ValueError: a shape that does not fit, or an id out of range, which is named with its place.
    """
    if label_nc:
        return LabelMap(label, inst, label_nc, ignored=ignored, dtype=dtype, layout=layout).tensor()
    channels = label.to(dtype)
    return channels if inst is None else _joined([channels, _edges(label, inst, dtype)], layout)


class LabelMap:
    """Label ids with the edges between instances, and features if any: what ``encode_labels`` encodes, not encoded.

    The first convolution of a network needs no one-hot channels (``ops.label_conv2d``). GlobalGenerator,
    LocalEnhancer and MultiscaleDiscriminator take a LabelMap in place of ``cat(labels, edges[, features])``; only
    where a coarser level of the image pyramid is looked at are one-hot channels made, once for all who look.

    Args:
        label, inst, label_nc, ignored, dtype, layout: as ``encode_labels`` takes them, ``label_nc`` at least 1.

    Raises:
        TypeError, ValueError: as ``encode_labels``.
    """

    def __init__(
        self,
        label: Tensor,
        inst: Tensor | None,
        label_nc: int,
        *,
        ignored: int | None = None,
        dtype: torch.dtype = torch.float32,
        layout: torch.memory_format = torch.contiguous_format,
    ) -> None:
        _check_ids(label, label_nc, ignored)
        self.label, self.label_nc, self.ignored = label, label_nc, ignored
        self.dtype, self.layout = dtype, layout
        self.edges = None if inst is None else _edges(label, inst, dtype)
        self.features: Tensor | None = None
        self._coarser: list[Tensor] = []  # labels and edges, halved once, twice, ...

    @property
    def channels(self) -> int:
        """How many channels ``tensor()`` has."""
        return self.label_nc + sum(part.shape[1] for part in self._dense())

    def with_features(self, features: Tensor | None) -> LabelMap:
        """The same labels with other channels (N, C, H, W) behind the edges."""
        other = copy.copy(self)
        other.features = None if features is None else features.to(self.dtype)
        return other

    def tensor(self) -> Tensor:
        """(N, channels, H, W): one-hot labels, edges and features."""
        return _joined([self._one_hot(), *self._dense()], self.layout)

    def pyramid(self, levels: int) -> list[Any]:
        """This map, and ``levels - 1`` times the half of ``tensor()``, the finest first."""
        while len(self._coarser) < levels - 1:
            self._coarser.append(half(self._coarser[-1] if self._coarser else self.with_features(None).tensor()))
        coarser = self._coarser[: levels - 1]
        if self.features is not None:
            features = pyramid(self.features, levels)[1:]
            coarser = [_joined(list(pair), self.layout) for pair in zip(coarser, features, strict=True)]
        return [self, *coarser]

    def convolved(self, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, pad_mode: str) -> Tensor:
        """``conv2d(tensor(), weight, bias)``; stride, padding and pad_mode as ``ops.label_conv2d`` takes them.

        Raises:
            ValueError: ``weight`` is for another number of channels, or what the op refuses.
        """
        if weight.shape[1] != self.channels:  # the op would take what is too many or too few for labels
            raise ValueError(
                f"label must be shown to a network of as many input channels, got {self.label_nc} labels and "
                f"{self.channels - self.label_nc} channels of edges and features for {weight.shape[1]} inputs"
            )
        dense = self._dense()
        return ops.label_conv2d(
            self.label, weight, bias, dense=_joined(dense, self.layout) if dense else None, stride=stride,
            padding=padding, pad_mode=pad_mode, ignore_out_of_range=self.ignored is not None,
        )  # fmt: skip

    def _dense(self) -> list[Tensor]:
        return [part for part in (self.edges, self.features) if part is not None]

    def _one_hot(self) -> Tensor:
        label = self.label.long()
        shape = (len(label), self.label_nc, *label.shape[2:])
        found = torch.empty(shape, dtype=self.dtype, device=label.device, memory_format=self.layout).zero_()
        if self.ignored is None:
            return found.scatter_(1, label, 1)
        return found.scatter_(1, label.clamp(0, self.label_nc - 1), (label != self.ignored).to(self.dtype))


def pyramid_of(x: Tensor | LabelMap, levels: int) -> list[Any]:
    """The pyramid of a tensor or of a LabelMap, which then is its own finest level."""
    return x.pyramid(levels) if isinstance(x, LabelMap) else pyramid(x, levels)


def tensor_of(x: Tensor | LabelMap) -> Tensor:
    """All channels of a tensor or of a LabelMap."""
    return x.tensor() if isinstance(x, LabelMap) else x


def _check_ids(label: Tensor, label_nc: int, ignored: int | None) -> None:
    if label.is_floating_point() or label.is_complex():
        raise TypeError(f"label must be integer ids with label_nc {label_nc}, got {label.dtype}")
    if label.dim() != 4 or label.shape[1] != 1:
        raise ValueError(f"label must be (N, 1, H, W), got shape {tuple(label.shape)}")
    ids = label.long()
    outside = (ids < 0) | (ids >= label_nc)
    if ignored is not None:
        outside &= ids != ignored
    if captured(label):
        assert_on_device(~outside.any(), label_nc)
        return
    if outside.any():
        sample, _, row, column = outside.nonzero()[0].tolist()
        raise ValueError(
            f"label must be ids 0..{label_nc - 1} (label_nc {label_nc}), got {ids[sample, 0, row, column]} "
            f"in sample {sample} at row {row}, column {column}"
        )


def _joined(parts: list[Tensor], layout: torch.memory_format) -> Tensor:
    """``torch.cat(parts, 1)`` in a layout that the parts, of which some have one channel, do not tell."""
    if len(parts) == 1:
        return parts[0]
    if layout == torch.channels_last:
        return torch.cat([part.permute(0, 2, 3, 1) for part in parts], 3).permute(0, 3, 1, 2)
    return torch.cat(parts, 1)


def _edges(label: Tensor, inst: Tensor, dtype: torch.dtype) -> Tensor:
    if inst.shape != (len(label), 1, *label.shape[2:]):
        raise ValueError(
            f"inst must be (N, 1, H, W) with the size of label {tuple(label.shape)}, got {tuple(inst.shape)}"
        )
    return ops.instance_edges(inst, dtype=dtype)
