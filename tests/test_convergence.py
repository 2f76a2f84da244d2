"""Thirty steps of training on our kernels follow thirty steps on the plain-PyTorch reference, loss by loss."""

from __future__ import annotations

import pytest
import torch

import torchp2p
from torchp2p.data import build_dataset
from torchp2p.train import TrainConfig, build_step

STEPS = 30
RUNS = {
    "unet-batch-vanilla": {"netG": "unet_128", "norm": "batch", "gan_mode": "vanilla", "ngf": 4},
    "unet-instance-lsgan": {"netG": "unet_128", "norm": "instance", "gan_mode": "lsgan", "ngf": 4},
    "resnet-batch-lsgan": {"netG": "resnet_6blocks", "norm": "batch", "gan_mode": "lsgan", "ngf": 2},
}

Curve = list[dict[str, float]]


def train(backend: str, options: dict[str, object], dtype: torch.dtype) -> Curve:
    """The losses of every step, from one seed, on three scenes of the demo."""
    config = TrainConfig(
        dataset_mode="demo", load_size=128, crop_size=128, max_dataset_size=3, ndf=4, netD="n_layers", n_layers_D=2,
        device="cpu", **options,
    )  # fmt: skip
    torch.set_num_threads(1)
    dataset = build_dataset(config)
    step = build_step(config)
    for net in (step.G, step.D):
        net.to(dtype)
    torch.manual_seed(1)  # of the dropout
    curve = []
    with torchp2p.backend(backend):
        for number in range(STEPS):
            sample = dataset[number % len(dataset)]
            losses = step({key: sample[key][None].to(dtype) for key in ("A", "B")})
            curve.append({name: loss.item() for name, loss in losses.items()})
    return curve


def largest_difference(ours: Curve, reference: Curve) -> float:
    """Over all steps and losses, as a share of the loss."""
    return max(
        abs(mine[name] - theirs[name]) / abs(theirs[name])
        for mine, theirs in zip(ours, reference, strict=True)
        for name in theirs
    )


@pytest.mark.parametrize("options", RUNS.values(), ids=RUNS.keys())
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-2)])
def test_the_loss_curves_of_native_and_reference_are_the_same(
    options: dict[str, object], dtype: torch.dtype, tolerance: float
) -> None:
    """In float64 to rounding; in float32 Adam's division makes the rounding of 1e-7 a difference of 1e-3."""
    reference, ours = (train(backend, options, dtype) for backend in ("reference", "native"))
    assert ours[0] != ours[-1]
    assert largest_difference(ours, reference) <= tolerance
    assert ours[-1]["G_L1"] < 0.9 * ours[0]["G_L1"], "nothing was learned"


def test_another_seed_gives_another_curve() -> None:
    """So that the test above cannot pass on curves that are the same whatever is computed."""
    options = RUNS["unet-batch-vanilla"]
    curves = [train("native", {**options, "seed": seed}, torch.float32) for seed in (0, 1)]
    assert largest_difference(*curves) > 0.05
