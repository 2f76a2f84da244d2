"""The benchmarks of the ops: whoever is measured computes the same."""

from __future__ import annotations

import pytest
import torch

from benchmarks import (
    bench_feature_matching_loss,
    bench_gan_loss,
    bench_instance_avg_pool,
    bench_instance_edges,
    bench_norm_act,
)


@pytest.mark.parametrize("block", [bench_norm_act.BLOCKS[4], bench_norm_act.BLOCKS[5]])
def test_all_providers_of_norm_act_compute_the_same(block: bench_norm_act.Block) -> None:
    x = torch.randn(block.shape)
    eager, *others = (
        provider.prepare("forward")()
        for provider in bench_norm_act.providers(block, x)
        if provider.name != "compile"  # which is eager's own text
    )
    for other in others:
        torch.testing.assert_close(other, eager, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("maps", bench_gan_loss.MAPS)
def test_all_providers_of_gan_loss_compute_the_same(maps: bench_gan_loss.Maps) -> None:
    tensors = [torch.randn(1, 1, h, w) for h, w in maps.sizes]
    eager, native = (
        provider.prepare("forward")()
        for provider in bench_gan_loss.providers(maps, tensors)
        if provider.name != "compile"
    )
    torch.testing.assert_close(native, eager)


@pytest.mark.parametrize("features", bench_feature_matching_loss.QUICK_FEATURES)
def test_all_providers_of_feature_matching_loss_compute_the_same(
    features: bench_feature_matching_loss.Features,
) -> None:
    fake, real = ([torch.randn(shape) for shape in features.shapes] for _ in range(2))
    eager, native = (
        provider.prepare("forward")()
        for provider in bench_feature_matching_loss.providers(features, fake, real)
        if provider.name != "compile"
    )
    torch.testing.assert_close(native, eager)


@pytest.fixture
def street(monkeypatch: pytest.MonkeyPatch) -> bench_instance_avg_pool.Street:
    """A small part of the drawn street."""
    monkeypatch.delenv("TORCHP2P_CITYSCAPES", raising=False)
    whole = bench_instance_avg_pool.street()
    assert whole.ids.shape == (1, 1, 1024, 2048)
    return whole.every(16)


def test_all_providers_of_instance_avg_pool_compute_the_same(street: bench_instance_avg_pool.Street) -> None:
    x = torch.randn(1, 3, *street.ids.shape[2:])
    for providers in (bench_instance_avg_pool.providers, bench_instance_avg_pool.with_original):
        others = (p for p in providers(street.ids, x) if p.name != "compile")  # which is scatter_add's own text
        for mode, exact in (("forward", bench_instance_avg_pool.native(x.double(), street.ids)),):
            for provider in others:
                torch.testing.assert_close(
                    provider.prepare(mode)(), exact.float(), msg=lambda m, p=provider: f"{p.name}: {m}"
                )


@pytest.mark.parametrize("id_dtype", [torch.int32, torch.uint16])
def test_all_providers_of_instance_edges_compute_the_same(
    street: bench_instance_avg_pool.Street, id_dtype: torch.dtype
) -> None:
    ids = street.ids.to(id_dtype)
    eager, native = (p.prepare("forward")() for p in bench_instance_edges.providers(ids) if p.name != "compile")
    assert torch.equal(eager, native)
    assert torch.equal(bench_instance_edges.reference_in_float32(ids), native)
