"""The Triton kernels of ``instance_avg_pool`` in tiles so small that tiny images reach every branch of them."""

from __future__ import annotations

import pytest
import torch
from op_testing import LAYOUTS, channels_last, ulps_from
from torch import Tensor

from torchp2p.kernels import instance_avg_pool as kernels
from torchp2p.ops import instance_avg_pool
from torchp2p.reference import instance_avg_pool as reference

CHUNK = 8


@pytest.fixture(autouse=True)
def tiny_tiles(monkeypatch):
    monkeypatch.setattr(kernels, "_CHUNK", CHUNK)
    monkeypatch.setattr(kernels, "_CHANNELS", 2)
    monkeypatch.setattr(kernels, "_JOINED", 2)


def assert_pools(x: Tensor, ids: Tensor) -> None:
    found = instance_avg_pool(x, ids, backend="triton")
    assert ulps_from(found, reference.instance_avg_pool(x.double(), ids, False)).max() < 0.55


RUNS = {
    "all pixels": [60],
    "less than a chunk": [5],
    "every pixel": [1] * 20,
    "a chunk each": [CHUNK] * 3,
    "over one end": [CHUNK - 1, CHUNK + 1],
    "up to an end and from there": [3, CHUNK - 3, CHUNK + 2],
    "through one chunk": [CHUNK - 1, CHUNK + 2],
    "through more chunks than are joined at once": [3, 5 * CHUNK, 2],
    "through all of many chunks to the last pixel": [3, 5 * CHUNK + 5],
    "two long runs and some short ones": [21, 1, 30, 2, 2],
}


@pytest.mark.parametrize("lengths", RUNS.values(), ids=RUNS.keys())
def test_instances_begin_and_end_anywhere_in_the_sorted_order(lengths, device):
    ids = torch.repeat_interleave(torch.arange(len(lengths)) * 3 - 4, torch.tensor(lengths))
    shuffled = ids[torch.randperm(len(ids))].view(1, 1, 1, -1).to(device)
    assert_pools(torch.randn(1, 1, 1, len(ids), device=device), shuffled)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@pytest.mark.parametrize("layout", [LAYOUTS["contiguous"], channels_last], ids=lambda f: f.__name__)
def test_any_number_of_channels_fills_and_leaves_blocks_of_them(layout, channels, device):
    ids = torch.randint(6, (2, 1, 5, 7), device=device)
    assert_pools(layout(torch.randn(2, channels, 5, 7, device=device)), ids)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.uint32, torch.int64], ids=str)
def test_samples_have_runs_of_their_own_whatever_the_integers(dtype, device):
    info = torch.iinfo(dtype)
    values = torch.tensor([info.max, info.min, 1], dtype=dtype)
    assert_pools(torch.randn(3, 2, 4, 5, device=device), values[torch.randint(3, (3, 1, 4, 5))].to(device))


def test_a_nan_stays_within_its_run_where_runs_share_a_chunk(device):
    x, ids = torch.ones(1, 1, 1, 30, device=device), torch.arange(30, device=device).view(1, 1, 1, 30) // 10
    x[..., 14] = float("nan")
    found = instance_avg_pool(x, ids, backend="triton").flatten()
    assert torch.equal(found.isnan(), (ids == 1).flatten())
