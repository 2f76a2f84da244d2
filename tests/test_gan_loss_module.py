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
