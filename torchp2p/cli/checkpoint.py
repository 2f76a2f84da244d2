"""From a path on the command line to a generator, what it was trained with, and data of the same kind."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import nn

from torchp2p.cli.bare_weights import pix2pixhd_config
from torchp2p.cli.parsing import UsageError
from torchp2p.data import DataOptions, PairedDataset, build_dataset
from torchp2p.models import (
    describe_state_dict,
    generator_from_config,
    generator_from_weights,
    hd_generator_from_config,
    load_config,
    load_state_dict_compatible,
    load_weights,
)
from torchp2p.models.define_hd import HD_GENERATORS
from torchp2p.train import HDTrainConfig, RunConfig, TrainConfig
from torchp2p.train.presets import stored_config

TEST_PHASES = ("test", "val")


@dataclass(frozen=True)
class Checkpoint:
    """A generator with what it was trained with.

    Attributes:
        generator: on the CPU, in training mode (batch statistics and dropout, as the originals test).
        config: of its training; for a bare file of the original project, defaults with what its tensors tell.
        path: of the weights.
        label: ``latest``, an epoch, or the file's stem.
    """

    generator: nn.Module
    config: RunConfig
    path: Path
    label: str

    def pix2pixHD(self, command: str) -> HDTrainConfig:
        """The configuration, for a command that is of use to pix2pixHD alone.

        Raises:
            UsageError: it is of another model.
        """
        if not isinstance(self.config, HDTrainConfig):
            raise UsageError(f"{command} is for pix2pixHD, {self.path} is of pix2pix")
        return self.config


def open_checkpoint(
    path: str, epoch: str = "latest", *, label_nc: int | None = None, no_instance: bool = False
) -> Checkpoint:
    """Open a run's folder (at ``epoch``) or a ``.pth`` file, of this package or of the original project.

    Args:
        label_nc, no_instance: of a bare pix2pixHD file, whose tensors may not tell.

    Raises:
        FileNotFoundError: there is no such checkpoint; a folder's message lists those it holds.
        ValueError: not a generator, or damaged.
        UsageError: the options of a bare file are missing, or some were given for a file that carries its own.
    """
    file = weights_file(path, epoch)
    label = file.name.removesuffix(".pth").removesuffix("_net_G")
    stored = load_config(file)
    if stored:
        if label_nc is not None or no_instance:
            raise UsageError(f"--label_nc and --no_instance are for files without options, {file} carries its own")
        config = stored_config(stored, device="auto")
        of_labels = isinstance(config, HDTrainConfig)
        generator: nn.Module = (hd_generator_from_config if of_labels else generator_from_config)(config.as_dict())
        load_state_dict_compatible(generator, load_weights(file))
        return Checkpoint(generator, config, file, label)
    generator = generator_from_weights(file)
    described = describe_state_dict(load_weights(file)) or {}
    name = file.parent.name.strip(".") or file.stem
    if described["netG"] in HD_GENERATORS:
        return Checkpoint(generator, pix2pixhd_config(file, name, described, label_nc, no_instance), file, label)
    told = {key: value for key, value in described.items() if key in TrainConfig.fields()}
    return Checkpoint(generator, TrainConfig.from_mapping({"name": name, **told}), file, label)


def weights_file(path: str, epoch: str, network: str = "G") -> Path:
    """The file of a network: in a run's folder that of ``epoch``, else ``path`` itself.

    Raises:
        FileNotFoundError: the folder does not hold it; the message lists those it holds.
    """
    folder = Path(path)
    if not folder.is_dir():
        return folder
    file = folder / f"{epoch}_net_{network}.pth"
    if not file.exists():
        what = {"G": "generator", "E": "encoder"}[network]
        held = sorted(each.name.removesuffix(f"_net_{network}.pth") for each in folder.glob(f"*_net_{network}.pth"))
        raise FileNotFoundError(f"{path} holds no {what} of epoch {epoch!r}; it has: {', '.join(held) or 'none'}")
    return file


def unseen_dataset(
    config: TrainConfig, dataroot: str | None, *, single: bool = False, num_test: int | None, **changes: Any
) -> PairedDataset:
    """Data like those of the training, from its test (or val) folder or from ``dataroot`` itself.

    Args:
        dataroot: a folder; None for the training's own.
        single: the folder holds input images alone; a colorization makes its pairs of such in any case.
        num_test: the first so many samples; None for all.
        changes: options that differ from the training's, those that are None excepted.

    Raises:
        FileNotFoundError, ValueError: as ``build_dataset``.
        UsageError: no folder was given and the training's has no test images, or ``num_test`` is below 1.
    """
    if num_test is not None and num_test < 1:
        raise UsageError(f"--num_test must be at least 1, got {num_test}")
    options: dict[str, Any] = {key: value for key, value in changes.items() if value is not None}
    if config.dataset_mode == "demo" and dataroot is None:
        return build_dataset(dataclasses.replace(config, **{"phase": "test", "max_dataset_size": num_test, **options}))
    root = Path(dataroot if dataroot is not None else config.dataroot)
    if not root.is_dir():
        raise FileNotFoundError(f"the folder of images {root} does not exist")
    options |= {"dataroot": str(root), "max_dataset_size": num_test}
    if "phase" not in options:
        found = [phase for phase in TEST_PHASES if _has_phase(root, phase)]
        if not found and dataroot is None:
            raise UsageError(f"{root} has no folder {' or '.join(TEST_PHASES)}: name the folder of images")
        options["phase"] = found[0] if found else "."
    mode = "aligned" if config.dataset_mode == "demo" else config.dataset_mode
    if single and mode != "colorization":
        mode = "single"
    # A namespace, because "single" is no mode to train with, so no TrainConfig can hold it.
    values = {**dataclasses.replace(config, **options).as_dict(), "dataset_mode": mode}
    try:
        return build_dataset(cast(DataOptions, SimpleNamespace(**values)))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error} (input images alone are read with translate --single)") from error


def _has_phase(root: Path, phase: str) -> bool:
    """In any layout that the datasets read."""
    return any(folder.is_dir() for folder in (root / phase, root / f"{phase}A", root / "A" / phase))


def device_of(name: str) -> torch.device:
    """The device of a ``--device`` flag.

    Raises:
        ConfigError: there is none of that name.
    """
    return dataclasses.replace(TrainConfig(), device=name).torch_device()
