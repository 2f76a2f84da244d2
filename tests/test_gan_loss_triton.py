"""The Triton kernel of ``gan_loss`` on lists of maps that are cut into blocks and launches."""

from __future__ import annotations

import pytest
import torch
from gan_loss_case import ONE_OF_EACH_MODE, exact, maps_of, with_gradients

from torchp2p.kernels import _lists
from torchp2p.kernels import gan_loss as kernels

BLOCK = 16


@pytest.fixture(autouse=True)
def tiny_tiles(monkeypatch):
    monkeypatch.setattr(kernels, "_BLOCK", BLOCK)
    monkeypatch.setattr(_lists, "MOST", 2)


@pytest.mark.parametrize("loss", ONE_OF_EACH_MODE, ids=str)
@pytest.mark.parametrize(
    "sizes", [[1], [BLOCK], [BLOCK + 1], [1, 3 * BLOCK], [2 * BLOCK, 1, BLOCK - 1], [5, 6, 7, 8, 40]], ids=str
)
def test_maps_of_any_size_are_told_apart_by_blocks_and_launches(sizes, loss, device):
    maps = maps_of(torch.float32, device, [(size,) for size in sizes])
    value, grads = with_gradients(lambda leaves: loss(leaves, "triton"), maps)
    exact_value, exact_grads = exact(loss, maps)
    torch.testing.assert_close(value.double(), exact_value, rtol=1e-6, atol=1e-6)
    for found, wanted in zip(grads, exact_grads, strict=True):
        torch.testing.assert_close(found.double(), wanted, rtol=1e-6, atol=0)


def test_a_map_is_read_and_its_slopes_are_written_once(device):
    maps = maps_of(torch.float32, device, [(40,), (3,), (50,)])
    reads = [p.clone() for p in maps]
    first = kernels.gan_loss_with_slopes(maps, True, "lsgan", True, True)
    again = kernels.gan_loss_with_slopes(maps, True, "lsgan", True, True)
    assert all(torch.equal(p, q) for p, q in zip(maps, reads, strict=True))
    assert torch.equal(first[0], again[0])
    assert all(torch.equal(s, t) for s, t in zip(first[1], again[1], strict=True))
