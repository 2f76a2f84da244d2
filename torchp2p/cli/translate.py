"""``torchp2p translate CHECKPOINT [FOLDER]``: needs no option repeated from training."""

from __future__ import annotations

from pathlib import Path

import torch
from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from torchp2p.cli.checkpoint import Checkpoint, device_of, open_checkpoint, unseen_dataset
from torchp2p.cli.label_maps import unseen_labels
from torchp2p.cli.parsing import UsageError, make_parser, parse
from torchp2p.cli.progress import progress_bar
from torchp2p.cli.styles import styles_of
from torchp2p.data import LabelledDataset, check_dataset
from torchp2p.train import HDTrainConfig, TrainConfig
from torchp2p.train.translate import translate, translate_labels


def run(arguments: list[str]) -> int:
    """Translate; prints where the gallery is."""
    parser, of_model = _parser()
    given = parse(parser, arguments)
    checkpoint = open_checkpoint(given.checkpoint, given.epoch, label_nc=given.label_nc, no_instance=given.no_instance)
    model = "pix2pixHD" if isinstance(checkpoint.config, HDTrainConfig) else "pix2pix"
    told = parse(parser, arguments, defaults=False)
    for other, flags in of_model.items():
        for flag in flags:
            if other != model and flag in told:
                raise UsageError(f"--{flag} is for {other}, {checkpoint.path} is of {model}")
    translate_with = _translate_labels if model == "pix2pixHD" else _translate_pairs
    translate_with(checkpoint, given, device_of(given.device), Console(highlight=False, markup=False, soft_wrap=True))
    return 0


def _parser() -> tuple[ArgumentParser, dict[str, list[str]]]:
    """And the flags that are of one model alone."""
    parser = make_parser("translate", "Run a trained generator over a folder of images, pairs or label maps.")
    parser.add_argument("checkpoint", type=str, help="a run's folder, or a .pth file of weights")
    parser.add_argument("folder", type=str, nargs="?", help="of images; the training's own test folder if left out")
    parser.add_argument("--epoch", type=str, default="latest", help="which weights of the run")
    parser.add_argument("--phase", type=str, help="subfolder of the folder; test or val where there is one")
    parser.add_argument("--results_dir", type=str, default="results", help="where results are written")
    parser.add_argument("--num_test", type=int, help="the first so many images")
    parser.add_argument("--load_size", type=int, help="other than in training")
    parser.add_argument("--crop_size", type=int, help="other than in training")
    parser.add_argument("--seed", type=int, default=0, help="of dropout, or of the styles that are drawn")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1, ...")
    groups = {model: parser.add_argument_group(f"{model} alone") for model in ("pix2pix", "pix2pixHD")}
    pairs, labels = groups.values()
    pairs.add_argument("--single", type=bool, default=False, help="the folder holds input images alone, not pairs")
    pairs.add_argument("--direction", type=str, help="AtoB or BtoA; as in training if left out")
    pairs.add_argument("--eval", type=bool, default=False, help="running statistics and no dropout")
    pairs.add_argument("--preprocess", type=str, help="other than in training; none keeps every size")
    labels.add_argument("--resize_or_crop", type=str, help="other than in training; none keeps every size")
    labels.add_argument("--instances", type=str, help="folder of instance maps, beside a plain folder of label maps")
    labels.add_argument("--unknown_label", type=str, help="other than in training: error, last or ignore")
    labels.add_argument("--styles", type=int, help="so many pictures of each label map, of seeds that follow --seed")
    labels.add_argument("--cluster_path", type=str, help="styles to draw from; those in the run's folder if left out")
    labels.add_argument("--override", type=str, action="append", help="ID=INDEX,...: the cluster of an instance")
    labels.add_argument("--use_encoded_image", type=bool, default=False, help="take the style of the real image")
    labels.add_argument("--no_style", type=bool, default=False, help="features of zeros")
    labels.add_argument("--label_nc", type=int, help="label classes, for a .pth file whose tensors do not tell")
    labels.add_argument("--no_instance", type=bool, default=False, help="trained without instances, for such a file")
    return parser, {model: [action.dest for action in group._group_actions] for model, group in groups.items()}


def _translate_pairs(checkpoint: Checkpoint, given: Namespace, device: torch.device, console: Console) -> None:
    config = checkpoint.config
    assert isinstance(config, TrainConfig)
    dataset = unseen_dataset(
        config, given.folder, single=given.single, num_test=given.num_test, phase=given.phase,
        direction=given.direction, preprocess=given.preprocess, load_size=given.load_size, crop_size=given.crop_size,
    )  # fmt: skip
    check_dataset(dataset)
    if given.folder and dataset.options.dataset_mode == "aligned":
        console.print("images are read as A|B side by side; --single reads input images alone")
    mode = dataset.options.preprocess
    if mode not in ("none", "crop"):
        console.print(f"images are resized as in training (preprocess {mode}); --preprocess none keeps their size")
    folder, title = _place(checkpoint, given, dataset.options.phase, "images")
    with progress_bar(console, "translate") as progress:
        page = translate(
            checkpoint.generator, dataset, folder, title=title, eval_mode=given.eval, seed=given.seed, device=device,
            progress=progress,
        )  # fmt: skip
    console.print(f"{len(dataset)} images; gallery: {page.resolve()}")


def _translate_labels(checkpoint: Checkpoint, given: Namespace, device: torch.device, console: Console) -> None:
    config = checkpoint.config
    assert isinstance(config, HDTrainConfig)
    if given.num_test is not None and given.num_test < 1:
        raise UsageError(f"--num_test must be at least 1, got {given.num_test}")
    dataset = unseen_labels(
        config, given.folder, phase=given.phase, instances=given.instances, max_dataset_size=given.num_test,
        resize_or_crop=given.resize_or_crop, load_size=given.load_size, crop_size=given.crop_size,
        unknown_label=given.unknown_label,
    )  # fmt: skip
    styles, unmet = styles_of(checkpoint, config, given, device)
    check_dataset(dataset)
    _require_images(dataset, given.use_encoded_image)
    mode = dataset.options.resize_or_crop
    if mode not in ("none", "crop"):
        console.print(
            f"label maps are resized ({mode}, load_size {dataset.options.load_size}); "
            "--resize_or_crop none keeps their size"
        )
    folder, title = _place(checkpoint, given, dataset.options.phase, "labels")
    with progress_bar(console, "translate") as progress:
        page = translate_labels(
            checkpoint.generator, dataset, folder, styles, title=title, device=device, progress=progress
        )
    if unmet:
        console.print(f"--override: no label map has {', '.join(map(str, sorted(unmet)))}")
    console.print(f"{len(dataset)} label maps; gallery: {page.resolve()}")


def _require_images(dataset: LabelledDataset, wanted: bool) -> None:
    if wanted and "image" not in dataset.sample(0, 0):
        raise UsageError(
            f"--use_encoded_image needs the real images, which {dataset.options.dataroot} does not have for its label "
            "maps"
        )


def _place(checkpoint: Checkpoint, given: Namespace, phase: str, of_a_plain_folder: str) -> tuple[Path, str]:
    """The folder of the results and the title of their page."""
    phase = of_a_plain_folder if phase == "." else phase
    name = checkpoint.config.name
    return Path(given.results_dir, name, f"{phase}_{checkpoint.label}"), f"{name}, {phase}, epoch {checkpoint.label}"
