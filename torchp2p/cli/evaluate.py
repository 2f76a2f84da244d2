"""``torchp2p evaluate CHECKPOINT [FOLDER]``: scores on unseen pairs, beside those of the mean image."""

from __future__ import annotations

from rich.console import Console
from torch import Tensor

from torchp2p.cli.checkpoint import device_of, open_checkpoint, unseen_dataset
from torchp2p.cli.parsing import UsageError, make_parser, parse
from torchp2p.data import build_dataset, check_dataset
from torchp2p.evaluate import mean_target, pixel_scores
from torchp2p.models import run_generator
from torchp2p.train.config import TrainConfig


def run(arguments: list[str]) -> int:
    """Evaluate; prints the scores."""
    parser = make_parser("evaluate", "Measure a trained generator on unseen pairs.")
    parser.add_argument("checkpoint", type=str, help="a run's folder, or a .pth file of weights")
    parser.add_argument("folder", type=str, nargs="?", help="pairs; the training's own test folder if left out")
    parser.add_argument("--epoch", type=str, default="latest", help="which weights of the run")
    parser.add_argument("--phase", type=str, help="subfolder of the folder; test or val where there is one")
    parser.add_argument("--direction", type=str, help="AtoB or BtoA; as in training if left out")
    parser.add_argument("--num_test", type=int, help="the first so many pairs")
    parser.add_argument("--eval", type=bool, default=False, help="running statistics and no dropout")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1, ...")
    given = parse(parser, arguments)
    checkpoint = open_checkpoint(given.checkpoint, given.epoch)
    config = checkpoint.config
    if not isinstance(config, TrainConfig):
        raise UsageError(f"evaluate scores the pairs of pix2pix, {checkpoint.path} is of pix2pixHD: see translate")
    dataset = unseen_dataset(
        config, given.folder, num_test=given.num_test, phase=given.phase, direction=given.direction
    )
    check_dataset(dataset)
    device = device_of(given.device)
    generator = checkpoint.generator.to(device)
    scores = pixel_scores(
        lambda A, index: run_generator(generator, A.to(device), eval_mode=given.eval, seed=index),
        dataset,
        _mean_training_target(config),
    )
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"unseen pairs        {scores.count}")
    console.print(f"L1                  {scores.l1:.4f}   (images in [-1, 1])")
    console.print(f"PSNR                {scores.psnr:.2f} dB")
    if scores.baseline_l1 == scores.baseline_l1:
        console.print(f"L1 of mean image    {scores.baseline_l1:.4f}   (predicting the mean training image)")
        console.print(f"ratio               {scores.ratio:.3f}")
    return 0


def _mean_training_target(config: TrainConfig) -> Tensor | None:
    """The mean training image, brought to size as the test does; None where the training's data are gone."""
    try:
        return mean_target(build_dataset(config).unaugmented())
    except (FileNotFoundError, ValueError):
        return None
