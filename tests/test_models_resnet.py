"""The ResNet generators (spec section 2.4)."""

from __future__ import annotations

import pytest
import torch
from network_testing import assert_same_function, layout, parameter_count

from benchmarks.plain.pix2pix import NORMS, PlainResnet
from torchp2p.models import resnet_6blocks, resnet_9blocks
from torchp2p.models.layers import ResidualBlock
from torchp2p.models.resnet import ResnetGenerator

PADDING_TYPES = ("reflect", "replicate", "zero")


@pytest.mark.parametrize(
    ("make", "norm", "parameters"),
    [
        (resnet_9blocks, "instance", 11_378_179),
        (resnet_9blocks, "batch", 11_383_427),
        (resnet_6blocks, "instance", 7_837_699),
        (resnet_6blocks, "batch", 7_841_411),
    ],
)
def test_a_resnet_has_the_published_parameters(make, norm, parameters):
    with torch.device("meta"):
        assert parameter_count(make(3, 3, norm=norm)) == parameters


@pytest.mark.parametrize("padding_type", PADDING_TYPES)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("use_dropout", [False, True])
@pytest.mark.parametrize(("make", "n_blocks"), [(resnet_6blocks, 6), (resnet_9blocks, 9)])
def test_keys_shapes_and_their_order_are_the_originals(make, n_blocks, norm, use_dropout, padding_type):
    ours = make(3, 2, 2, norm, use_dropout, padding_type)
    assert layout(ours) == layout(PlainResnet(3, 2, 2, norm, n_blocks, padding_type, use_dropout))


@pytest.mark.parametrize(
    ("padding_type", "use_dropout", "convs"),
    [
        ("reflect", False, ["1", "5"]),
        ("reflect", True, ["1", "6"]),
        ("replicate", True, ["1", "6"]),
        ("zero", False, ["0", "3"]),
        ("zero", True, ["0", "4"]),
    ],
)
def test_dropout_and_zero_padding_shift_the_convolutions_of_a_block(padding_type, use_dropout, convs):
    block = ResidualBlock(2, norm="none", padding_type=padding_type, use_dropout=use_dropout, bias=False)
    assert list(block.state_dict()) == [f"conv_block.{index}.weight" for index in convs]


@pytest.mark.parametrize(("make", "indices"), [(resnet_6blocks, (16, 19, 23)), (resnet_9blocks, (19, 22, 26))])
def test_the_last_convolutions_stand_at_the_published_indices(make, indices):
    entries = dict(layout(make(3, 5, 2)))
    up_1, up_2, last = (entries[f"model.{index}.weight"] for index in indices)
    assert (up_1, up_2, last) == ((8, 4, 3, 3), (4, 2, 3, 3), (5, 2, 7, 7))


@pytest.mark.parametrize("padding_type", PADDING_TYPES)
@pytest.mark.parametrize("use_dropout", [False, True])
@pytest.mark.parametrize("norm", NORMS)
def test_a_resnet_computes_what_the_plain_layers_compute(norm, use_dropout, padding_type):
    ours = ResnetGenerator(3, 2, 2, norm, use_dropout, 2, padding_type).double()
    theirs = PlainResnet(3, 2, 2, norm, 2, padding_type, use_dropout).double()
    assert_same_function(ours, theirs, torch.randn(2, 3, 16, 20, dtype=torch.float64))


@pytest.mark.parametrize("use_dropout", [False, True])
def test_in_eval_mode_a_resnet_uses_running_statistics_and_no_dropout(use_dropout):
    ours = resnet_6blocks(3, 2, 2, use_dropout=use_dropout).double().eval()
    theirs = PlainResnet(3, 2, 2, "batch", 6, dropout=use_dropout).double().eval()
    assert_same_function(ours, theirs, torch.randn(1, 3, 16, 16, dtype=torch.float64))


def test_nothing_rectifies_the_sum_of_a_residual_block():
    block = ResidualBlock(2, norm="instance", bias=True)
    x = -10 * torch.ones(1, 2, 4, 4)
    assert block(x).max() < 0


@pytest.mark.parametrize("size", [(64, 64), (16, 28)])
def test_a_resnet_keeps_sizes_that_are_multiples_of_four(size):
    net = resnet_6blocks(1, 4, 1)
    y = net(torch.randn(2, 1, *size))
    assert y.shape == (2, 4, *size)
    assert y.abs().max() <= 1
    assert net.size_multiple == 4


def test_other_sizes_are_rounded_up_to_a_multiple_of_four():
    assert resnet_6blocks(3, 3, 1)(torch.randn(1, 3, 17, 30)).shape == (1, 3, 20, 32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "layer"}, "norm must be one of batch, instance, none, got 'layer'"),
        ({"padding_type": "zeros"}, "padding_type must be one of reflect, replicate, zero, got 'zeros'"),
        ({"output_nc": -1}, "output_nc must be a positive int, got -1"),
    ],
)
def test_a_bad_option_is_named_with_what_was_expected(options, message):
    with pytest.raises(ValueError, match=message):
        resnet_6blocks(**{"input_nc": 3, "output_nc": 3, **options})
