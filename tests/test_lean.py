"""``Lean``, the switches of a training step: what is no switch is refused, where it is made and where it is taken."""

from __future__ import annotations

import pytest
from pix2pix_case import plain_networks
from pix2pixhd_case import Setting

from torchp2p.train import GraphedStep, Lean, Pix2PixStep


@pytest.mark.parametrize(
    ("switches", "error", "sentence"),
    [
        ({"judge_once": 3}, TypeError, "judge_once must be True or False, got 3"),
        ({"recompute": "no"}, TypeError, "recompute must be True or False, got 'no'"),
        ({"bf16_state": None}, TypeError, "bf16_state must be True or False, got None"),
        ({"algorithm": "fastest"}, ValueError, "algorithm must be one of vendor, winograd, .* None, got 'fastest'"),
        ({"algorithm": 3}, ValueError, "algorithm must be one of vendor, winograd, .* None, got 3"),
    ],
)
def test_a_switch_that_is_none_is_refused(switches: dict[str, object], error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=f"^{sentence}$"):
        Lean(**switches)


def test_a_step_takes_its_switches_as_a_Lean_alone() -> None:
    with pytest.raises(TypeError, match=r"^lean must be a Lean, got int$"):
        Pix2PixStep(*plain_networks("batch"), lean=3)
    with pytest.raises(TypeError, match=r"^lean must be a Lean, got dict$"):
        Setting().step(lean={"judge_once": False})


def test_a_graph_is_made_of_a_training_step_alone() -> None:
    with pytest.raises(TypeError, match=r"^step must be a Pix2PixStep or a Pix2PixHDStep, got int$"):
        GraphedStep(3)
