"""``ConvNormAct`` and ``ConvTransposeNormAct``: a convolution and what follows it, as links of a chain."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from torchp2p import ops
from torchp2p.nn.norm_act import NormAct
from torchp2p.ops import Deferred
from torchp2p.ops.norm_act import PAD_MODES


class _ConvBlock(nn.Module):
    """A convolution and the NormAct after it."""

    def __init__(self, conv: nn.Conv2d | nn.ConvTranspose2d, norm: NormAct) -> None:
        super().__init__()
        _require_chainable(conv, norm)
        self.conv = conv
        self.norm = norm

    def forward(
        self, x: Tensor | Deferred, residual: Tensor | None = None, *, defer: bool = False
    ) -> Tensor | Deferred:
        """(N, C, H, W), or what the layer before deferred, to (N, O, H', W'), or to a Deferred of it."""
        return chained(self.conv, self.norm, x, residual, defer=defer)


class ConvNormAct(_ConvBlock):
    """Convolution, normalisation, residual sum and activation, see :func:`torchp2p.ops.conv_norm_act`.

    The parameters are those of the torch modules it stands for: ``conv`` is an ``nn.Conv2d`` and ``norm`` a
    :class:`torchp2p.nn.NormAct`, so a checkpoint of ``conv.*`` and ``norm.*`` loads.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, bias: as in ``nn.Conv2d``; padding in pixels.
        padding_mode: ``zeros``, ``reflect`` or ``replicate``.
        device, dtype: of all parameters.
        norm_options: norm, affine, track_running_stats, eps, momentum, act and slope of NormAct.

    Raises:
        ValueError: an unknown name, or a ``pad``, which belongs to whoever reads the result.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        *,
        padding_mode: str = "zeros",
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **norm_options: Any,
    ) -> None:
        if padding_mode not in PAD_MODES:
            raise ValueError(f"padding_mode must be one of {', '.join(PAD_MODES)}, got {padding_mode!r}")
        like: dict[str, Any] = {"device": device, "dtype": dtype}
        mode: Any = padding_mode
        conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, padding_mode=mode, bias=bias, **like)
        super().__init__(conv, NormAct(out_channels, **norm_options, **like))


class ConvTransposeNormAct(_ConvBlock):
    """As ConvNormAct, with an ``nn.ConvTranspose2d``.

    Args:
        output_padding: as in ``nn.ConvTranspose2d``.
        The others: as in ConvNormAct; padding with zeros.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        output_padding: int = 0,
        *,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **norm_options: Any,
    ) -> None:
        like: dict[str, Any] = {"device": device, "dtype": dtype}
        conv = nn.ConvTranspose2d(
            in_channels, out_channels, kernel_size, stride, padding, output_padding, bias=bias, **like
        )
        super().__init__(conv, NormAct(out_channels, **norm_options, **like))


def chained(
    conv: nn.Conv2d | nn.ConvTranspose2d,
    norm: NormAct,
    x: Tensor | Deferred,
    residual: Tensor | None = None,
    *,
    pad_mode: str | None = None,
    padding: int | None = None,
    defer: bool = False,
) -> Tensor | Deferred:
    """One conv_norm_act with the parameters of a convolution and of the NormAct that follows it.

    Args:
        conv: equal paddings, no dilation, one group.
        norm: without ``pad``, which is left to whoever reads the result.
        pad_mode, padding: where the layers before the convolution pad for it; None for the convolution's own.
        defer: hand on the raw output.

    Where there are hooks on ``conv`` or ``norm`` the two are called as modules, so that the hooks run; the result
    is then the activation itself, ``defer`` or not.

    Raises:
        ValueError: a convolution with dilation, groups or unequal paddings, or a norm that pads.
    """
    _require_chainable(conv, norm)
    if has_hooks(conv) or has_hooks(norm):
        source = x if isinstance(x, Deferred) else Deferred(x)
        border = 0 if padding is None else padding - int(conv.padding[0])
        activation: Tensor = norm(conv(source.tensor(border, pad_mode or "zeros")), residual)
        return activation
    told = norm.begin()
    geometry = _geometry(conv)
    if padding is not None:
        geometry["padding"] = padding
    if pad_mode is not None:
        geometry["pad_mode"] = pad_mode
    return ops.conv_norm_act(
        x,
        conv.weight,
        conv.bias,
        **geometry,
        residual=residual,
        defer=defer,
        norm_weight=told.pop("weight"),
        norm_bias=told.pop("bias"),
        **told,
    )


def convolved(conv: nn.Conv2d | nn.ConvTranspose2d, x: Tensor) -> Tensor:
    """``conv(x)`` by the algorithm that is fastest; by calling it where that does more than a convolution we know."""
    known = type(conv) in (nn.Conv2d, nn.ConvTranspose2d) and _is_chainable(conv) and conv.padding_mode in PAD_MODES
    if has_hooks(conv) or not known:
        return cast(Tensor, conv(x))
    found = ops.conv_norm_act(x, conv.weight, conv.bias, **_geometry(conv), norm="none", act="none")
    return cast(Tensor, found)


def _is_chainable(conv: nn.Conv2d | nn.ConvTranspose2d) -> bool:
    equal = not isinstance(conv.padding, str) and len(set(conv.padding)) == 1
    return equal and set(conv.dilation) == {1} and conv.groups == 1


def _geometry(conv: nn.Conv2d | nn.ConvTranspose2d) -> dict[str, Any]:
    return {
        "stride": (conv.stride[0], conv.stride[1]),
        "padding": int(conv.padding[0]),
        "pad_mode": conv.padding_mode,
        "transposed": isinstance(conv, nn.ConvTranspose2d),
        "output_padding": (conv.output_padding[0], conv.output_padding[1]),
    }


def _require_chainable(conv: nn.Conv2d | nn.ConvTranspose2d, norm: NormAct) -> None:
    if not _is_chainable(conv):
        raise ValueError(f"conv must have equal paddings, no dilation and one group, got {conv}")
    if norm.pad:
        raise ValueError(f"norm must not pad, whoever reads the result does; got {norm}")


def followed(norm: NormAct, raw: Tensor) -> Deferred:
    """What ``norm``, without ``pad``, makes of the output of a convolution, left to whoever reads it."""
    told = norm.begin()
    return Deferred(raw, norm_weight=told.pop("weight"), norm_bias=told.pop("bias"), **told)


def has_hooks(module: nn.Module) -> bool:
    """Whether somebody looks at what goes into or comes out of the module, which must then be called as one."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )
