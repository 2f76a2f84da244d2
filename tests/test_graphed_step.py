"""A training step as a CUDA graph: the same steps, one launch each, or a reason why not."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from fake_cuda_graph import FakeCuda, install
from pix2pixhd_case import LABELS, Setting, draw_batch
from torch import Tensor, nn

from torchp2p import BackendUnavailableError
from torchp2p.models import PatchDiscriminator, ResnetGenerator
from torchp2p.train import GraphedStep, Pix2PixHDStep, Pix2PixStep, graphed
from torchp2p.train.capturable import networks_of, optimizers_of, why_not
from torchp2p.train.graphed import MOST_GRAPHS, WARM_UP

Batch = dict[str, Tensor]
STEPS = WARM_UP + 3
LR = 2.0**-12
"""A rate that float32 holds as it is, so that steps with a graph and without are equal to the last bit."""


@pytest.fixture
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    return install(monkeypatch)


def pix2pix(**options: Any) -> Pix2PixStep:
    """With batch norm and dropout."""
    torch.manual_seed(1)
    G = ResnetGenerator(3, 3, ngf=2, norm="batch", use_dropout=True, n_blocks=1)
    D = None if options.get("use_GAN") is False else PatchDiscriminator(6, ndf=2, n_layers=1, norm="batch")
    return Pix2PixStep(G, D, lr=LR, **options)


def pix2pix_batch(size: int = 16) -> Batch:
    A, B = torch.rand(2, 1, 3, size, size) * 2 - 1
    return {"A": A, "B": B}


def pix2pixhd(netG: str = "global", norm: str = "instance", features: bool = False, **options: Any) -> Pix2PixHDStep:
    return Setting(netG, norm, features=features).step(lr=LR, **options)


def hd_batch(bad: bool = False) -> Batch:
    batch = draw_batch()
    if bad:
        batch["image"][0, 0, 0, 0] = float("nan")
    return batch


CASES: dict[str, tuple[Callable[[], Any], Callable[..., Batch]]] = {
    "pix2pix": (pix2pix, pix2pix_batch),
    "pix2pix in bfloat16": (lambda: pix2pix(precision="bfloat16"), pix2pix_batch),
    "pix2pix, hinge, L2": (lambda: pix2pix(gan_mode="hinge", pixel_loss="l2"), pix2pix_batch),
    "pix2pix without D": (lambda: pix2pix(use_GAN=False), pix2pix_batch),
    "pix2pixHD": (pix2pixhd, hd_batch),
    "pix2pixHD, batch norm": (lambda: pix2pixhd(norm="batch"), hd_batch),
    "pix2pixHD, an enhancer alone": (lambda: pix2pixhd("local1", fix_global=True), hd_batch),
    "pix2pixHD, features": (lambda: pix2pixhd(features=True), hd_batch),
}


def batches_of(draw: Callable[..., Batch], count: int = STEPS) -> list[Batch]:
    torch.manual_seed(2)
    return [draw() for _ in range(count)]


def run(step: Callable[[Batch], dict[str, Tensor]], batches: list[Batch]) -> list[dict[str, float]]:
    """The losses, read at the end of all steps."""
    torch.manual_seed(3)
    losses = [step(batch) for batch in batches]
    return [{name: loss.item() for name, loss in each.items()} for each in losses]


def state(step: Any) -> dict[str, Any]:
    parts = {**networks_of(step), **optimizers_of(step)}
    return {name: copy.deepcopy(part.state_dict()) for name, part in parts.items()}


def assert_same_state(one: Any, other: Any) -> None:
    torch.testing.assert_close(state(one), state(other), rtol=0, atol=0)


# --- with graphs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_the_steps_are_those_without_a_graph_to_the_last_bit(case: str, fake_cuda: FakeCuda) -> None:
    make, draw = CASES[case]
    batches, eager, step = batches_of(draw), make(), make()
    assert run(GraphedStep(step), batches) == run(eager, batches)
    assert_same_state(step, eager)
    assert torch.equal(step.fake, eager.fake)
    assert [graph.replays for graph in fake_cuda.graphs] == [STEPS - WARM_UP]


def test_a_replay_reads_the_batch_from_buffers_of_its_own(fake_cuda: FakeCuda) -> None:
    batches, eager, step = batches_of(pix2pix_batch), pix2pix(), pix2pix()
    run(eager, batches)
    graphed_step = GraphedStep(step)
    torch.manual_seed(3)
    for batch in batches:
        graphed_step(batch)
        for value in batch.values():
            value.fill_(float("nan"))  # whoever reads it later would know
    assert_same_state(step, eager)


def test_every_size_of_batch_has_a_graph_of_its_own(fake_cuda: FakeCuda) -> None:
    torch.manual_seed(2)
    batches = [pix2pix_batch(size) for size in (16, 24) * STEPS]
    eager, step = pix2pix(), pix2pix()
    graphed_step = GraphedStep(step)
    for number, batch in enumerate(batches):
        assert run(graphed_step, [batch]) == run(eager, [batch]), number
        assert torch.equal(step.fake, eager.fake), number
    assert_same_state(step, eager)
    assert [graph.replays for graph in fake_cuda.graphs] == [STEPS - WARM_UP] * 2
    assert len(set(fake_cuda.pools)) == 1


def test_a_size_that_comes_rarely_gets_no_graph(fake_cuda: FakeCuda) -> None:
    step = GraphedStep(pix2pix())
    run(step, [pix2pix_batch(8 * (2 + number)) for number in range(4)] * WARM_UP)
    assert fake_cuda.graphs == []


def test_sizes_beyond_the_most_are_stepped_in_the_open_and_that_is_said_once(
    fake_cuda: FakeCuda,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(graphed, "MOST_GRAPHS", 1)
    torch.manual_seed(2)
    batches = [pix2pix_batch(size) for size in (16, 24) * STEPS]
    eager, step = pix2pix(), pix2pix()
    with pytest.warns(RuntimeWarning, match="there are 1 sizes of batches with a graph already$") as said:
        assert run(GraphedStep(step), batches) == run(eager, batches)
    assert len(said) == 1
    assert len(fake_cuda.graphs) == 1 < MOST_GRAPHS


def test_a_network_in_another_mode_gets_a_graph_of_its_own(fake_cuda: FakeCuda) -> None:
    batches, eager, step = batches_of(pix2pix_batch, 2 * STEPS), pix2pix(), pix2pix()
    graphed_step = GraphedStep(step)
    for each, own in ((eager, eager), (graphed_step, step)):
        run(each, batches[:STEPS])
        own.G.eval()
        run(each, batches[STEPS:])
    assert_same_state(step, eager)
    assert len(fake_cuda.graphs) == 2


def test_a_learning_rate_that_is_set_later_is_the_one_that_replays_use(fake_cuda: FakeCuda) -> None:
    batches, eager, step = batches_of(pix2pix_batch, 2 * STEPS), pix2pix(), pix2pix()
    graphed_step = GraphedStep(step)
    for each, own in ((eager, eager), (graphed_step, step)):
        run(each, batches[:STEPS])
        own.set_lr(LR / 4)
        run(each, batches[STEPS:])
    assert_same_state(step, eager)
    assert len(fake_cuda.graphs) == 1


def test_losses_are_not_overwritten_by_later_steps(fake_cuda: FakeCuda) -> None:
    step = GraphedStep(pix2pix())
    *_, losses = (step(batch) for batch in batches_of(pix2pix_batch))
    before = {name: loss.item() for name, loss in losses.items()}
    step(pix2pix_batch())
    assert {name: loss.item() for name, loss in losses.items()} == before


# --- losses that are not finite ---------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [{1}, {4, 5}, {2, 3, 4}], ids=str)
def test_a_step_that_is_not_finite_changes_no_weight_in_the_open_or_replayed(
    bad: set[int],
    fake_cuda: FakeCuda,
) -> None:
    torch.manual_seed(2)
    batches = [hd_batch(number in bad) for number in range(STEPS)]
    eager, step = pix2pixhd(), pix2pixhd()
    graphed_step = GraphedStep(step)
    run(eager, batches)
    run(graphed_step, batches)
    assert_same_state(step, eager)
    graphed_step.check()
    assert step.skipped == eager.skipped


def test_too_many_in_a_row_are_an_error_at_the_next_check(fake_cuda: FakeCuda) -> None:
    step = GraphedStep(pix2pixhd(max_skipped=3))
    run(step, [*batches_of(hd_batch), *(hd_batch(True) for _ in range(3)), hd_batch()])
    with pytest.raises(FloatingPointError, match="losses were not finite for 3 steps in a row"):
        step.check()
    step.check()  # and said once


def test_fewer_in_a_row_than_allowed_are_no_error(fake_cuda: FakeCuda) -> None:
    step = GraphedStep(pix2pixhd(max_skipped=3))
    run(step, [*batches_of(hd_batch), hd_batch(True), hd_batch(True), hd_batch(), hd_batch(True)])
    step.check()
    assert step.step.skipped == 1


# --- saved and loaded -------------------------------------------------------------------------------------


def test_what_is_saved_does_not_tell_that_there_was_a_graph(fake_cuda: FakeCuda) -> None:
    step = pix2pix()
    run(GraphedStep(step), batches_of(pix2pix_batch))
    for optimizer in optimizers_of(step).values():
        (group,) = optimizer.state_dict()["param_groups"]
        assert (group["lr"], group["capturable"]) == (LR, False)


@pytest.mark.parametrize("case", ["pix2pix", "pix2pixHD"])
def test_a_state_that_is_loaded_is_gone_on_from(case: str, fake_cuda: FakeCuda) -> None:
    make, draw = CASES[case]
    batches, eager, step = batches_of(draw, 2 * STEPS), make(), make()
    graphed_step = GraphedStep(step)
    saved = state(make())  # of a training that has not begun
    for each, own in ((eager, eager), (graphed_step, step)):
        run(each, batches[:STEPS])
        for name, part in {**networks_of(own), **optimizers_of(own)}.items():
            part.load_state_dict(copy.deepcopy(saved[name]))
        run(each, batches[STEPS:])
    assert_same_state(step, eager)
    assert len(fake_cuda.graphs) == 2  # the optimisers' state lies elsewhere
    assert len(set(fake_cuda.pools)) == 2  # a pool may not be captured to again once its graphs are gone


def test_a_training_with_graphs_is_gone_on_with_without_them(fake_cuda: FakeCuda) -> None:
    batches, eager, first, second = batches_of(pix2pix_batch, 2 * STEPS), pix2pix(), pix2pix(), pix2pix()
    run(eager, batches[:STEPS])
    run(eager, batches[STEPS:])
    run(GraphedStep(first), batches[:STEPS])
    for name, part in {**networks_of(second), **optimizers_of(second)}.items():
        part.load_state_dict(state(first)[name])
    run(second, batches[STEPS:])
    assert_same_state(second, eager)


def test_a_generator_that_is_released_is_trained_as_a_whole(fake_cuda: FakeCuda) -> None:
    make, draw = CASES["pix2pixHD, an enhancer alone"]
    batches, eager, step = batches_of(draw, 2 * STEPS), make(), make()
    graphed_step = GraphedStep(step)
    for each, own in ((eager, eager), (graphed_step, step)):
        run(each, batches[:STEPS])
        own.release_global()
        run(each, batches[STEPS:])
    assert_same_state(step, eager)
    assert len(fake_cuda.graphs) == 2


def test_weights_that_have_moved_are_found(fake_cuda: FakeCuda) -> None:
    batches, eager, step = batches_of(pix2pix_batch, 2 * STEPS), pix2pix(), pix2pix()
    graphed_step = GraphedStep(step)
    for each, own in ((eager, eager), (graphed_step, step)):
        run(each, batches[:STEPS])
        for parameter in own.G.parameters():
            parameter.data = parameter.data.clone()
        run(each, batches[STEPS:])
    assert_same_state(step, eager)
    assert len(fake_cuda.graphs) == 2


# --- without graphs ---------------------------------------------------------------------------------------


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


def test_a_label_out_of_range_is_found_by_the_device(fake_cuda: FakeCuda) -> None:
    step = GraphedStep(pix2pixhd())
    run(step, batches_of(hd_batch))
    batch = hd_batch()
    batch["label"][0, 0, 0, 0] = LABELS
    with pytest.raises(RuntimeError, match=r"labels must be ids in 0\.\.3"):
        step(batch)
