"""Networks that start from those of another training, which need not be alike (spec sections 2.9, 5.4)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from torch import nn

from torchp2p.models.state_dicts import Report, load_state_dict_compatible, load_weights


def load_pretrain(
    folder: str | os.PathLike[str], networks: Mapping[str, nn.Module], which_epoch: str = "latest"
) -> dict[str, Report]:
    """Fill networks from ``<which_epoch>_net_<label>.pth``, entry by entry where name and shape agree.

    This is how a GlobalGenerator starts a LocalEnhancer, and a discriminator of two scales one of three. What a
    checkpoint does not fill stays as it is; ``Report.summary()`` says what that was.

    Args:
        folder: of the files.
        networks: by label: ``{"G": ..., "D": ..., "E": ...}``.
        which_epoch: ``latest``, or the number of an epoch.

    Returns:
        A report for every label.

    Raises:
        FileNotFoundError, OSError, ValueError: a file, of any of the networks, is missing or cannot be read, and no
            network has been changed.
        ValueError: a file has nothing for its network.
    """
    files = {label: Path(folder) / f"{which_epoch}_net_{label}.pth" for label in networks}
    weights = {label: load_weights(path) for label, path in files.items()}
    reports = {}
    for label, net in networks.items():
        reports[label] = load_state_dict_compatible(net, weights[label], strict=False)
        if not reports[label].loaded:
            raise ValueError(f"weights file {files[label]} has no entry of the network {label} that it should fill")
    return reports
