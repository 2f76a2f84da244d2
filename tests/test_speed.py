"""Speed, watched and asserted: pytest-benchmark times a few calls in every run; the one claim is marked slow."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks import bench_feature_matching_loss, bench_gan_loss, bench_norm_act, harness

PROVIDERS = ("eager", "native")


def prepared(providers: list[harness.Provider], name: str, mode: str) -> Callable[[], object]:
    return next(provider for provider in providers if provider.name == name).prepare(mode)


@pytest.mark.benchmark(group="norm_act 1x64x256x256 forward + backward")
@pytest.mark.parametrize("provider", PROVIDERS)
def test_norm_act_is_timed(benchmark: BenchmarkFixture, provider: str) -> None:
    block = bench_norm_act.Block((1, 64, 256, 256))
    providers = list(bench_norm_act.providers(block, torch.randn(block.shape)))
    call = prepared(providers, provider, "forward_backward")
    (grad_x,) = benchmark.pedantic(call, rounds=5, warmup_rounds=2)
    assert grad_x.shape == block.shape


@pytest.mark.benchmark(group="gan_loss of three scales at 1024 x 2048, forward + backward")
@pytest.mark.parametrize("provider", PROVIDERS)
def test_gan_loss_is_timed(benchmark: BenchmarkFixture, provider: str) -> None:
    maps = bench_gan_loss.MAPS[1]
    tensors = [torch.randn(1, 1, h, w) for h, w in maps.sizes]
    call = prepared(list(bench_gan_loss.providers(maps, tensors)), provider, "forward_backward")
    gradients = benchmark.pedantic(call, rounds=5, iterations=10, warmup_rounds=2)
    assert [gradient.shape for gradient in gradients] == [tensor.shape for tensor in tensors]


@pytest.mark.benchmark(group="feature_matching_loss of one scale, forward + backward")
@pytest.mark.parametrize("provider", PROVIDERS)
def test_feature_matching_loss_is_timed(benchmark: BenchmarkFixture, provider: str) -> None:
    features = bench_feature_matching_loss.discriminator((129, 257))
    fake, real = ([torch.randn(shape) for shape in features.shapes] for _ in range(2))
    call = prepared(list(bench_feature_matching_loss.providers(features, fake, real)), provider, "forward_backward")
    gradients = benchmark.pedantic(call, rounds=5, warmup_rounds=2)
    assert [gradient.shape for gradient in gradients] == [tensor.shape for tensor in fake]


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 64, 512, 1024), (2, 128, 129, 257)], ids=str)
def test_norm_act_is_at_least_twice_as_fast_as_eager(shape: tuple[int, int, int, int]) -> None:
    """Instance norm and LeakyReLU, forward and backward, float32, both sides measured in one run."""
    providers = list(bench_norm_act.providers(bench_norm_act.Block(shape), torch.randn(shape)))
    calls = [prepared(providers, name, "forward_backward") for name in PROVIDERS]
    eager, native = harness.measure(calls, rounds=11)
    assert harness.ratio(eager, native) >= 2
