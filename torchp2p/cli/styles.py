"""What a generator with features is told of the style of a label map, as the flags of ``translate`` say it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from jsonargparse import Namespace
from torch import Tensor

from torchp2p.cli.checkpoint import Checkpoint
from torchp2p.cli.parsing import UsageError
from torchp2p.edit import Clusters, class_of_id, sample_features
from torchp2p.models import encoder_from_weights, run_encoder
from torchp2p.train import HDTrainConfig
from torchp2p.train.translate import Style

STYLE_FLAGS = ("use_encoded_image", "cluster_path", "styles", "override", "no_style")
_IMAGE = "synthesized_image"


def styles_of(
    checkpoint: Checkpoint, config: HDTrainConfig, given: Namespace, device: torch.device
) -> tuple[dict[str, Style], set[int]]:
    """The styles to render every label map in, by the label of their picture; and the instances that are overridden.

    An instance leaves the set when it is rendered.

    Raises:
        FileNotFoundError, OSError, ValueError: the encoder or the clusters cannot be read, or do not fit.
        UsageError: flags that are no use together, or for this network.
    """
    if not config.has_features:
        unused = [f"--{flag}" for flag in STYLE_FLAGS if given[flag] not in (None, False, [])]
        if unused:
            raise UsageError(f"{', '.join(unused)}: {checkpoint.path} was trained without features, it has one style")
        return {_IMAGE: lambda batch: None}, set()
    _check_together(given)
    ids = "label" if config.label_feat else "inst"
    if given.no_style:
        return {_IMAGE: partial(_zeros, config.feat_num)}, set()
    if given.use_encoded_image:
        encoder = encoder_of(checkpoint).to(device)
        return {_IMAGE: lambda batch: run_encoder(encoder, batch["image"], batch[ids])}, set()
    path = _cluster_path(checkpoint, config, given.cluster_path)
    clusters = Clusters.load(path)
    if clusters.rows and clusters.n_features != config.feat_num:
        raise ValueError(f"{path}: clusters must have {config.feat_num} features, got {clusters.n_features}")
    overrides = _overrides(given.override or [], clusters, path)
    count = 1 if given.styles is None else given.styles
    labels = [_IMAGE] if given.styles is None else [f"{_IMAGE}_{number}" for number in range(count)]
    unmet = set(overrides)

    def drawn(seed: int, batch: Mapping[str, Tensor]) -> Tensor:
        unmet.difference_update(batch[ids].unique().tolist() if unmet else ())
        return sample_features(batch[ids], clusters, seed=seed, overrides=overrides, n_features=config.feat_num)

    return {label: partial(drawn, given.seed + number) for number, label in enumerate(labels)}, unmet


def encoder_of(checkpoint: Checkpoint) -> torch.nn.Module:
    """The encoder that was trained with a generator, in evaluation mode.

    Raises:
        FileNotFoundError: it is not beside the generator.
        OSError, ValueError: it cannot be read.
    """
    path = checkpoint.path.with_name(f"{checkpoint.label}_net_E.pth")
    if not path.exists():
        raise FileNotFoundError(f"there is no encoder {path}: trainings with instance_feat or label_feat make one")
    return encoder_from_weights(path)


def cluster_file(folder: Path, n_clusters: int) -> Path:
    """Where the clusters of a run are kept."""
    return folder / f"features_clustered_{n_clusters:03d}.npz"


def _check_together(given: Namespace) -> None:
    if given.styles is not None and given.styles < 1:
        raise UsageError(f"--styles must be at least 1, got {given.styles}")
    if given.seed < 0:
        raise UsageError(f"--seed must be at least 0, got {given.seed}")
    alone = [flag for flag in ("use_encoded_image", "no_style") if given[flag]]
    for flag in alone:
        others = [f"--{other}" for other in STYLE_FLAGS if other != flag and given[other] not in (None, False, [])]
        if others:
            raise UsageError(f"--{flag} leaves no choice of style: it cannot go with {', '.join(others)}")


def _cluster_path(checkpoint: Checkpoint, config: HDTrainConfig, wanted: str | None) -> Path:
    folder = checkpoint.path.parent
    path = Path(wanted) if wanted is not None else cluster_file(folder, config.n_clusters)
    old = path.with_suffix(".npy")
    if path == old or (old.exists() and not path.exists()):
        raise ValueError(f"{old} is a file of the original project: torchp2p features convert makes an .npz file of it")
    if not path.exists():
        raise FileNotFoundError(
            f"the styles of this network are drawn from {path}, which does not exist: make it with torchp2p features "
            f"encode {folder} and torchp2p features cluster {folder}, or go without with --no_style"
        )
    return path


def _overrides(texts: list[str], clusters: Clusters, path: Path) -> dict[int, int]:
    """From ``ID=INDEX,...`` to what is known to be in the clusters."""
    chosen = {}
    for text in ",".join(texts).split(",") if texts else []:
        instance, equals, index = text.strip().partition("=")
        if not (equals and instance.isdecimal() and index.isdecimal()):
            raise UsageError(f"--override must be ID=INDEX, such as 26001=3, got {text!r}")
        try:
            clusters.centre(class_of_id(int(instance)), int(index))
        except ValueError as error:
            raise ValueError(f"--override {text.strip()}: {path}: {error}") from error
        chosen[int(instance)] = int(index)
    return chosen


def _zeros(n_features: int, batch: Mapping[str, Tensor]) -> Tensor:
    count, _, height, width = batch["label"].shape
    return torch.zeros(count, n_features, height, width, device=batch["label"].device)
