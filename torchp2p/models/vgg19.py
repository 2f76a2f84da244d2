"""``VGG19Features``, the frozen features of the perceptual loss, and their weights. Spec section 4.5."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import cast
from urllib.error import URLError

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchp2p.models.layers import sequential
from torchp2p.models.recompute import recomputes, run_stretch
from torchp2p.models.state_dicts import load_state_dict_compatible, load_weights
from torchp2p.nn.conv_norm_act import convolved

WEIGHTS_URL = "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth"
WEIGHTS_SHA256 = "dcbb9e9d"

STAGES = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 1))
"""Channels and convolutions between two poolings; torchvision's network goes on after the last of these."""


class VGG19Features(nn.Module):
    """relu1_1, relu2_1, relu3_1, relu4_1 and relu5_1 of torchvision's VGG-19, with weights that never change.

    Parameters are named as torchvision names them, ``features.{i}.weight`` and ``features.{i}.bias``.

    Args:
        weights: file with a state_dict of torchvision's ``vgg19`` (:func:`download_vgg19_weights` fetches it). Its
            layers after relu5_1, ``classifier`` among them, are not used.

    ``forward``: images (N, 3, H, W) in [-1, 1], taken as they are, H and W at least 16, to five maps of 64, 128,
    256, 512 and 512 channels, from full size to a sixteenth of it.

    Raises:
        FileNotFoundError, OSError: the file cannot be read.
        ValueError: it holds something else than these weights.
    """

    def __init__(self, weights: str | os.PathLike[str]) -> None:
        super().__init__()
        layers: dict[str, nn.Module] = {}
        channels, index = 3, 0
        self._stages: list[list[str]] = []
        for width, count in STAGES:
            names = [f"{index + 2 * conv}" for conv in range(count)]
            for name in names:
                layers[name] = nn.Conv2d(channels, width, 3, padding=1)
                channels = width
            self._stages.append(names)
            index += 2 * count + 1
        self.features = sequential(layers)
        self._load(Path(weights))
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """The five maps; shapes as the class says."""
        found: list[Tensor] = []
        for before, names in zip(([], *self._stages), self._stages, strict=False):
            # From one map to the next: what is left of the stage before, a pooling, and the first convolution.
            layers = [cast(nn.Conv2d, self.features.get_submodule(name)) for name in (*before[1:], names[0])]
            x = run_stretch(partial(_stage, layers), x, layers) if recomputes() else _stage(layers, x)
            found.append(x)
        return found

    def _load(self, path: Path) -> None:
        given = load_weights(path)
        try:
            load_state_dict_compatible(self, {name: given[name] for name in self.state_dict() if name in given})
        except ValueError as error:
            raise ValueError(f"weights file {path} is not that of torchvision's vgg19: {error}") from error


def _stage(layers: list[nn.Conv2d], x: Tensor) -> Tensor:
    """Convolutions with their ReLUs, and the pooling before the last of several."""
    for conv in layers:
        if conv is layers[-1] and len(layers) > 1:
            x = F.max_pool2d(x, 2)
        # In place: the convolution does not need its output, so one tensor a layer is kept.
        x = F.relu(convolved(conv, x), inplace=True)
    return x


def download_vgg19_weights(
    path: str | os.PathLike[str], *, url: str = WEIGHTS_URL, sha256: str = WEIGHTS_SHA256
) -> Path:
    """Fetch the weights that torchvision publishes for VGG-19 (548 MB). Nothing else in this package downloads.

    Args:
        path: file to write; one that is there is kept and not looked at.
        url: where from.
        sha256: first hexadecimal digits of the checksum that the file must have.

    Returns:
        ``path``.

    Raises:
        OSError: the address cannot be read, or the file not be written.
        ValueError: what came has another checksum; nothing is then left behind.
    """
    path = Path(path)
    if path.exists():
        return path
    try:
        torch.hub.download_url_to_file(url, str(path), hash_prefix=sha256, progress=False)
    except URLError as error:
        raise OSError(f"{url} could not be downloaded: {error.reason}") from error
    except RuntimeError as error:
        raise ValueError(f"{url} is not the file that was expected: {error}") from error
    return path
