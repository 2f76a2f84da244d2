"""Loss curves and the band of the original procedure: the arithmetic on made-up curves, and a training of a minute."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import pytest

from benchmarks import loss_curves
from benchmarks.curves import band
from benchmarks.step.providers import PROVIDERS
from benchmarks.step.training import Case
from torchp2p.cli.parsing import UsageError

LEVEL = [[1.0] * 20, [3.0] * 20, [2.0] * 20]
needs_matplotlib = pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="matplotlib is missing")

TINY = {"netG": "unet_128", "ngf": 4, "ndf": 4, "no_dropout": True}


# --- the band ---------------------------------------------------------------------------------------------


def test_a_smoothed_loss_is_the_mean_of_the_last_steps() -> None:
    curve = band.smoothed([float(step) for step in range(12)])
    assert curve[:3] == [0.0, 0.5, 1.0]
    assert curve[11] == sum(range(2, 12)) / band.WINDOW


def test_the_band_is_from_the_least_to_the_largest_reference() -> None:
    assert band.band(LEVEL) == [(1.0, 3.0)] * 20


@pytest.mark.parametrize(
    ("level", "inside", "excursion"), [(1.0, 1.0, 0.0), (2.5, 1.0, 0.0), (3.5, 0.0, 0.25), (-1.0, 0.0, 1.0)]
)
def test_a_curve_is_judged_by_how_often_and_how_far_it_leaves_the_band(level, inside, excursion) -> None:
    found = band.judge("a run", "a loss", [level] * 20, LEVEL)
    assert (found.inside, found.excursion) == (inside, pytest.approx(excursion))


def test_the_distance_to_the_references_is_a_root_mean_square_and_of_several_the_mean() -> None:
    one, other = [1.0] * 5 + [3.0] * 5, [2.0] * 10
    assert band.judge("a run", "a loss", [1.0] * 10, [other, other]).apart == pytest.approx(1.0)
    apart = math.dist(band.smoothed(one), other) / math.sqrt(10)
    assert band.judge("a run", "a loss", other, [one, other]).apart == pytest.approx(apart / 2)


def test_what_leaves_a_band_without_width_is_infinitely_far_from_it() -> None:
    same = [[1.0] * 5] * 2
    assert band.judge("a run", "a loss", [1.0] * 5, same).excursion == 0
    assert band.judge("a run", "a loss", [1.5] * 5, same).excursion == float("inf")


@pytest.mark.parametrize(("count", "share"), [(2, 1 / 3), (4, 3 / 5)])
def test_one_more_reference_would_be_the_least_or_the_largest_in_two_of_all_cases(count: int, share: float) -> None:
    assert band.Verdict("a run", "a loss", count, 1.0, 0.0, 0.0).expected == pytest.approx(share)


def test_every_reference_is_judged_by_the_others() -> None:
    references = {str(number): {"G_L1": curve} for number, curve in enumerate(LEVEL)}
    found = band.verdicts({"G_L1": [2.0] * 20}, references, "torchp2p")
    assert [(each.run, each.references, each.inside) for each in found] == [
        ("torchp2p", 3, 1.0),
        ("0", 2, 0.0),
        ("1", 2, 0.0),
        ("2", 2, 1.0),
    ]


# --- a small training -------------------------------------------------------------------------------------


def test_the_first_steps_of_torchp2p_are_as_near_to_the_original_as_float32_is() -> None:
    case = Case("pix2pix", (128, 128), threads=1, changes=TINY)
    plain, moved, ours = (
        loss_curves.run(case, PROVIDERS[name], steps=12, scenes=3)
        for name in ("reference", "channels_last", "torchp2p")
    )
    assert plain.keys() == ours.keys()
    for name, curve in plain.items():
        for step, (theirs, mine) in enumerate(zip(curve, ours[name], strict=True), 1):
            assert mine == pytest.approx(theirs, rel=1e-5), f"{name} of step {step}"
        assert curve != ours[name] or curve != moved[name], f"{name}: nothing was computed in another order"


def test_all_runs_are_rows_that_are_read_back(tmp_path: Path, monkeypatch, capsys) -> None:
    steps = 3
    made = {
        "reference": {"G_L1": [1.0, 2.0, 3.0], "D_real": [1.0, 1.0, 1.0]},
        "channels_last": {"G_L1": [1.0, 2.5, 3.5], "D_real": [0.5, 1.0, 1.0]},
        "torchp2p": {"G_L1": [1.0, 2.25, 4.0], "D_real": [1.0, 1.0, 1.0]},
    }

    def run(case: Case, provider, number: int, scenes: int):
        assert number == steps
        return {name: [value + 0.25 * case.threads for value in curve] for name, curve in made[provider.name].items()}

    monkeypatch.setattr(loss_curves, "run", run)
    loss_curves.main(["--steps", str(steps), "--results", str(tmp_path)])
    title, ours, references = loss_curves.read(tmp_path / "loss_curves_pix2pix.csv")
    assert title.startswith("pix2pix 256x256 in float32, ")
    assert ours == {"D_real": [1.25, 1.25, 1.25], "G_L1": [1.25, 2.5, 4.25]}
    assert list(references) == [
        f"{name}, threads: {threads}" for threads in (1, 2) for name in ("reference", "channels_last")
    ]
    assert references["channels_last, threads: 2"]["G_L1"] == [1.5, 3.0, 4.0]
    assert "excursion" in capsys.readouterr().out


@needs_matplotlib
def test_the_picture_is_made_of_the_rows_alone_and_is_the_same_every_time(tmp_path: Path) -> None:
    rows = ["date,commit,device,torch,preset,size,provider,threads,step,G_L1"]
    for provider, threads, level in (("reference", 1, 1.0), ("channels_last", 2, 1.5), ("torchp2p", 2, 1.2)):
        rows += [
            f"2026-01-01,abc,CPU,2.13,pix2pix,256x256,{provider},{threads},{n},{level + 1 / n}" for n in range(1, 6)
        ]
    (tmp_path / "loss_curves_pix2pix.csv").write_text("\n".join(rows) + "\n")
    pictures = []
    for _ in range(2):
        loss_curves.main(["--draw", "--results", str(tmp_path)])
        pictures.append((tmp_path / "loss_curves_pix2pix.svg").read_text())
    assert pictures[0] == pictures[1]
    assert "<svg" in pictures[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--threads", "1"], "--threads must be at least 2 whole numbers from 1, with a comma, got '1'"),
        (["--threads", "1,0"], "--threads must be at least 2 whole numbers"),
        (["--draw"], "--draw needs the curves in .*, which is not there: run without --draw first"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_sentence(tmp_path: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        loss_curves.main([*arguments, "--results", str(tmp_path)])
