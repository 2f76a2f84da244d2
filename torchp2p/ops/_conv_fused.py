"""``conv_norm_act`` with ``algorithm="fused"``: what the Triton kernels are given, and what is done around them.

The convolution reads its activation as it makes it, so no activation is ever written. Backward, the activation is made
again in the weight gradient's load; where the convolution reads no border, the data gradient's epilogue goes through
the activation and adds up what the normalisation's gradient needs. With a border, norm_act's backward does that.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchp2p.ops import _dispatch, _tuning
from torchp2p.ops._deferred import stands_for_itself
from torchp2p.ops.norm_act import Options, empty_outputs, run_backward
from torchp2p.reference.conv_norm_act import Convolution
from torchp2p.reference.norm_act import groups_of, memory_format_of

if TYPE_CHECKING:
    from torchp2p.kernels.conv_norm_act import Source, Tile, Tiles, Window

Tensors = tuple[Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor | None, Tensor | None]
"""x, in_weight, in_bias, residual, mean, var: what stands before the convolution."""


def unavailable(device_type: str, dtype: torch.dtype) -> str:
    """Why the fused convolution cannot run on such tensors; empty if it can."""
    if dtype == torch.float64:
        return "the fused convolution multiplies float32, bfloat16 and float16, not float64"
    return _dispatch.triton_unavailable("conv_norm_act", device_type)


# torch.compile keeps the answer; see _dispatch.
unavailable._dynamo_marked_constant = True  # type: ignore[attr-defined]


def forward(
    tensors: Tensors,
    options: Options,
    weight: Tensor,
    bias: Tensor | None,
    conv: Convolution,
    groups: int,
    tiles: Tiles | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """raw; mean and variance of x where they were not given; those of raw by ``groups``. Empty where there is none."""
    from torchp2p.kernels import conv_norm_act as kernels

    x, given_mean = tensors[0], tensors[4]
    raw, (mean, var) = empty_output(x, weight, conv), no_statistics(x)
    if options.norm != "none" and given_mean is None:
        last, of_x = memory_format_of(x) == torch.channels_last, groups_of(x, options.norm, options.stat_groups)
        mean, var = kernels.statistics(x, of_x, channels_last=last)
        tensors = (*tensors[:4], mean, var)
    tile = (tiles or tiles_of(tensors, options, weight, conv)).forward
    taken = kernels.forward(_source(tensors, options), weight, bias, raw, _window(weight, conv), groups, tile)
    return raw, mean, var, *(taken or no_statistics(x))


def backward(
    grad: Tensor,
    tensors: Tensors,
    options: Options,
    weight: Tensor,
    conv: Convolution,
    needs: tuple[bool, bool, bool, bool],
    backend: str,
    tiles: Tiles | None = None,
) -> tuple[Tensor, ...]:
    """Gradients of x, in_weight, in_bias, residual, weight and bias; those that do not exist are empty.

    ``needs``: of what stands before the convolution, and there of the residual; of weight; of bias.
    """
    from torchp2p.kernels import conv_norm_act as kernels

    input_grad, residual_grad, weight_grad, bias_grad = needs
    tiles = tiles or tiles_of(tensors, options, weight, conv)
    source, window = _source(tensors, options), _window(weight, conv)
    grads_before = (grad.new_empty(0),) * 4
    if input_grad:
        grads_before = _gradients_before(grad, tensors, options, weight, conv, residual_grad, backend, tiles.data)
    grad_weight = grad_bias = grad.new_empty(0)
    if weight_grad:
        grad_weight = kernels.weight_gradient(grad, source, weight, window, tiles.weight)
    if bias_grad:
        grad_bias = grad.sum((0, 2, 3), dtype=torch.float32).to(grad.dtype)
    return (*grads_before, grad_weight, grad_bias)


def _gradients_before(
    grad: Tensor,
    tensors: Tensors,
    options: Options,
    weight: Tensor,
    conv: Convolution,
    residual_grad: bool,
    backend: str,
    tile: Tile,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, in_weight, in_bias and residual."""
    from torchp2p.kernels import conv_norm_act as kernels

    x, in_weight, in_bias, _, mean, _ = tensors
    window, nothing = _window(weight, conv), x.new_empty(0)
    itself = stands_for_itself(options, *tensors[1:4])
    if itself or conv.border:
        grad_h, _, _ = empty_outputs(x, mean, options)
        kernels.forward(kernels.Source(grad), weight, None, grad_h, kernels.adjoint(window), 0, tile)
        if itself:
            return grad_h, nothing, nothing, nothing
        return run_backward(grad_h, *tensors, *options, residual_grad, backend)
    source = _source(tensors, options)
    grad_z = torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=memory_format_of(x))
    sums, sums_xhat = kernels.data_gradient(grad, source, weight, window, grad_z, tile)  # (G, C)
    means, grad_x = None, torch.empty_like(grad_z) if residual_grad else grad_z
    if mean is not None and mean.dim() == 2:  # the statistics of x, which move with it
        count = x.numel() // (x.shape[1] * mean.shape[0])
        means = (sums / count, sums_xhat / count)
    if residual_grad or in_weight is not None or options.norm != "none":
        kernels.norm_gradient(grad_z, source, means, grad_x)
    return (
        grad_x,
        nothing if in_weight is None else sums_xhat.sum(0).to(in_weight.dtype),
        nothing if in_bias is None else sums.sum(0).to(in_bias.dtype),
        grad_z if residual_grad else nothing,
    )


