"""The networks of pix2pixHD as they are used after training, on label maps of any size."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from torchp2p.models.define_hd import define_hd_G
from torchp2p.models.describe import describe_state_dict
from torchp2p.models.global_generator import GlobalGenerator
from torchp2p.models.inference import run_generator
from torchp2p.models.inputs import encode_labels
from torchp2p.models.instance_encoder import InstanceEncoder
from torchp2p.models.local_enhancer import LocalEnhancer
from torchp2p.models.padding import reflected_to_multiple
from torchp2p.models.state_dicts import load_state_dict_compatible, load_weights


def hd_generator_from_config(config: Mapping[str, Any]) -> GlobalGenerator | LocalEnhancer:
    """The generator that the options of a training describe (spec section 10.1), freshly initialised.

    Raises:
        KeyError: an option is missing.
        ValueError: an option is out of range.
    """
    channels = (config["label_nc"] or config["input_nc"]) + (not config["no_instance"])
    if config["instance_feat"] or config["label_feat"]:
        channels += config["feat_num"]
    return define_hd_G(
        config["netG"], channels, config["output_nc"], config["ngf"], config["n_downsample_global"],
        config["n_blocks_global"], config["n_local_enhancers"], config["n_blocks_local"], config["norm"],
    )  # fmt: skip


def encoder_from_config(config: Mapping[str, Any]) -> InstanceEncoder:
    """The encoder that the options of a training describe, freshly initialised.

    Raises:
        KeyError: an option is missing.
        ValueError: an option is out of range.
    """
    return InstanceEncoder(
        config["output_nc"], config["feat_num"], config["nef"], config["n_downsample_E"], config["norm"]
    )


def encoder_from_weights(path: str | Path) -> InstanceEncoder:
    """The trained encoder in a ``.pth`` file, of this package or the original project, in evaluation mode.

    Raises:
        FileNotFoundError, OSError: the file cannot be read.
        ValueError: it is not the state_dict of an encoder.
    """
    weights = load_weights(path)
    told: dict[str, Any] = dict(describe_state_dict(weights) or {})
    if told.pop("netE", None) is None:
        raise ValueError(f"weights file {path} is not that of an encoder of pix2pixHD: its names fit none")
    net = InstanceEncoder(told["input_nc"], told["feat_num"], told["nef"], told["n_downsample_E"], told["norm"])
    load_state_dict_compatible(net, weights)
    return net.eval()


def synthesize(
    generator: nn.Module,
    label: Tensor,
    inst: Tensor | None,
    label_nc: int,
    feat: Tensor | None = None,
    *,
    ignored: int | None = None,
) -> Tensor:
    """What a generator makes of a label map, without gradient.

    Args:
        generator: of ``cat(labels, edges, features)``; a size that does not fit it is padded and cropped back.
        label, inst, label_nc, ignored: as ``encode_labels`` takes them.
        feat: (N, feat_num, H, W), for a generator that was trained with features.

    Returns:
        (N, output_nc, H, W) in [-1, 1].

    Raises:
        TypeError, ValueError: as ``encode_labels``.
    """
    seen = encode_labels(label, inst, label_nc, ignored=ignored)
    return run_generator(generator, seen if feat is None else torch.cat((seen, feat), 1))


def run_encoder(encoder: nn.Module, image: Tensor, ids: Tensor) -> Tensor:
    """The features of an image, without gradient; a size that does not fit is padded and cropped back.

    Args:
        encoder: of (image, ids), with a ``size_multiple`` where it has one.
        image: (N, C, H, W) in [-1, 1].
        ids: integers (N, 1, H, W).

    Returns:
        (N, feat_num, H, W).
    """
    height, width = image.shape[2:]
    multiple = int(getattr(encoder, "size_multiple", 1))
    with torch.no_grad():
        found: Tensor = encoder(reflected_to_multiple(image, multiple), reflected_to_multiple(ids, multiple))
    return found[..., :height, :width]
