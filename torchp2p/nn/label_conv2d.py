"""``LabelConv2d``: the first convolution of a network whose input is a label map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from torchp2p import ops
from torchp2p.ops.label_conv2d import PAD_MODES


class LabelConv2d(nn.Module):
    """Convolution of one-hot labels and dense channels, see :func:`torchp2p.ops.label_conv2d`.

    It has the parameters of the ``torch.nn.Conv2d`` that it replaces, label channels first: ``weight``
    (out_channels, label_nc + dense_channels, k, k) and ``bias``, so checkpoints interchange.

    Args:
        label_nc: ids are 0..label_nc - 1.
        out_channels: channels of the result.
        kernel_size, stride, padding: an int, or (height, width).
        dense_channels: channels of ``dense`` (edges, features, an image); 0 for none.
        padding_mode: ``zeros``, ``reflect`` or ``replicate``.
        bias: whether there is one.
        ignore_out_of_range: other ids contribute nothing instead of being an error.

    Raises:
        ValueError: an unknown padding mode, or a number of channels that makes no sense.
    """

    def __init__(
        self,
        label_nc: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        *,
        dense_channels: int = 0,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        padding_mode: str = "zeros",
        bias: bool = True,
        ignore_out_of_range: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if padding_mode not in PAD_MODES:
            raise ValueError(f"padding_mode must be one of {', '.join(PAD_MODES)}, got {padding_mode!r}")
        for name, value, least in (
            ("label_nc", label_nc, 1),
            ("out_channels", out_channels, 1),
            ("dense_channels", dense_channels, 0),
        ):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        self.label_nc = label_nc
        self.dense_channels = dense_channels
        self.out_channels = out_channels
        self.kernel_size = (kernel_size, kernel_size) if isinstance(kernel_size, int) else tuple(kernel_size)
        self.stride = stride
        self.padding = padding
        self.padding_mode = padding_mode
        self.ignore_out_of_range = ignore_out_of_range
        like: dict[str, Any] = {"device": device, "dtype": dtype}
        self.weight = nn.Parameter(torch.empty(out_channels, label_nc + dense_channels, *self.kernel_size, **like))
        self.bias = nn.Parameter(torch.empty(out_channels, **like)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The start values of ``torch.nn.Conv2d``."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.weight[0].numel())
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, labels: Tensor, dense: Tensor | None = None) -> Tensor:
        """labels (N, 1, H, W) or (N, H, W) and dense (N, dense_channels, H, W) to (N, out_channels, H', W').

        Raises:
            ValueError: dense has other than ``dense_channels`` channels, or what the op refuses.
        """
        channels = 0 if dense is None else dense.shape[1]
        if channels != self.dense_channels:
            raise ValueError(f"dense must have {self.dense_channels} channels, got {channels}")
        return ops.label_conv2d(
            labels,
            self.weight,
            self.bias,
            dense=dense,
            stride=self.stride,
            padding=self.padding,
            pad_mode=self.padding_mode,
            ignore_out_of_range=self.ignore_out_of_range,
        )

    def extra_repr(self) -> str:
        """The options that are in force."""
        parts = [f"{self.label_nc}, {self.out_channels}, kernel_size={self.kernel_size}"]
        if self.dense_channels:
            parts.append(f"dense_channels={self.dense_channels}")
        parts.append(f"stride={self.stride}, padding={self.padding}, padding_mode={self.padding_mode}")
        if self.bias is None:
            parts.append("bias=False")
        if self.ignore_out_of_range:
            parts.append("ignore_out_of_range=True")
        return ", ".join(parts)
