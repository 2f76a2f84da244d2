"""The history of generated images (spec section 5.6)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from torchp2p.train import ImagePool


def image(number: int) -> Tensor:
    """A batch of one image that can be told by its value."""
    return torch.full((1, 2, 3, 3), float(number))


def answers(pool: ImagePool, numbers: range) -> list[int]:
    return [int(pool.query(image(number)).mean()) for number in numbers]


def test_size_0_returns_every_image_unchanged() -> None:
    images = torch.rand(3, 2, 4, 4)
    assert torch.equal(ImagePool(0).query(images), images)


def test_a_pool_that_is_not_full_returns_what_it_is_given() -> None:
    assert answers(ImagePool(5), range(5)) == [0, 1, 2, 3, 4]


def test_a_full_pool_returns_an_earlier_image_about_half_the_time() -> None:
    pool = ImagePool(50, seed=1)
    answers(pool, range(50))
    exchanged = sum(answer != number for number, answer in enumerate(answers(pool, range(50, 2050)), start=50))
    assert 900 < exchanged < 1100


def test_an_image_that_was_given_away_does_not_come_again() -> None:
    pool = ImagePool(3)
    given_away = [answer for number, answer in enumerate(answers(pool, range(200))) if answer != number]
    assert given_away, "nothing was exchanged"
    assert len(given_away) == len(set(given_away))


def test_every_place_of_the_pool_is_drawn() -> None:
    pool = ImagePool(4, seed=3)
    answers(pool, range(4))
    assert set(answers(pool, range(4, 100))) >= {0, 1, 2, 3}


def test_each_image_of_a_batch_is_exchanged_on_its_own() -> None:
    pool = ImagePool(8)
    pool.query(torch.zeros(8, 1, 2, 2))
    shown = pool.query(torch.ones(8, 1, 2, 2)).mean(dim=(1, 2, 3))
    assert 0 < shown.sum() < 8


@pytest.mark.parametrize("size", [0, 2])
def test_what_comes_out_carries_no_gradient(size: int) -> None:
    pool = ImagePool(size)
    for _ in range(4):
        assert not pool.query(image(1).requires_grad_()).requires_grad


def test_images_in_the_pool_are_copies() -> None:
    pool = ImagePool(1)
    first = image(1)
    pool.query(first)
    first.fill_(7)
    assert {int(pool.query(image(2)).mean()) for _ in range(20)} == {1, 2}


def test_the_choices_neither_depend_on_nor_disturb_the_global_generator() -> None:
    results = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        results.append(answers(ImagePool(3, seed=5), range(40)))
        assert torch.equal(torch.get_rng_state(), before)
    assert results[0] == results[1]


def test_another_seed_makes_other_choices() -> None:
    assert answers(ImagePool(3, seed=5), range(40)) != answers(ImagePool(3, seed=6), range(40))


def test_a_pool_continues_from_the_state_of_another() -> None:
    pool, other = ImagePool(3, seed=5), ImagePool(3, seed=99)
    answers(pool, range(10))
    other.load_state_dict(pool.state_dict())
    assert answers(other, range(10, 40)) == answers(pool, range(10, 40))


def test_a_state_is_not_changed_by_what_the_pool_does_later() -> None:
    pool = ImagePool(2)
    answers(pool, range(5))
    state = pool.state_dict()
    before = [int(each.mean()) for each in state["images"]]
    answers(pool, range(5, 30))
    assert [int(each.mean()) for each in state["images"]] == before


def test_a_negative_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^size must not be negative, got -1$"):
        ImagePool(-1)