def tiles_of(tensors: Tensors, options: Options, weight: Tensor, conv: Convolution) -> Tiles:
    """The tiles that were measured to be the fastest for this shape, or those for any."""
    from torchp2p.kernels.conv_norm_act import Tile, Tiles, default_tiles

    row = row_of(tensors, options, weight, conv)
    if row is None or "tiles" not in row:
        return default_tiles(tensors[0])
    return Tiles(**{use: Tile(*numbers) for use, numbers in row["tiles"].items()})


def fastest_tiles(
    tensors: Tensors,
    options: Options,
    weight: Tensor,
    conv: Convolution,
    groups: int,
    time: Callable[[Callable[[], object]], float],
) -> dict[str, list[int]]:
    """The tiles for which ``time`` finds the least, as a row has them."""
    from torchp2p.kernels.conv_norm_act import Tiles, candidates, default_tiles

    raw, mean, var, *_ = forward(tensors, options, weight, None, conv, groups, default_tiles(tensors[0]))
    if mean.numel():
        tensors = (*tensors[:4], mean, var)
    grad, backend = torch.ones_like(raw), _dispatch.choose("norm_act", raw, None)

    def run(use: str, tile: Tile) -> None:
        tiles = Tiles(tile, tile, tile)
        if use == "forward":
            forward(tensors, options, weight, None, conv, groups, tiles)
        else:
            data = use == "data"
            needs = (data, data and tensors[3] is not None, not data, False)
            backward(grad, tensors, options, weight, conv, needs, backend, tiles)

    def fastest(use: str) -> Tile:
        return min(candidates(raw, use), key=lambda tile: time(partial(run, use, tile)))

    return {use: list(fastest(use)) for use in Tiles._fields}


def row_of(tensors: Tensors, options: Options, weight: Tensor, conv: Convolution) -> _tuning.Row | None:
    """What is known of this shape."""
    return _tuning.find(tensors[0].device, key_of(tensors, options, weight, conv))


def key_of(tensors: Tensors, options: Options, weight: Tensor, conv: Convolution) -> str:
    """What the row of this shape is called."""
    from torchp2p.kernels.conv_norm_act import arithmetic_of

    return _tuning.key_of(tensors[0], tensors[3], options, weight, conv, arithmetic_of(tensors[0]))


def empty_output(x: Tensor, weight: Tensor, conv: Convolution) -> Tensor:
    """Memory for raw, in the layout of x."""
    height, width = (conv.output_size(dim, x.shape[2 + dim], weight.shape[2 + dim]) for dim in (0, 1))
    shape = (x.shape[0], weight.shape[1 if conv.transposed else 0], height, width)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=memory_format_of(x))


def no_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance where there are none."""
    return x.new_empty(0, dtype=torch.float32), x.new_empty(0, dtype=torch.float32)


def _source(tensors: Tensors, options: Options) -> Source:
    from torchp2p.kernels.conv_norm_act import Source

    x, in_weight, in_bias, residual, mean, var = tensors
    if mean is not None and var is not None:  # (C,) serve all samples
        mean, var = (each.float().reshape(-1, x.shape[1]).contiguous() for each in (mean, var))
    return Source(x, residual, mean, var, in_weight, in_bias, options.eps, options.act, options.slope)


def _window(weight: Tensor, conv: Convolution) -> Window:
    from torchp2p.kernels.conv_norm_act import Window

    kernel = (weight.shape[2], weight.shape[3])
    return Window(kernel, (conv.stride[0], conv.stride[1]), conv.padding, conv.pad_mode, conv.transposed)
