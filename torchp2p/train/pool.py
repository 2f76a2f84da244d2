"""A history of generated images for the discriminator (spec section 5.6)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class ImagePool:
    """Of each image asked about, returns either it or, half the time once full, an earlier one in exchange.

    Args:
        size: images kept; 0 returns every image unchanged.
        seed: of the choices, which are drawn from a generator of the pool's own.

    Raises:
        ValueError: a negative size.
    """

    def __init__(self, size: int, seed: int = 0) -> None:
        if size < 0:
            raise ValueError(f"size must not be negative, got {size}")
        self.size = size
        self._images: list[Tensor] = []
        self._generator = torch.Generator().manual_seed(seed)

    def query(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in, (N, C, H, W) out, without gradient."""
        images = images.detach()
        if self.size == 0:
            return images
        return torch.stack([self._exchange(image) for image in images])

    def _exchange(self, image: Tensor) -> Tensor:
        if len(self._images) < self.size:
            self._images.append(image.clone())
            return image
        if torch.rand((), generator=self._generator) <= 0.5:
            return image
        index = int(torch.randint(self.size, (), generator=self._generator))
        earlier, self._images[index] = self._images[index], image.clone()
        return earlier.to(image.device)  # a pool that was loaded holds its images on the CPU

    def state_dict(self) -> dict[str, Any]:
        """The images and the state of the generator."""
        return {"images": list(self._images), "generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue as a pool that gave ``state``."""
        self._images = list(state["images"])
        self._generator.set_state(state["generator"])
