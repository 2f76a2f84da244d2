"""Generators as they are used after training: from a checkpoint alone, and without side effects."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from torchp2p.models.define import define_G
from torchp2p.models.define_hd import HD_GENERATORS, define_hd_G
from torchp2p.models.describe import describe_state_dict
from torchp2p.models.padding import run_padded
from torchp2p.models.state_dicts import load_state_dict_compatible, load_weights


def generator_from_config(config: Mapping[str, Any]) -> nn.Module:
    """The generator that the options of a training describe (spec section 10.2), freshly initialised.

    Raises:
        KeyError: an option is missing.
        ValueError: an option is out of range.
    """
    return define_G(
        config["netG"],
        config["input_nc"],
        config["output_nc"],
        config["ngf"],
        config["norm"],
        not config["no_dropout"],
        config["init_type"],
        config["init_gain"],
        config["variant"],
    )


def generator_from_weights(path: str | Path, options: Mapping[str, Any] | None = None) -> nn.Module:
    """The generator of a bare ``.pth`` file of the original project, whose options are read off its tensors.

    Args:
        path: a plain state_dict.
        options: what the tensors do not tell, or to override: ``no_dropout``, ``variant``, ...

    Raises:
        FileNotFoundError, OSError: the file cannot be read.
        ValueError: it is not the state_dict of a generator this package knows.
    """
    weights = load_weights(path)
    described = describe_state_dict(weights)
    if described is None or "netG" not in described:
        raise ValueError(
            f"weights file {path} is not that of a generator of pix2pix or pix2pixHD: its names fit no network"
        )
    known: dict[str, Any] = {**described, **(options or {})}
    if known["netG"] in HD_GENERATORS:
        net: nn.Module = define_hd_G(**known)
    else:
        unknown = {
            "no_dropout": not described.get("use_dropout", True),
            "variant": "pytorch",
            "init_type": "normal",
            "init_gain": 0.02,
        }
        net = generator_from_config({**unknown, **known})
    load_state_dict_compatible(net, weights)
    return net


def run_generator(net: nn.Module, x: Tensor, *, eval_mode: bool = False, seed: int | None = None) -> Tensor:
    """Generate from x as the originals do at test time, leaving ``net`` and the random numbers as they were.

    By default the statistics are those of x and dropout is active (spec sections 1.1 S11, S12, 9.1);
    ``eval_mode`` uses running statistics and no dropout. Images of any size are padded and cropped back.

    Args:
        net: a generator; its training flag and buffers are restored.
        x: (N, input_nc, H, W) in [-1, 1].
        eval_mode: see above.
        seed: of the dropout masks; None draws them from the global generator, and advances it.

    Returns:
        (N, output_nc, H, W), without gradient.
    """
    was_training = net.training
    buffers = [(buffer, buffer.clone()) for buffer in net.buffers()]
    devices = [x.device] if x.device.type == "cuda" else []
    net.train(not eval_mode)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices, enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            return run_padded(net, x)
    finally:
        net.train(was_training)
        for buffer, before in buffers:
            buffer.copy_(before)
