"""Decoded samples kept in memory: a budget, the same results with and without, threads and workers."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from labelled_data import LabelledOptions, equal, write_frame

from torchp2p.data import LabelledDataset, build_labelled_dataset, make_loader

FRAME = 20 * 40 * (1 + 2 + 3 + 3)
"""Bytes of one sample: label, instances in 16 bits, image and features."""


@pytest.fixture
def options(tmp_path: Path) -> LabelledOptions:
    """Five frames with everything, to be cropped and mirrored."""
    for index in range(5):
        write_frame(tmp_path, str(index))
    crops = {"resize_or_crop": "scale_width_and_crop", "no_flip": False}
    return LabelledOptions(tmp_path, load_features=True, cache_bytes=10**6, **crops)


def decoded_by(dataset: LabelledDataset, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The list that will hold the index of every sample that is decoded."""
    indices: list[int] = []
    read = dataset.read
    monkeypatch.setattr(dataset, "read", lambda index: indices.append(index) or read(index))
    return indices


@pytest.mark.parametrize("budget", [1, FRAME, 3 * FRAME + 5, 10**6])
def test_it_changes_nothing_but_the_time(options: LabelledOptions, budget: int) -> None:
    without = build_labelled_dataset(replace(options, cache_bytes=0))
    cached = build_labelled_dataset(replace(options, cache_bytes=budget))
    for epoch in range(3):
        for index in range(5):
            assert equal(cached.sample(index, epoch), without.sample(index, epoch))
    assert cached.cache.used <= budget


def test_each_sample_is_decoded_once(options: LabelledOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = build_labelled_dataset(options)
    decoded = decoded_by(dataset, monkeypatch)
    for epoch in range(3):
        dataset.sample(-1, epoch)
        dataset.sample(4, epoch)
    assert decoded == [4]


def test_the_budget_is_kept_and_what_came_first_stays(
    options: LabelledOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = build_labelled_dataset(replace(options, cache_bytes=2 * FRAME))
    decoded = decoded_by(dataset, monkeypatch)
    for _ in range(2):
        for index in range(5):
            dataset.sample(index, 0)
    assert dataset.cache.used == 2 * FRAME
    assert decoded == [0, 1, 2, 3, 4, 2, 3, 4]


@pytest.mark.parametrize(("budget", "held"), [(FRAME - 1, 0), (FRAME, 1), (2 * FRAME - 1, 1), (2 * FRAME, 2)])
def test_a_sample_is_held_only_if_it_fits_to_the_byte(options: LabelledOptions, budget: int, held: int) -> None:
    assert build_labelled_dataset(replace(options, cache_bytes=budget)).preload() == held


def test_a_worker_process_uses_what_it_inherits_and_adds_nothing(
    options: LabelledOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = build_labelled_dataset(options)
    dataset.sample(0, 0)
    decoded = decoded_by(dataset, monkeypatch)
    monkeypatch.setattr("torchp2p.data.cache.get_worker_info", lambda: "a worker")
    for _ in range(2):
        list(dataset)
    assert decoded == [1, 2, 3, 4] * 2
    assert len(dataset.cache) == 1


def test_a_caller_who_writes_into_a_sample_leaves_it_unharmed(options: LabelledOptions) -> None:
    dataset = build_labelled_dataset(options)
    before = {part: value.clone() for part, value in dataset[0].items() if part != "name"}
    for part in before:
        dataset[0][part].zero_()
    assert all(torch.equal(dataset[0][part], value) for part, value in before.items())


def test_preload_fills_it_and_says_how_many_it_holds(options: LabelledOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = build_labelled_dataset(options)
    assert dataset.preload() == 5
    decoded = decoded_by(dataset, monkeypatch)
    list(dataset)
    assert decoded == []
    assert build_labelled_dataset(replace(options, cache_bytes=3 * FRAME)).preload() == 3


def test_many_threads_see_the_same_samples(options: LabelledOptions) -> None:
    without = build_labelled_dataset(replace(options, cache_bytes=0))
    cached = build_labelled_dataset(replace(options, cache_bytes=4 * FRAME))
    with ThreadPoolExecutor(8) as pool:
        samples = list(pool.map(lambda number: cached.sample(number % 5, 0), range(100)))
    assert all(equal(sample, without.sample(number % 5, 0)) for number, sample in enumerate(samples))
    assert cached.cache.used <= 4 * FRAME


@pytest.mark.parametrize("preloaded", [False, True])
def test_workers_of_a_loader_give_the_same_batches(options: LabelledOptions, preloaded: bool) -> None:
    without = build_labelled_dataset(replace(options, cache_bytes=0))
    cached = build_labelled_dataset(options)
    if preloaded:
        cached.preload()
    for epoch in range(2):
        expected = list(make_loader(without, epoch, batch_size=2))
        found = list(make_loader(cached, epoch, batch_size=2, num_workers=2))
        assert [batch["name"] for batch in found] == [batch["name"] for batch in expected]
        for one, other in zip(found, expected, strict=True):
            assert all(torch.equal(one[part], other[part]) for part in ("label", "inst", "image", "feat"))


def test_a_dataset_is_pickled_without_what_it_holds(options: LabelledOptions) -> None:
    dataset = build_labelled_dataset(options)
    dataset.preload()
    copy = pickle.loads(pickle.dumps(dataset))
    assert len(copy.cache) == 0
    assert copy.cache.budget == 10**6
    assert equal(copy[0], dataset[0])
