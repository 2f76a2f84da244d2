"""``torchp2p translate CHECKPOINT [FOLDER]``: needs no option repeated from training."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from torchp2p.cli.checkpoint import device_of, open_checkpoint, unseen_dataset
from torchp2p.cli.parsing import make_parser, parse
from torchp2p.data import check_dataset
from torchp2p.train.translate import translate


def run(arguments: list[str]) -> int:
    """Translate; prints where the gallery is."""
    parser = make_parser("translate", "Run a trained generator over a folder of images or pairs.")
    parser.add_argument("checkpoint", type=str, help="a run's folder, or a .pth file of weights")
    parser.add_argument("folder", type=str, nargs="?", help="images; the training's own test folder if left out")
    parser.add_argument("--single", type=bool, default=False, help="the folder holds input images alone, not pairs")
    parser.add_argument("--epoch", type=str, default="latest", help="which weights of the run")
    parser.add_argument("--phase", type=str, help="subfolder of the folder; test or val where there is one")
    parser.add_argument("--results_dir", type=str, default="results", help="where results are written")
    parser.add_argument("--direction", type=str, help="AtoB or BtoA; as in training if left out")
    parser.add_argument("--num_test", type=int, help="the first so many images")
    parser.add_argument("--eval", type=bool, default=False, help="running statistics and no dropout")
    parser.add_argument("--preprocess", type=str, help="other than in training; none keeps every size")
    parser.add_argument("--load_size", type=int, help="other than in training")
    parser.add_argument("--crop_size", type=int, help="other than in training")
    parser.add_argument("--seed", type=int, default=0, help="of dropout")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1, ...")
    given = parse(parser, arguments)
    checkpoint = open_checkpoint(given.checkpoint, given.epoch)
    dataset = unseen_dataset(
        checkpoint, given.folder, single=given.single, num_test=given.num_test, phase=given.phase,
        direction=given.direction, preprocess=given.preprocess, load_size=given.load_size, crop_size=given.crop_size,
    )  # fmt: skip
    check_dataset(dataset)
    console = Console()
    if given.folder and dataset.options.dataset_mode == "aligned":
        console.print("images are read as A|B side by side; --single reads input images alone", soft_wrap=True)
    mode = dataset.options.preprocess
    if mode not in ("none", "crop"):
        console.print(
            f"images are resized as in training (preprocess {mode}); --preprocess none keeps their size",
            highlight=False,
            soft_wrap=True,
        )
    phase = "images" if dataset.options.phase == "." else dataset.options.phase
    folder = Path(given.results_dir, checkpoint.config.name, f"{phase}_{checkpoint.label}")
    title = f"{checkpoint.config.name}, {phase}, epoch {checkpoint.label}"
    with Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("translate", total=None)
        page = translate(
            checkpoint.generator, dataset, folder, title=title, eval_mode=given.eval, seed=given.seed,
            device=device_of(given.device),
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )  # fmt: skip
    console.print(f"{len(dataset)} images; gallery: {page.resolve()}", highlight=False, markup=False, soft_wrap=True)
    return 0
