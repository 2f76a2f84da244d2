"""A training of several stages as one command: what is done is skipped, what was stopped is resumed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from itertools import pairwise

from rich.console import Console

from torchp2p.data import LabelledDataset, LabelledFilesDataset, build_labelled_dataset
from torchp2p.edit import precompute_features
from torchp2p.models import encoder_from_weights, run_encoder
from torchp2p.train import HDTrainConfig, Outcome, RunConfig, train
from torchp2p.train.stages import Stage, is_done
from torchp2p.train.state import has_state, run_folder


def train_stages(stages: Sequence[Stage], *, resume: bool, console: Console) -> Outcome:
    """Train one stage after the other, and make the features that a stage reads before it begins.

    Returns:
        How the last stage that ran ended.

    Raises:
        FileExistsError: a folder holds a training, or features, and ``resume`` was not asked for.
        What ``train`` raises; what a later stage would raise about its data, before the first begins.
    """
    for before, after in pairwise(stages):
        _check_ahead(before, after, resume)
    for number, stage in enumerate(stages):
        folder, last = run_folder(stage.config), number == len(stages) - 1
        if not resume and has_state(folder):
            raise FileExistsError(
                f"{folder} already holds a training: continue it with --resume, or choose another --name"
            )
        if resume and not last and is_done(stage.config):
            continue
        if len(stages) > 1:
            _say(console, f"stage {number + 1} of {len(stages)}: {stage.title}, in {folder}")
        begun = has_state(folder)
        if stage.features and not begun:
            _precompute(stages[number - 1].config, console)
        outcome = train(stage.config, resume=resume and (begun or len(stages) == 1), console=console)
        if outcome.stopped_by:
            return outcome
    return outcome


def _check_ahead(before: Stage, after: Stage, resume: bool) -> None:
    """Refuse what ``after`` could not be trained with, rather than when ``before`` has taken its days."""
    if has_state(run_folder(after.config)):
        return
    assert isinstance(after.config, HDTrainConfig)
    fine = build_labelled_dataset(dataclasses.replace(after.config, load_features=False))
    if not after.features:
        return
    coarse = _dataset_of(before.config)
    if not isinstance(fine, LabelledFilesDataset):
        raise ValueError("features are kept beside the files of a dataset, which the demo does not have")
    height, width = coarse.sizes(0)[1]
    if (2 * height, 2 * width) not in fine.sizes(0):
        raise ValueError(
            f"features are made at twice the size of the images of the stage before, {_shown((2 * height, 2 * width))} "
            f"(height x width), which must be that of the images, found {_shown(fine.sizes(0)[1])}"
        )
    made = [fine.feature_file(index) for index in range(len(fine)) if fine.feature_file(index).exists()]
    if made and not resume:
        raise FileExistsError(f"{made[0].parent} already holds features, which would be lost: move them out of the way")


def _precompute(config: RunConfig, console: Console) -> None:
    """The feature maps that the encoder of a finished stage makes of its data."""
    dataset = _dataset_of(config)
    assert isinstance(config, HDTrainConfig)
    assert isinstance(dataset, LabelledFilesDataset)
    device = config.torch_device()
    encoder = encoder_from_weights(run_folder(config) / "latest_net_E.pth").to(device)
    with console.status("encoding the features of every image"):
        written = precompute_features(
            partial(run_encoder, encoder), dataset, label_feat=config.label_feat, device=device
        )
    _say(console, f"{len(written)} feature maps in {written[0].parent}")


def _dataset_of(config: RunConfig) -> LabelledDataset:
    assert isinstance(config, HDTrainConfig)
    return build_labelled_dataset(config)


def _shown(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
