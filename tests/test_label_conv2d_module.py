"""``LabelConv2d``: the place of an ``nn.Conv2d`` on one-hot labels, parameters and checkpoints included."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F

from torchp2p.nn import LabelConv2d


@pytest.fixture
def layer():
    return LabelConv2d(35, 8, 7, dense_channels=1, padding=3, padding_mode="reflect")


def scene():
    return torch.randint(0, 35, (2, 1, 10, 12), dtype=torch.uint8), torch.randn(2, 1, 10, 12)


def test_it_computes_what_the_convolution_that_it_replaces_computes(layer):
    conv = torch.nn.Conv2d(36, 8, 7, padding=3, padding_mode="reflect")
    conv.load_state_dict(layer.state_dict())
    labels, edges = scene()
    one_hot = F.one_hot(labels[:, 0].long(), 35).permute(0, 3, 1, 2).float()
    torch.testing.assert_close(layer(labels, edges), conv(torch.cat([one_hot, edges], 1)))


def test_state_dicts_go_to_and_from_the_convolution_that_it_replaces(layer):
    conv = torch.nn.Conv2d(36, 8, 7)
    layer.load_state_dict(conv.state_dict())
    assert list(layer.state_dict()) == list(conv.state_dict())
    assert torch.equal(layer.weight, conv.weight)


def test_it_starts_as_the_convolution_that_it_replaces_starts():
    torch.manual_seed(3)
    layer = LabelConv2d(35, 8, (4, 3), dense_channels=4, stride=2)
    torch.manual_seed(3)
    conv = torch.nn.Conv2d(39, 8, (4, 3), stride=2)
    assert torch.equal(layer.weight, conv.weight)
    assert torch.equal(layer.bias, conv.bias)


def test_it_learns(layer):
    labels, edges = scene()
    target = torch.randn(2, 8, 10, 12)
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.1)
    losses = []
    for _ in range(5):
        loss = (layer(labels, edges) - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies_compute_the_same(copied, layer):
    labels, edges = scene()
    assert torch.equal(copied(layer)(labels, edges), layer(labels, edges))


def test_its_repr_names_what_is_in_force(layer):
    expected = "LabelConv2d(35, 8, kernel_size=(7, 7), dense_channels=1, stride=1, padding=3, padding_mode=reflect)"
    assert repr(layer) == expected
    plain = LabelConv2d(3, 4, 3, bias=False, ignore_out_of_range=True)
    assert repr(plain).endswith("padding_mode=zeros, bias=False, ignore_out_of_range=True)")


def test_ids_out_of_range_are_refused_unless_ignored():
    labels = torch.full((1, 4, 4), 255, dtype=torch.uint8)
    with pytest.raises(ValueError, match="got 255"):
        LabelConv2d(3, 4, 3)(labels)
    layer = LabelConv2d(3, 4, 3, bias=False, ignore_out_of_range=True)
    assert not layer(labels).any()


def test_the_number_of_dense_channels_is_checked(layer):
    labels, edges = scene()
    with pytest.raises(ValueError, match="dense must have 1 channels, got 0"):
        layer(labels)
    with pytest.raises(ValueError, match="dense must have 1 channels, got 2"):
        layer(labels, edges.expand(2, 2, 10, 12))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"padding_mode": "circular"}, "padding_mode must be one of reflect, replicate, zeros, got 'circular'"),
        ({"label_nc": 0}, "label_nc must be at least 1, got 0"),
        ({"out_channels": 0}, "out_channels must be at least 1, got 0"),
        ({"dense_channels": -1}, "dense_channels must be at least 0, got -1"),
    ],
)
def test_a_bad_option_is_refused_by_the_constructor(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        LabelConv2d(**{"label_nc": 35, "out_channels": 8, "kernel_size": 3, **arguments})


def test_device_and_dtype_are_those_asked_for():
    layer = LabelConv2d(3, 4, 3, device="meta", dtype=torch.bfloat16)
    assert layer.weight.device.type == "meta"
    assert layer.bias.dtype == torch.bfloat16
    assert layer(torch.zeros(2, 1, 6, 6, dtype=torch.uint8, device="meta")).shape == (2, 4, 4, 4)
