"""One iteration of pix2pixHD against its transcription in plain PyTorch (spec sections 4.2, 4.4 to 4.6, 5.2, 5.4)."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
from pix2pixhd_case import LABELS, SIZE, Setting, draw_batch
from torch import Tensor

from benchmarks.plain.pix2pixhd import PlainVGG19
from torchp2p.train import ImagePool

STEPS = 3


def assert_agree(ours: Tensor, plain: Tensor, what: str, floor: float) -> None:
    """To 1e-9 of the largest value, or of ``floor`` where all values are smaller (biases that have no effect)."""
    error, scale = (ours - plain).abs().max().item(), max(plain.abs().max().item(), floor)
    assert error <= 1e-9 * scale, f"{what} is off by {error:.1e} where values reach {scale:.1e}"


def assert_same_losses(ours: dict[str, Tensor], plain: dict[str, Tensor], when: object) -> None:
    assert ours.keys() == plain.keys()
    for name, loss in ours.items():
        assert_agree(loss, plain[name], f"{name} of step {when}", floor=0.0)


def assert_same_networks(setting: Setting) -> None:
    for label, net in setting.ours.items():
        pairs = zip(net.state_dict().items(), setting.plain[label].state_dict().values(), strict=True)
        for (name, mine), theirs in pairs:
            assert_agree(mine.double(), theirs.double(), f"{label}.{name}", floor=0.02)


def compare_steps(setting: Setting, batches: list[dict[str, Tensor]] | None = None, **options: object) -> None:
    """Take STEPS steps both ways and compare every loss, and at the end every weight and running statistic."""
    step = setting.step(**options)
    optimizers = setting.plain_adam("G", "E"), setting.plain_adam("D")
    before = copy.deepcopy({label: net.state_dict() for label, net in setting.ours.items()})
    for number, batch in enumerate(batches or [draw_batch() for _ in range(STEPS)]):
        assert_same_losses(step(batch), setting.plain_step(*optimizers, batch, **options), number + 1)
    assert_same_networks(setting)
    for label, net in setting.ours.items():
        assert any(
            not torch.equal(old, new) for old, new in zip(before[label].values(), net.parameters(), strict=False)
        )


# --- equal to the specification -----------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("netG", ["global", "local1", "local2"])
def test_three_steps_equal_three_steps_of_the_plain_procedure(netG: str, norm: str) -> None:
    compare_steps(Setting(netG, norm))


@pytest.mark.parametrize("netG", ["global", "local1"])
@pytest.mark.parametrize("vgg", [False, True])
def test_with_features_E_is_trained_as_in_the_plain_procedure(netG: str, vgg: bool) -> None:
    compare_steps(Setting(netG, features=True, vgg=vgg))


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_the_vgg_loss_equals_the_plain_one(norm: str) -> None:
    compare_steps(Setting(norm=norm, vgg=True))


@pytest.mark.parametrize(("num_D", "n_layers_D"), [(1, 3), (2, 1), (3, 2)])
def test_any_number_of_scales_and_layers_equals_the_plain_procedure(num_D: int, n_layers_D: int) -> None:
    compare_steps(Setting(num_D=num_D, n_layers_D=n_layers_D))


@pytest.mark.parametrize("gan_mode", ["vanilla", "hinge"])
@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_the_other_gan_modes_equal_the_plain_procedure(gan_mode: str, norm: str) -> None:
    compare_steps(Setting(norm=norm), gan_mode=gan_mode)


def test_without_feature_matching_equals_the_plain_procedure() -> None:
    compare_steps(Setting(no_ganFeat_loss=True, vgg=True))


def test_without_instances_equals_the_plain_procedure() -> None:
    batches = [draw_batch() for _ in range(STEPS)]
    for batch in batches:
        del batch["inst"]
    compare_steps(Setting(condition_nc=LABELS), batches, no_instance=True)


@pytest.mark.parametrize("no_instance", [True, False])
def test_with_images_for_labels_equals_the_plain_procedure(no_instance: bool) -> None:
    batches = [draw_batch(label_nc=0) for _ in range(STEPS)]
    compare_steps(Setting(condition_nc=4 - no_instance), batches, label_nc=0, no_instance=no_instance)


def test_pooling_over_labels_equals_the_plain_procedure() -> None:
    compare_steps(Setting(features=True), label_feat=True)


def test_features_that_come_with_the_batch_equal_the_plain_procedure() -> None:
    setting = Setting(condition_nc=LABELS + 1, features=True)
    del setting.ours["E"], setting.plain["E"]
    compare_steps(setting, [draw_batch(feat=torch.rand(2, 2, *SIZE).double()) for _ in range(STEPS)])


def test_another_weight_of_the_features_equals_the_plain_procedure() -> None:
    compare_steps(Setting(vgg=True), lambda_feat=3.0)


def test_a_pool_shows_D_what_the_plain_procedure_shows_it() -> None:
    setting, pool = Setting(), ImagePool(3, seed=5)
    step = setting.step(pool_size=3, seed=5)
    optimizers = setting.plain_adam("G"), setting.plain_adam("D")
    shown = []

    def query(images: Tensor) -> Tensor:
        shown.append((images, pool.query(images)))
        return shown[-1][1]

    for number in range(5):
        batch = draw_batch()
        assert_same_losses(step(batch), setting.plain_step(*optimizers, batch, query), number + 1)
    assert any(not torch.equal(asked, got) for asked, got in shown)
    assert_same_networks(setting)


@pytest.mark.parametrize("features", [False, True])
@pytest.mark.parametrize("netG", ["local1", "local2"])
def test_the_frozen_phase_and_its_release_equal_the_plain_procedure(netG: str, features: bool) -> None:
    setting = Setting(netG, features=features)
    step = setting.step(fix_global=True)
    frozen = [parameter.clone() for parameter in setting.ours["G"].get_submodule("model").parameters()]
    optimizer_G = setting.plain_adam("G", "E", only=f"model{netG[-1]}_")
    optimizer_D = setting.plain_adam("D")
    for number in range(2):
        batch = draw_batch()
        assert_same_losses(step(batch), setting.plain_step(optimizer_G, optimizer_D, batch), number + 1)
    assert all(map(torch.equal, frozen, setting.ours["G"].get_submodule("model").parameters()))
    step.set_lr(1e-5)
    step.release_global()
    optimizer_G = setting.plain_adam("G", "E")
    for group in optimizer_D.param_groups:
        group["lr"] = 1e-5
    for number in range(2):
        batch = draw_batch()
        assert_same_losses(step(batch), setting.plain_step(optimizer_G, optimizer_D, batch), f"{number + 1}, released")
    assert_same_networks(setting)


def test_plain_modules_are_accepted() -> None:
    setting = Setting("local1", "batch", features=True)
    setting.ours = copy.deepcopy(setting.plain)
    compare_steps(setting)


def test_given_optimisers_are_used_and_see_the_halved_loss_of_D() -> None:
    setting = Setting()
    sgd = {
        label: [torch.optim.SGD(nets[label].parameters(), lr=1e-3) for nets in (setting.ours, setting.plain)]
        for label in "GD"
    }
    step = setting.step(optimizer_G=sgd["G"][0], optimizer_D=sgd["D"][0])
    for number in range(STEPS):
        batch = draw_batch()
        assert_same_losses(step(batch), setting.plain_step(sgd["G"][1], sgd["D"][1], batch), number + 1)
    assert_same_networks(setting)


# --- at full size -------------------------------------------------------------------------------------------

AT_FULL_SIZE = """
import resource, sys, torch
from torchp2p.models import LocalEnhancer, MultiscaleDiscriminator, VGG19Features
from torchp2p.train import Pix2PixHDStep

step = Pix2PixHDStep(LocalEnhancer(36, 3), MultiscaleDiscriminator(39, num_D=3), vgg=VGG19Features(sys.argv[1]))
ids = torch.arange(32 * 64).reshape(1, 1, 32, 64).repeat_interleave(32, 2).repeat_interleave(32, 3)
for _ in range(2):
    step({"label": (ids % 35).to(torch.uint8), "inst": ids, "image": torch.rand(1, 3, 1024, 2048) * 2 - 1})
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_step_at_2048_by_1024_stays_within_12_GiB(tmp_path) -> None:
    torch.save(PlainVGG19().state_dict(), tmp_path / "vgg19.pth")
    command = [sys.executable, "-c", AT_FULL_SIZE, str(tmp_path / "vgg19.pth")]
    peak = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert float(peak) < 12
