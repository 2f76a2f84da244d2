"""Learning rates by epoch (spec sections 5.3, 13)."""

from __future__ import annotations

import pytest
import torch

from torchp2p.train import lr_factor
from torchp2p.train.schedule import LR_POLICIES

HD_VALUES = [(1, 1.0), (100, 1.0), (101, 1.0), (102, 0.99), (150, 0.51), (200, 0.01)]


@pytest.mark.parametrize(
    ("epoch", "factor"),
    [(1, 1.0), (99, 1.0), (100, 100 / 101), (150, 50 / 101), (199, 1 / 101), (200, 0.0)],
)
def test_linear_with_a_zero_last_epoch_is_that_of_the_original(epoch: int, factor: float) -> None:
    assert lr_factor("linear", epoch, 100, 100, zero_lr_last_epoch=True) == pytest.approx(factor, rel=1e-12, abs=0)


def test_the_values_that_the_specification_prints_are_met() -> None:
    values = [lr_factor("linear", epoch, 100, 100, zero_lr_last_epoch=True) for epoch in (99, 100, 150, 199, 200)]
    assert [round(value, 6) for value in values] == [1.0, 0.990099, 0.49505, 0.009901, 0.0]


def test_linear_without_the_flag_trains_in_its_last_epoch() -> None:
    assert lr_factor("linear", 100, 100, 100) == 1.0
    assert lr_factor("linear", 101, 100, 100) == pytest.approx(100 / 101)
    assert lr_factor("linear", 200, 100, 100) == pytest.approx(1 / 101)


@pytest.mark.parametrize("zero_last", [False, True])
@pytest.mark.parametrize(("n_epochs", "n_epochs_decay"), [(1, 1), (0, 3), (3, 0), (4, 3), (100, 100)])
def test_linear_never_rises_and_stays_within_0_and_1(n_epochs: int, n_epochs_decay: int, zero_last: bool) -> None:
    epochs = range(1, n_epochs + n_epochs_decay + 1)
    factors = [lr_factor("linear", epoch, n_epochs, n_epochs_decay, zero_lr_last_epoch=zero_last) for epoch in epochs]
    assert factors == sorted(factors, reverse=True)
    assert factors[0] <= 1.0
    assert (factors[-1] == 0.0) is zero_last


@pytest.mark.parametrize(("epoch", "factor"), HD_VALUES)
def test_linear_hd_is_that_of_pix2pixhd(epoch: int, factor: float) -> None:
    assert lr_factor("linear_hd", epoch, 100, 100) == pytest.approx(factor, rel=1e-12)


def test_linear_hd_without_decay_stays() -> None:
    assert lr_factor("linear_hd", 9, 9, 0) == 1.0


@pytest.mark.parametrize(("epoch", "factor"), [(1, 1), (50, 1), (51, 0.1), (100, 0.1), (101, 0.01), (151, 0.001)])
def test_step_takes_a_tenth_every_lr_decay_iters_epochs(epoch: int, factor: float) -> None:
    assert lr_factor("step", epoch, 100, 100, lr_decay_iters=50) == pytest.approx(factor, rel=1e-12)


@pytest.mark.parametrize("n_epochs", [1, 7, 100])
def test_cosine_equals_that_of_torch(n_epochs: int) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=n_epochs)
    for epoch in range(1, n_epochs + 2):
        assert lr_factor("cosine", epoch, n_epochs, 0) == pytest.approx(scheduler.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("epoch", [1, 100, 200, 10_000])
def test_constant_stays(epoch: int) -> None:
    assert lr_factor("constant", epoch, 100, 100) == 1.0


@pytest.mark.parametrize("policy", LR_POLICIES)
def test_every_policy_starts_at_the_full_rate(policy: str) -> None:
    assert lr_factor(policy, 1, 10, 10) == 1.0


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^lr_policy must be one of linear, .*, got 'plateau'$"):
        lr_factor("plateau", 1, 100, 100)
