"""A training of several stages as one command: what is done is skipped, what was stopped is resumed."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from torchp2p.data import LabelledFilesDataset, build_labelled_dataset
from torchp2p.edit import precompute_features
from torchp2p.models import encoder_from_weights, run_encoder
from torchp2p.train import HDTrainConfig, Outcome, RunConfig, train
from torchp2p.train.stages import Stage, is_done
from torchp2p.train.state import CheckpointError, has_state, run_folder


def train_stages(stages: Sequence[Stage], *, resume: bool, console: Console) -> Outcome:
    """Train one stage after the other, and make the features that a stage reads before it begins.

    Returns:
        How the last stage that ran ended.

    Raises:
        FileExistsError: a folder holds a training and ``resume`` was not asked for.
        What ``train`` raises.
    """
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


def _precompute(config: RunConfig, console: Console) -> None:
    """The feature maps that the encoder of a finished stage makes of its data."""
    assert isinstance(config, HDTrainConfig)
    dataset = build_labelled_dataset(config)
    if not isinstance(dataset, LabelledFilesDataset):
        raise CheckpointError("features are kept beside the files of a dataset, which the demo does not have")
    device = config.torch_device()
    encoder = encoder_from_weights(run_folder(config) / "latest_net_E.pth").to(device)
    with console.status("encoding the features of every image"):
        written = precompute_features(
            lambda image, ids: run_encoder(encoder, image, ids), dataset, label_feat=config.label_feat, device=device
        )
    _say(console, f"{len(written)} feature maps in {written[0].parent}")


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
