"""Steps that cannot become a CUDA graph: taken as they are, with the reason."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from fake_cuda_graph import FakeCuda, install
from graphed_case import LR, assert_same_state, batches_of, hd_batch, pix2pix, pix2pix_batch, pix2pixhd, run
from pix2pixhd_case import Setting
from torch import Tensor, nn

from torchp2p import BackendUnavailableError
from torchp2p.train import GraphedStep, Pix2PixHDStep, Pix2PixStep
from torchp2p.train.capturable import why_not


@pytest.fixture
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    return install(monkeypatch)


class Plain(nn.Module):
    """An encoder from outside."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)

    def forward(self, image: Tensor, ids: Tensor) -> Tensor:
        features: Tensor = self.conv(image)
        return features


class Waiting(nn.Module):
    """A generator that looks at what it makes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return y / max(y.abs().max().item(), 1.0)


def with_hook() -> Pix2PixStep:
    step = pix2pix()
    next(iter(step.G.children())).register_forward_hook(lambda *_: None)
    return step


def with_optimizer(kind: type[torch.optim.Optimizer], **options: Any) -> Pix2PixStep:
    return pix2pix(optimizer_G=kind(pix2pix().G.parameters(), lr=LR, **options))


def with_plain_encoder() -> Pix2PixHDStep:
    setting = Setting(features=True)
    setting.ours["E"] = Plain().double()
    return setting.step()


REFUSED: dict[str, Callable[[], Any]] = {
    "pool_size 2 draws on the host which image D is shown": lambda: pix2pix(pool_size=2),
    "gan_mode wgangp draws the points of its gradient penalty on the host": lambda: pix2pix(gan_mode="wgangp"),
    "optimizer_G is SGD, and only Adam and AdamW are known": lambda: with_optimizer(torch.optim.SGD),
    "optimizer_G is not fused": lambda: with_optimizer(torch.optim.Adam),
    "G.model has hooks, which would run once": with_hook,
    "precision float16 scales its losses": lambda: pix2pixhd(precision="float16"),
    "E is Plain, which may pool": with_plain_encoder,
}


@pytest.mark.parametrize("reason", REFUSED)
def test_a_step_that_cannot_be_captured_says_why(reason: str, fake_cuda: FakeCuda) -> None:
    assert why_not(REFUSED[reason]()).startswith(reason)


def test_a_step_within_autocast_is_not_captured(fake_cuda: FakeCuda) -> None:
    step = pix2pix()
    with torch.autocast("cpu", torch.bfloat16):
        assert why_not(step).startswith("it is called within autocast")
    assert why_not(step) == ""


def test_features_without_a_kernel_that_pools_them_are_not_captured(
    fake_cuda: FakeCuda,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torchp2p.train.capturable.first_available", lambda *_: ("reference", ["native: none"]))
    assert why_not(pix2pixhd(features=True)) == "instance_avg_pool has no kernel here (native: none)"
    assert why_not(pix2pixhd()) == ""


def test_on_the_cpu_the_step_is_taken_as_it_is_and_the_reason_said_once() -> None:
    batches, eager, step = batches_of(pix2pix_batch), pix2pix(), pix2pix()
    with pytest.warns(RuntimeWarning, match="without a CUDA graph: graphs need cuda, and the networks are on cpu$"):
        graphed_step = GraphedStep(step)
    assert graphed_step.reason == "graphs need cuda, and the networks are on cpu"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run(graphed_step, batches) == run(eager, batches)
        graphed_step.check()
    assert_same_state(step, eager)


def test_in_strict_mode_a_step_without_a_graph_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHP2P_STRICT", "1")
    with pytest.raises(BackendUnavailableError, match="without a CUDA graph: graphs need cuda"):
        GraphedStep(pix2pix())


def test_a_recording_that_fails_is_given_up_with_its_reason_and_nothing_lost(fake_cuda: FakeCuda) -> None:
    def make() -> Pix2PixStep:
        torch.manual_seed(1)
        return Pix2PixStep(Waiting(), None, use_GAN=False, lr=LR)

    batches, eager, step = batches_of(pix2pix_batch), make(), make()
    graphed_step = GraphedStep(step)
    with pytest.warns(RuntimeWarning, match="recording it failed: .* waits for the device"):
        losses = run(graphed_step, batches)
    assert losses == run(eager, batches)
    assert_same_state(step, eager)
    assert fake_cuda.graphs == []


def test_a_hook_that_comes_before_the_recording_is_a_reason_too(fake_cuda: FakeCuda) -> None:
    batches, eager, step = batches_of(hd_batch), pix2pixhd(), pix2pixhd()
    graphed_step = GraphedStep(step)
    step.G.register_forward_hook(lambda *_: None)
    with pytest.warns(RuntimeWarning, match="G has hooks"):
        run(graphed_step, batches)
    run(eager, batches)
    assert_same_state(step, eager)
    assert step.skipping_on_device is None
