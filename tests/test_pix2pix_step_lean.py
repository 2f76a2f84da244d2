"""What the step of pix2pix saves, when it may, and when it must not (spec section 11.3).

That every saving leaves the results as they are is shown in ``test_pix2pix_step.py``.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from pix2pix_case import SAVINGS, draw_batch, our_networks, plain_networks
from torch import Tensor, nn

from torchp2p.models.discriminator import ConditionalDiscriminator
from torchp2p.train import Lean, Pix2PixStep


class Judged(NamedTuple):
    """One call of D: what it was given, and of what gradients were to be taken."""

    samples: int
    channels: int
    image_gradient: bool
    weight_gradient: bool


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[Judged]:
    """Every call of D, in their order."""
    calls: list[Judged] = []
    forward = ConditionalDiscriminator.forward

    def look(D: ConditionalDiscriminator, x: Tensor, *shared: object) -> Tensor:
        weight_gradient = any(parameter.requires_grad for parameter in D.parameters())
        calls.append(Judged(*x.shape[:2], x.requires_grad, weight_gradient))
        return forward(D, x, *shared)

    monkeypatch.setattr(ConditionalDiscriminator, "forward", look)
    return calls


@pytest.mark.parametrize(
    ("name", "of_D", "of_G"),
    [
        ("none", [(2, 5), (2, 5)], (2, 5)),
        ("shared", [(2, 2), (2, 2)], (2, 2)),
        ("one batch", [(4, 5)], (2, 5)),
        ("all", [(4, 2)], (2, 2)),
    ],
)
def test_D_is_given_no_more_than_each_saving_leaves(judged: list[Judged], name: str, of_D, of_G) -> None:
    """(samples, channels), with a gradient of the weights for its own loss, of the fake for that of G."""
    Pix2PixStep(*our_networks("batch", *plain_networks("batch")), lean=SAVINGS[name])(draw_batch())
    for_D, for_G = [Judged(*sizes, False, True) for sizes in of_D], Judged(*of_G, True, False)
    assert judged == [*for_D, for_G]


def test_all_is_saved_unless_told_otherwise() -> None:
    assert Pix2PixStep(*plain_networks("batch")).lean == SAVINGS["all"]


def hook_on(D: nn.Module) -> None:
    next(module for module in D.modules() if isinstance(module, nn.Conv2d)).register_forward_hook(lambda *_: None)


def normalise_the_weights_of(D: nn.Module) -> None:
    nn.utils.parametrizations.spectral_norm(next(module for module in D.modules() if isinstance(module, nn.Conv2d)))


@pytest.mark.parametrize("change", [hook_on, normalise_the_weights_of])
def test_a_D_that_was_changed_or_is_looked_into_sees_pair_after_pair(judged: list[Judged], change) -> None:
    G, D = our_networks("batch", *plain_networks("batch"))
    change(D)
    Pix2PixStep(G, D)(draw_batch())
    assert [(call.samples, call.channels) for call in judged] == [(2, 5)] * 3


def test_earlier_fakes_of_another_size_are_judged_one_after_the_other() -> None:
    G, D = our_networks("batch", *plain_networks("batch"))
    step = Pix2PixStep(G, D, pool_size=4, seed=1)
    for size in (16, 24, 16, 24, 16, 24, 16, 24):
        losses = step({name: images[:1] for name, images in draw_batch(size).items()})
    assert all(loss.isfinite() for loss in losses.values())


@pytest.mark.parametrize("lean", SAVINGS.values(), ids=SAVINGS.keys())
def test_bfloat16_with_any_saving_stays_near_float32(lean: Lean) -> None:
    batch, losses = draw_batch(dtype=torch.float32), {}
    for precision in ("float32", "bfloat16"):
        G, D = (net.float() for net in our_networks("batch", *plain_networks("batch")))
        losses[precision] = Pix2PixStep(G, D, precision=precision, lean=lean)(batch)
    for name, loss in losses["bfloat16"].items():
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(losses["float32"][name].item(), rel=0.05)


@pytest.mark.parametrize("shape", [(1, 2, 16, 16), (2, 2, 16, 17)])
def test_images_that_are_no_pair_are_refused(shape: tuple[int, ...]) -> None:
    G, D = our_networks("batch", *plain_networks("batch"))
    B = torch.zeros(shape).double()
    message = rf"^B must be as many images as A of its size, \(2, 3, 16, 16\), got \({', '.join(map(str, shape))}\)"
    with pytest.raises(ValueError, match=message):
        Pix2PixStep(G, D)({"A": draw_batch()["A"], "B": B})
