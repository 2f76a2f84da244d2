"""The label maps that a trained pix2pixHD is run on: those of a training, a phase of a folder, or a plain folder."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from torchp2p.cli.checkpoint import TEST_PHASES
from torchp2p.cli.parsing import UsageError
from torchp2p.data import LabelledDataset, LabelledFilesDataset, LabelledOptions, build_labelled_dataset
from torchp2p.data.labelled_files import find_label_maps
from torchp2p.train import HDTrainConfig

_UNCROPPED = {"crop": "none", "scale_width_and_crop": "scale_width"}


def labelled_data(config: HDTrainConfig, dataroot: str | None, phase: str, **changes: Any) -> LabelledDataset:
    """A phase of the data of a training, or of ``dataroot``, read as in the training, but whole.

    Where the training crops, nothing is cropped here, unless ``resize_or_crop`` says so; precomputed features are not
    read.

    Args:
        changes: options that differ from the training's, those that are None excepted.

    Raises:
        FileNotFoundError, ValueError: as ``build_labelled_dataset``.
    """
    return build_labelled_dataset(_options(config, dataroot, phase, changes))


def unseen_labels(
    config: HDTrainConfig, folder: str | None, *, phase: str | None, instances: str | None, **changes: Any
) -> LabelledDataset:
    """What to translate: the test (or val) phase of the training's data or of ``folder``; else its label maps.

    Args:
        phase: another phase.
        instances: the folder of the instance maps, where ``folder`` holds label maps alone.
        changes: as for ``labelled_data``.

    Raises:
        FileNotFoundError, ValueError: as ``build_labelled_dataset``.
        UsageError: there is no such phase, or instance maps are missing.
    """
    demo = config.dataset_mode == "demo" and folder is None
    root = Path(config.dataroot if folder is None else folder)
    if not demo and not root.is_dir():
        raise FileNotFoundError(f"the folder of label maps {root} does not exist")
    phases = [] if demo else phases_of(root, rgb=config.label_nc == 0)
    found = phase or ("test" if demo else next((each for each in TEST_PHASES if each in phases), None))
    if found is None and (folder is None or phases):
        held = f", it has {', '.join(phases)}: choose one with --phase" if phases else ""
        raise UsageError(f"{root} has no phase {' or '.join(TEST_PHASES)}{held or ': name the folder of label maps'}")
    if found is not None:
        if instances is not None:
            raise UsageError(f"--instances is for a plain folder of label maps, {root} has phases")
        return labelled_data(config, folder, found, **changes)
    if instances is None and not config.no_instance and not _has_cityscapes(root):
        raise UsageError(f"the generator sees instance maps too: name the folder of those of {root} with --instances")
    wanted = None if config.no_instance else Path(instances or root)
    files = find_label_maps(root, wanted, rgb=config.label_nc == 0)
    return LabelledFilesDataset(_options(config, folder, ".", changes), files)


def phases_of(root: Path, *, rgb: bool) -> list[str]:
    """The phases of a labelled dataset, in either layout; none where ``root`` holds no such dataset.

    Args:
        rgb: the labels are wanted as pictures.
    """
    suffix = "_A" if rgb else "_label"
    flat = {each.name.removesuffix(suffix) for each in root.glob(f"*{suffix}") if each.is_dir()}
    native = {each.name for each in root.glob("gtFine/*") if each.is_dir()}
    return sorted(flat | native)


def _has_cityscapes(root: Path) -> bool:
    return next(root.rglob("*_gtFine_instanceIds.*"), None) is not None


def _options(config: HDTrainConfig, dataroot: str | None, phase: str, changes: dict[str, Any]) -> LabelledOptions:
    told = {key: value for key, value in changes.items() if value is not None}
    values = config.as_dict() | told
    if "resize_or_crop" not in told:
        values["resize_or_crop"] = _UNCROPPED.get(config.resize_or_crop, config.resize_or_crop)
    if values["resize_or_crop"] == "resize_and_crop" and "crop_size" not in told:
        values["crop_size"] = values["load_size"]
    if dataroot is not None:
        values |= {"dataroot": dataroot, "dataset_mode": "labelled"}
    HDTrainConfig.from_mapping(values)  # for its sentences on options out of range
    # Nothing is rounded to a multiple: what does not fit the networks is padded, and the result cropped back.
    values |= {"phase": phase, "load_features": False, "size_multiple": 1, "cache_bytes": 0}
    return cast(LabelledOptions, SimpleNamespace(**values))
