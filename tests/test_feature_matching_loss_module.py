"""``nn.FeatureMatchingLoss``: which features of a multiscale discriminator count, and how much (spec 4.3, 4.4)."""

from __future__ import annotations

import copy
import pickle
import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from torchp2p.nn import FeatureMatchingLoss
from torchp2p.ops import feature_matching_loss


def features(scales: int, layers: int = 5) -> list[list[Tensor]]:
    """[scale][layer], the last layer of every scale being the map."""
    return [[torch.randn(1, 2 + k, 9 - k, 8 - i) for k in range(layers)] for i in range(scales)]


def written_out(fake: list[list[Tensor]], real: list[list[Tensor]], lambda_feat: float) -> Tensor:
    """The formula of the spec, term by term."""
    num_D, n_layers_D = len(fake), len(fake[0]) - 2
    total = torch.zeros(())
    for k in range(num_D):
        for j in range(n_layers_D + 1):
            distance = F.l1_loss(fake[k][j], real[k][j].detach())
            total = total + lambda_feat * (1 / num_D) * (4 / (n_layers_D + 1)) * distance
    return total


@pytest.mark.parametrize("lambda_feat", [10.0, 2.5])
@pytest.mark.parametrize("layers", [2, 3, 5, 7])
@pytest.mark.parametrize("scales", [1, 2, 3])
def test_it_is_the_formula_of_pix2pixhd(scales, layers, lambda_feat):
    fake, real = features(scales, layers), features(scales, layers)
    found = FeatureMatchingLoss(lambda_feat)(fake, real)
    torch.testing.assert_close(found, written_out(fake, real, lambda_feat))


@pytest.mark.parametrize(("scales", "weight"), [(2, 5.0), (3, 10 / 3)])
def test_with_four_layers_each_weighs_ten_over_the_number_of_scales(scales, weight):
    fake, real = features(scales), features(scales)
    without_maps = [scale[:-1] for scale in fake], [scale[:-1] for scale in real]
    expected = feature_matching_loss(*without_maps, [weight] * (4 * scales))
    torch.testing.assert_close(FeatureMatchingLoss()(fake, real), expected)


def test_the_final_maps_count_for_nothing_and_get_no_gradient():
    fake, real = features(2), features(2)
    for scale in fake:
        for tensor in scale:
            tensor.requires_grad_()
    loss = FeatureMatchingLoss()(fake, real)
    loss.backward()
    assert [[tensor.grad is None for tensor in scale] for scale in fake] == [[False] * 4 + [True]] * 2
    real[0][-1] += 100
    assert torch.equal(FeatureMatchingLoss()(fake, real), loss)


def test_a_pair_of_tensors_is_compared_directly_as_in_pix2pix():
    fake, real = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(FeatureMatchingLoss(100.0)(fake, real), 100 * F.l1_loss(fake, real))


def test_tuples_are_as_good_as_lists():
    fake, real = features(2), features(2)
    as_tuples = [tuple(tuple(scale) for scale in lists) for lists in (fake, real)]
    assert torch.equal(FeatureMatchingLoss()(*as_tuples), FeatureMatchingLoss()(fake, real))


def test_a_discriminator_of_the_size_given_is_accepted():
    FeatureMatchingLoss(n_layers_D=3, num_D=2)(features(2), features(2))


@pytest.mark.parametrize(
    ("module", "fake", "real", "error", "sentence"),
    [
        (FeatureMatchingLoss(num_D=3), features(2), features(2), ValueError,
         "fake_features must be 3 scales (num_D) of 5 entries each (n_layers_D + 2: features, and the map of "
         "decisions last), got 2 scales of [5, 5] entries"),
        (FeatureMatchingLoss(n_layers_D=4), features(2), features(2), ValueError,
         "fake_features must be 2 scales (num_D) of 6 entries each"),
        (FeatureMatchingLoss(n_layers_D=3, num_D=2), features(2), features(3), ValueError,
         "real_features must be 2 scales (num_D) of 5 entries each"),
        (FeatureMatchingLoss(), [features(1)[0], features(1, 4)[0]], features(2), ValueError,
         "got 2 scales of [5, 4] entries"),
        (FeatureMatchingLoss(), features(2, 1), features(2, 1), ValueError, "got 2 scales of [1, 1] entries"),
        (FeatureMatchingLoss(), [], [], ValueError, "got 0 scales of [] entries"),
        (FeatureMatchingLoss(), features(2), features(3), ValueError,
         "real_features must be 2 scales of 5 entries like fake_features, got 3 of 5"),
        (FeatureMatchingLoss(), features(2), features(2, 4), ValueError,
         "real_features must be 2 scales of 5 entries like fake_features, got 2 of 4"),
        (FeatureMatchingLoss(), features(1)[0], features(1)[0], TypeError,
         "fake_features must be a Tensor, or a list of scales that are lists of layers"),
        (FeatureMatchingLoss(), None, None, TypeError, "fake_features must be a Tensor, or a list of scales"),
        (FeatureMatchingLoss(), torch.zeros(3), [[torch.zeros(3)]], TypeError, "real must be a Tensor, got list"),
    ],
)  # fmt: skip
def test_lists_that_no_such_discriminator_returns_are_refused(module, fake, real, error, sentence):
    with pytest.raises(error, match=re.escape(sentence)):
        module(fake, real)


def test_there_is_no_state():
    assert not FeatureMatchingLoss().state_dict()
    assert not list(FeatureMatchingLoss().parameters())


def test_copies_and_pickles_keep_the_options():
    loss = FeatureMatchingLoss(2.5, n_layers_D=3, num_D=2)
    for twin in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert repr(twin) == repr(loss) == "FeatureMatchingLoss(lambda_feat=2.5, n_layers_D=3, num_D=2)"
    assert repr(FeatureMatchingLoss()) == "FeatureMatchingLoss(lambda_feat=10.0)"
