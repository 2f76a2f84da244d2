"""Images of any size through networks that need multiples (spec section 2.8)."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from torch import nn

from torchp2p.models import encoder_decoder, resnet_9blocks, run_padded, unet_128, unet_256
from torchp2p.models import padding as padding_module


class Recorder(nn.Module):
    """Keeps what it is given, and returns it doubled."""

    size_multiple = 16

    def forward(self, x):
        self.given = x
        return 2 * x


@pytest.mark.parametrize(
    ("make", "multiple"), [(unet_256, 256), (unet_128, 128), (encoder_decoder, 256), (resnet_9blocks, 4)]
)
def test_every_generator_says_which_sizes_it_takes(make, multiple):
    assert make(1, 1, 1).size_multiple == multiple


def test_a_size_that_fits_goes_to_the_network_untouched():
    net, x = Recorder(), torch.randn(1, 3, 32, 48)
    y = run_padded(net, x)
    assert net.given is x
    assert torch.equal(y, 2 * x)


@pytest.mark.parametrize("size", [(17, 31), (16, 33), (33, 16), (5, 3), (1, 1), (1, 40), (40, 1), (2, 100), (15, 17)])
def test_the_network_sees_the_image_mirrored_to_the_right_and_below_as_often_as_needed(size):
    net, x = Recorder(), torch.randn(2, 3, *size)
    y = run_padded(net, x)
    assert torch.equal(y, 2 * x)
    right, below = -size[1] % 16, -size[0] % 16
    mirrored = np.pad(x.numpy(), ((0, 0), (0, 0), (0, below), (0, right)), mode="reflect")
    assert np.array_equal(net.given.numpy(), mirrored)


def test_a_multiple_may_be_given_instead():
    net = Recorder()
    run_padded(net, torch.randn(1, 1, 10, 10), multiple=7)
    assert net.given.shape == (1, 1, 14, 14)


def test_a_unet_translates_an_odd_size_and_gradients_reach_the_image():
    x = torch.randn(1, 3, 100, 130, requires_grad=True)
    y = run_padded(unet_128(3, 2, 1), x)
    y.sum().backward()
    assert y.shape == (1, 2, 100, 130)
    assert x.grad.abs().sum() > 0


def test_what_was_done_is_logged_once_for_each_size(caplog, monkeypatch):
    monkeypatch.setattr(padding_module, "_told", set())
    with caplog.at_level(logging.INFO, logger="torchp2p"):
        for size in [(20, 20), (20, 20), (16, 16), (20, 24), (20, 20)]:
            run_padded(Recorder(), torch.zeros(1, 1, *size))
    assert [record.getMessage().split(" (")[0] for record in caplog.records] == [
        "image of 20x20 is padded by reflection to 32x32",
        "image of 20x24 is padded by reflection to 32x32",
    ]


def test_a_network_without_a_multiple_needs_one_given():
    with pytest.raises(TypeError, match="multiple must be given for a Conv2d, which has no size_multiple"):
        run_padded(nn.Conv2d(1, 1, 1), torch.zeros(1, 1, 8, 8))


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 3, 0, 8)])
def test_what_is_no_image_is_refused(shape):
    with pytest.raises(ValueError, match="with at least one pixel, got shape"):
        run_padded(Recorder(), torch.zeros(shape))


def test_a_multiple_below_one_is_refused():
    with pytest.raises(ValueError, match="multiple must be at least 1, got 0"):
        run_padded(Recorder(), torch.zeros(1, 1, 8, 8), multiple=0)


def test_a_network_that_changes_the_size_is_refused():
    with pytest.raises(ValueError, match="net must keep height and width, got 8x8 from 16x16"):
        run_padded(nn.AvgPool2d(2), torch.zeros(1, 1, 9, 9), multiple=16)
