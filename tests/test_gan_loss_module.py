"""``nn.GANLoss``: the loss of both original projects, without target tensors."""

from __future__ import annotations

import copy
import pickle
import re

import pytest
import torch
import torch.nn.functional as F

from torchp2p.nn import GANLoss
from torchp2p.ops import gan_loss


@pytest.mark.parametrize("mode", ["vanilla", "lsgan", "hinge", "wgan"])
@pytest.mark.parametrize("real", [True, False])
def test_the_module_is_the_op(mode, real, device):
    maps = [[torch.randn(1, 1, 4, 5, device=device), torch.randn(1, 1, 3, 3, device=device)] for _ in range(2)]
    assert torch.equal(GANLoss(mode)(maps, real), gan_loss(maps, real, mode))


def test_least_squares_is_the_default(device):
    p = torch.randn(1, 1, 4, 5, device=device)
    torch.testing.assert_close(GANLoss()(p, True), F.mse_loss(p, torch.ones_like(p)))


def test_wgangp_is_wgan_whose_penalty_is_a_term_of_its_own(device):
    p = torch.randn(1, 1, 4, 5, device=device)
    assert torch.equal(GANLoss("wgangp")(p, True), gan_loss(p, True, "wgan"))


def test_the_generator_of_hinge_has_a_loss_of_its_own(device):
    p = torch.randn(1, 1, 4, 5, device=device)
    torch.testing.assert_close(GANLoss("hinge")(p, True, for_discriminator=False), -p.mean())


def test_there_is_no_state():
    assert not GANLoss().state_dict()
    assert not list(GANLoss().parameters())


def test_copies_and_pickles_keep_the_mode():
    loss = GANLoss("vanilla")
    for twin in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert repr(twin) == repr(loss) == "GANLoss(gan_mode=vanilla)"


def test_an_unknown_mode_is_refused_when_the_module_is_made():
    sentence = "gan_mode must be one of vanilla, lsgan, hinge, wgan, wgangp, got 'least squares'"
    with pytest.raises(ValueError, match=re.escape(sentence)):
        GANLoss("least squares")


# --- what the original projects' GANLoss accept ----------------------------------------------------------


@pytest.mark.parametrize("real", [True, False])
@pytest.mark.parametrize(("mode", "plain"), [("lsgan", F.mse_loss), ("vanilla", F.binary_cross_entropy_with_logits)])
def test_labels_may_be_smoothed(mode, plain, real, device):
    p = torch.randn(2, 1, 4, 5, device=device, dtype=torch.float64, requires_grad=True)
    loss = GANLoss(mode, target_real_label=0.9, target_fake_label=0.2)(p, real)
    theirs = plain(p, torch.full_like(p, 0.9 if real else 0.2))
    torch.testing.assert_close(loss, theirs)
    torch.testing.assert_close(torch.autograd.grad(loss, p), torch.autograd.grad(theirs, p))


def test_smoothed_labels_count_once_for_every_scale(device):
    maps = [torch.randn(1, 1, 4, 5, device=device, dtype=torch.float64) for _ in range(3)]
    loss = GANLoss("lsgan", 0.9)([[p] for p in maps], True)
    torch.testing.assert_close(loss, sum(F.mse_loss(p, torch.full_like(p, 0.9)) for p in maps))


def test_wgangp_has_no_labels(device):
    p = torch.randn(1, 1, 4, 5, device=device)
    assert torch.equal(GANLoss("wgangp", 0.9, 0.1)(p, False), gan_loss(p, False, "wgan"))


@pytest.mark.parametrize("use_lsgan", [True, False])
def test_the_arguments_of_pix2pixhd_are_accepted(use_lsgan, device):
    mode = "lsgan" if use_lsgan else "vanilla"
    scales = [[torch.randn(1, 1, 4, 5, device=device)] for _ in range(2)]
    for loss in (GANLoss(use_lsgan=use_lsgan, tensor=torch.FloatTensor), GANLoss(use_lsgan, 1.0, 0.0, torch.Tensor)):
        assert loss.gan_mode == mode
        assert torch.equal(loss(scales, True), gan_loss(scales, True, mode))


def test_a_flat_list_is_the_features_of_one_discriminator_in_pix2pixhd_and_else_its_scales(device):
    maps = [torch.randn(1, 1, 4, 5, device=device) for _ in range(3)]
    assert torch.equal(GANLoss(use_lsgan=True)(maps, True), gan_loss(maps[-1], True))
    assert torch.equal(GANLoss("lsgan")(maps, True), gan_loss(maps, True))


def test_it_moves_like_a_module():
    assert GANLoss("vanilla").to(torch.float64).gan_mode == "vanilla"


def test_labels_are_shown_where_they_are_not_one_and_zero():
    assert repr(GANLoss("lsgan", 0.9)) == "GANLoss(gan_mode=lsgan, labels=(0.9, 0.0))"


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        (("hinge", 0.9), ValueError, "hinge has no labels to change, got 0.9 and 0.0"),
        (("lsgan", "1"), TypeError, "target_real_label must be a number, got str"),
    ],
)
def test_labels_that_mean_nothing_are_refused(arguments, error, sentence):
    with pytest.raises(error, match=re.escape(sentence)):
        GANLoss(*arguments)
