"""Images of any size through networks that need multiples (spec section 2.8): padded, run, cropped back."""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn

_logger = logging.getLogger("torchp2p")
_told: set[tuple[int, int, int]] = set()


def run_padded(net: nn.Module, x: Tensor, multiple: int | None = None) -> Tensor:
    """Run ``net`` on images of any size; the result has their height and width and is never resized.

    x is extended by reflection on the right and at the bottom, so that every pixel keeps its place on the
    network's grid of strides; the result is cropped to where x was. Where reflection needs more pixels than
    the image has it is repeated. A size that fits goes to ``net`` as it is. What is done is logged once for
    each size, at INFO to the logger ``torchp2p``.

    Args:
        net: a network whose output has the height and width of its input at multiples of ``multiple``.
        x: (N, C, H, W), H and W at least 1.
        multiple: in pixels; None for ``net.size_multiple``.

    Returns:
        (N, C', H, W): the network's own output, or a view of it.

    Raises:
        TypeError: ``multiple`` is None and ``net`` has no ``size_multiple``.
        ValueError: x is empty or not (N, C, H, W), ``multiple`` is not positive, or the output of ``net`` has
            another size than its input.
    """
    if multiple is None:
        multiple = getattr(net, "size_multiple", None)
        if not isinstance(multiple, int):
            raise TypeError(f"multiple must be given for a {type(net).__name__}, which has no size_multiple")
    if multiple < 1:
        raise ValueError(f"multiple must be at least 1, got {multiple}")
    if x.dim() != 4 or 0 in x.shape[2:]:
        raise ValueError(f"x must be (N, C, H, W) with at least one pixel, got shape {tuple(x.shape)}")

    height, width = x.shape[2:]
    padded_height, padded_width = (-(-size // multiple) * multiple for size in (height, width))
    if (padded_height, padded_width) == (height, width):
        result: Tensor = net(x)
        return result

    if (height, width, multiple) not in _told:
        _told.add((height, width, multiple))
        _logger.info(
            "image of %dx%d is padded by reflection to %dx%d (multiples of %d) and the result cropped back",
            height, width, padded_height, padded_width, multiple,
        )  # fmt: skip
    y: Tensor = net(reflected_to_multiple(x, multiple))
    if y.shape[2:] != (padded_height, padded_width):
        raise ValueError(
            f"net must keep height and width, got {y.shape[2]}x{y.shape[3]} from {padded_height}x{padded_width}"
        )
    return y[..., :height, :width]


def reflected_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """x, of any dtype, extended by reflection on the right and at the bottom to multiples of ``multiple``.

    Args:
        x: (..., H, W), H and W at least 1; returned as it is where it fits.
    """
    for dim in (-2, -1):
        size = x.shape[dim]
        if size % multiple:
            x = x.index_select(dim, _reflected_places(size, -(-size // multiple) * multiple, x.device))
    return x


def _reflected_places(size: int, padded: int, device: torch.device) -> Tensor:
    """0, 1, ..., size - 1, size - 2, ..., 0, 1, ...: where each of ``padded`` places comes from."""
    period = max(2 * (size - 1), 1)
    places = torch.arange(padded, device=device) % period
    return torch.minimum(places, period - places) if size > 1 else torch.zeros_like(places)
