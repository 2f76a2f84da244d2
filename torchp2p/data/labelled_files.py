"""Which files make up a sample of a labelled dataset: the folders of pix2pixHD or of Cityscapes (spec 6.3)."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from torchp2p.data.pairs import files_by_name, files_with_suffix, find_images, unpaired

_SUFFIXES = {
    "label": "_gtFine_labelIds",
    "inst": "_gtFine_instanceIds",
    "image": "_leftImg8bit",
    "feat": "_gtFine_labelIds",
}
"""What Cityscapes puts behind the name of a frame. Features go by the name of the label file."""

_COLOURS = "_gtFine_color"
"""The suffix of the label where it is wanted as RGB."""

_WITHOUT = {"inst": "no_instance true", "feat": "load_features false"}


class LabelledFiles(NamedTuple):
    """The files of one sample.

    Attributes:
        name: shared by all: the path below the folder, without suffix and extension.
        paths: by part: label and, where wanted or there, inst, image and feat.
        feature: where the precomputed features of the sample belong, there or not.
    """

    name: str
    paths: dict[str, Path]
    feature: Path


def find_labelled_files(
    dataroot: Path, phase: str, *, rgb: bool, instances: bool, features: bool
) -> list[LabelledFiles]:
    """Find and match the files of a phase, sorted by name.

    Two layouts: ``<phase>_label`` (``<phase>_A`` for RGB input), ``<phase>_img`` (``<phase>_B``) and
    ``<phase>_inst``, where the suffixes of Cityscapes may be there or not; or ``gtFine/<phase>/<city>`` and
    ``leftImg8bit/<phase>/<city>``. In both, features are in ``<phase>_feat``. Phases other than train may lack
    the folder of images.

    Raises:
        FileNotFoundError: neither layout is there, or a folder is missing.
        ValueError: both are there; a folder holds nothing usable, two files have one name, or files have no
            partner (they are listed).
    """
    native = _is_native(dataroot, phase, rgb)
    folders = _folders(dataroot, phase, native, rgb)
    wanted = ["label", *(["inst"] if instances else []), *(["feat"] if features else [])]
    if phase == "train" or folders["image"].is_dir():
        wanted.append("image")
    found = {part: _find(folders[part], part, native, rgb) for part in wanted}
    return _matched(folders, found)


def find_label_maps(labels: Path, instances: Path | None, *, rgb: bool) -> list[LabelledFiles]:
    """Find and match label maps, and instance maps, that are in no dataset but in any folders, or in the same.

    Where a folder has names with the suffix of Cityscapes, those alone count.

    Raises:
        FileNotFoundError: a folder is missing.
        ValueError: as ``find_labelled_files``.
    """
    folders = {"label": labels, "feat": labels.with_name(f"{labels.name}_feat")}
    if instances is not None:
        folders["inst"] = instances
    found = {}
    for part in folders.keys() - {"feat"}:
        suffix = _COLOURS if rgb and part == "label" else _SUFFIXES[part]
        suffixed = any(path.stem.endswith(suffix) for path in find_images(folders[part]))
        found[part] = files_with_suffix(folders[part], suffix if suffixed else "")
    return _matched(folders, found)


def _matched(folders: dict[str, Path], found: dict[str, dict[str, Path]]) -> list[LabelledFiles]:
    _check_partners(folders, found)
    return [
        LabelledFiles(
            name,
            {part: files[name] for part, files in found.items()},
            folders["feat"] / label.relative_to(folders["label"]).with_suffix(".png"),
        )
        for name, label in sorted(found["label"].items())
    ]


def _is_native(dataroot: Path, phase: str, rgb: bool) -> bool:
    layouts = [_folders(dataroot, phase, native, rgb)["label"] for native in (False, True)]
    found = [folder.is_dir() for folder in layouts]
    if not any(found):
        raise FileNotFoundError(f"a labelled dataset is in {layouts[0]} or {layouts[1]}; neither folder exists")
    if all(found):
        raise ValueError(f"a labelled dataset is either in {layouts[0]} or in {layouts[1]}; both exist")
    return found[1]


def _folders(dataroot: Path, phase: str, native: bool, rgb: bool) -> dict[str, Path]:
    features = dataroot / f"{phase}_feat"
    if native:
        fine = dataroot / "gtFine" / phase
        return {"label": fine, "inst": fine, "image": dataroot / "leftImg8bit" / phase, "feat": features}
    label, image = ("A", "B") if rgb else ("label", "img")
    return {
        "label": dataroot / f"{phase}_{label}",
        "inst": dataroot / f"{phase}_inst",
        "image": dataroot / f"{phase}_{image}",
        "feat": features,
    }


def _find(folder: Path, part: str, native: bool, rgb: bool) -> dict[str, Path]:
    if part in _WITHOUT and not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}; {_WITHOUT[part]} does without it")
    suffix = _COLOURS if rgb and part in ("label", "feat") else _SUFFIXES[part]
    if native:
        return files_with_suffix(folder, suffix)
    return files_by_name(folder, lambda name: name.removesuffix(suffix))


def _check_partners(folders: dict[str, Path], found: dict[str, dict[str, Path]]) -> None:
    sides = [side for part in found if part != "label" for side in (("label", part), (part, "label"))]
    sentences = []
    for one, other in sides:
        alone = sorted(found[one].keys() - found[other].keys())
        if alone:
            sentences.append(unpaired(f"{folders[one]} ({one} without {other})", alone))
    if sentences:
        raise ValueError("; ".join(sentences))
