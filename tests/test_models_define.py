"""Networks by the option names of the originals, and how their weights begin (spec sections 2.1, 10.2)."""

from __future__ import annotations

import math

import pytest
import torch
from network_testing import layout
from torch import nn

from torchp2p.models import (
    PatchDiscriminator,
    define_D,
    define_G,
    encoder_decoder,
    init_weights,
    resnet_6blocks,
    resnet_9blocks,
    unet_128,
    unet_256,
)
from torchp2p.models.unet import UnetLevel

GENERATORS = {
    "unet_128": unet_128,
    "unet_256": unet_256,
    "encoder_decoder": encoder_decoder,
    "resnet_6blocks": resnet_6blocks,
    "resnet_9blocks": resnet_9blocks,
}


@pytest.mark.parametrize("netG", GENERATORS)
def test_define_G_makes_each_kind_by_its_name(netG):
    net = define_G(netG, 3, 2, 2, "instance", use_dropout=False)
    assert layout(net) == layout(GENERATORS[netG](3, 2, 2, "instance", False))


def test_define_G_passes_the_variant_on():
    net = define_G("unet_128", 3, 3, 1, variant="paper")
    assert not any(module.skip_first for module in net.modules() if isinstance(module, UnetLevel))


def test_define_G_lists_its_choices():
    choices = "unet_128, unet_256, encoder_decoder, resnet_6blocks, resnet_9blocks"
    with pytest.raises(ValueError, match=f"netG must be one of {choices}, got 'unet'"):
        define_G("unet", 3, 3)


def test_define_G_refuses_a_variant_that_a_resnet_does_not_have():
    with pytest.raises(ValueError, match="variant must be 'pytorch' with netG 'resnet_6blocks', got 'paper'"):
        define_G("resnet_6blocks", 3, 3, variant="paper")


@pytest.mark.parametrize("make", [define_G, define_D])
def test_an_unknown_initialisation_is_named_with_the_choices(make):
    arguments = ("unet_128", 3, 3, 1) if make is define_G else ("basic", 6, 1)
    with pytest.raises(ValueError, match="init_type must be one of normal, xavier, kaiming, orthogonal, got 'he'"):
        make(*arguments, init_type="he")


def test_a_network_starts_as_the_paper_says():
    torch.manual_seed(0)
    net = PatchDiscriminator(6, 32)
    conv, norm = net.model.get_submodule("8").weight, net.model.get_submodule("9")
    assert conv.std().item() == pytest.approx(0.02, rel=0.02)
    assert conv.mean().item() == pytest.approx(0.0, abs=1e-3)
    assert norm.weight.mean().item() == pytest.approx(1.0, abs=0.01)
    assert norm.weight.std().item() == pytest.approx(0.02, rel=0.3)
    assert not norm.bias.any()
    assert not net.model.get_submodule("0").bias.any()


@pytest.mark.parametrize("conv", [nn.Conv2d(32, 64, 4), nn.ConvTranspose2d(64, 32, 4)])
@pytest.mark.parametrize(
    ("init_type", "expected"),
    [
        ("normal", 0.5),
        ("xavier", 0.5 * math.sqrt(2 / ((32 + 64) * 16))),
        ("kaiming", math.sqrt(2 / (32 * 16))),
    ],
)
def test_weights_spread_as_the_initialisation_says(conv, init_type, expected):
    torch.manual_seed(0)
    init_weights(conv, init_type, 0.5)
    assert conv.weight.std().item() == pytest.approx(expected, rel=0.02)
    assert not conv.bias.any()


def test_orthogonal_weights_have_orthogonal_rows_of_the_gain():
    conv = nn.Conv2d(8, 16, 4)
    init_weights(conv, "orthogonal", 0.5)
    rows = conv.weight.flatten(1)
    torch.testing.assert_close(rows @ rows.T, 0.25 * torch.eye(16))


def test_plain_batch_norms_are_initialised_too():
    norm = nn.BatchNorm2d(4000)
    init_weights(norm, init_gain=0.3)
    assert norm.weight.mean().item() == pytest.approx(1.0, abs=0.02)
    assert norm.weight.std().item() == pytest.approx(0.3, rel=0.05)


def test_a_batch_norm_without_weights_is_left_alone():
    init_weights(nn.BatchNorm2d(3, affine=False))
