"""A training step as a CUDA graph: the same steps, one launch each."""

from __future__ import annotations

import copy

import pytest
import torch
from fake_cuda_graph import FakeCuda, install
from graphed_case import (
    CASES,
    LR,
    STEPS,
    assert_same_state,
    batches_of,
    hd_batch,
    pix2pix,
    pix2pix_batch,
    pix2pixhd,
    run,
    state,
)
from pix2pixhd_case import LABELS

from torchp2p.train import GraphedStep, graphed
from torchp2p.train.capturable import networks_of, optimizers_of
from torchp2p.train.graphed import MOST_GRAPHS, WARM_UP


@pytest.fixture
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    return install(monkeypatch)


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


def test_a_label_out_of_range_is_found_by_the_device(fake_cuda: FakeCuda) -> None:
    step = GraphedStep(pix2pixhd())
    run(step, batches_of(hd_batch))
    batch = hd_batch()
    batch["label"][0, 0, 0, 0] = LABELS
    with pytest.raises(RuntimeError, match=r"labels must be ids in 0\.\.3"):
        step(batch)
