"""The Triton kernels of ``feature_matching_loss`` on lists of pairs that are cut into blocks and launches."""

from __future__ import annotations

import pytest
import torch
from feature_matching_case import assert_exact, random_pairs

from torchp2p.kernels import _lists
from torchp2p.kernels import feature_matching_loss as kernels
from torchp2p.reference import feature_matching_loss as reference

BLOCK = 16


@pytest.fixture(autouse=True)
def tiny_tiles(monkeypatch):
    monkeypatch.setattr(kernels, "_BLOCK", BLOCK)
    monkeypatch.setattr(_lists, "MOST", 2)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("sizes", [[1], [7], [BLOCK], [BLOCK + 1], [1, 3 * BLOCK], [2 * BLOCK, 9, BLOCK - 1]], ids=str)
def test_pairs_of_any_size_are_told_apart_by_blocks_and_launches(sizes, dtype, device):
    weights = [1.0, -1 / 3, 0.0][: len(sizes)]
    assert_exact(*random_pairs([(size,) for size in sizes], dtype, device), weights, "triton", grad=100.0)


@pytest.mark.parametrize("weight", [1 / 3, 1e-30, 2.0**40 + 1, 0.0, -1e10])
def test_weights_keep_more_than_the_digits_of_float32(weight, device):
    (fake,), (real,) = random_pairs([(20,)], torch.float64, device)
    found, _ = kernels.feature_matching_loss_with_signs([fake], [real], [weight], [False])
    exact = reference.feature_matching_loss([fake], [real], [weight])
    torch.testing.assert_close(found, exact, rtol=1e-13, atol=0)


def test_signs_take_two_bits_and_those_not_wanted_none(device):
    fake, real = random_pairs([(100,), (7,), (8,)], torch.float32, device)
    _, signs = kernels.feature_matching_loss_with_signs(fake, real, [1.0] * 3, [True, False, True])
    assert [kept.numel() for kept in signs] == [26, 0, 2]


def test_packed_signs_unpack_to_those_of_the_reference(device):
    fake, real = random_pairs([(100,), (3, 7)], torch.float32, device)
    sizes = [100.0, 21.0]  # with these weights the gradients are the bare signs
    _, signs = kernels.feature_matching_loss_with_signs(fake, real, sizes, [True, True])
    found = kernels.feature_matching_gradients(torch.ones((), device=device), fake, signs, sizes)
    for ours, sign in zip(found, reference.feature_matching_signs(fake, real), strict=True):
        assert torch.equal(ours, sign.float())
