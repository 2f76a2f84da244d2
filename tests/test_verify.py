"""``verify``: what passes, what fails, and the page that it writes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from torch import nn
from zoo import ZOO

from torchp2p import fuse, verify
from torchp2p.cli.main import main
from torchp2p.fuse import layers

QUICK = {"steps": 2, "repeats": 1}


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(True), nn.Conv2d(4, 3, 1), nn.Tanh())


def images() -> torch.Tensor:
    return torch.rand(2, 3, 12, 10, generator=torch.Generator().manual_seed(2)) * 2 - 1


@pytest.mark.parametrize("name", sorted(ZOO))
def test_every_network_of_the_zoo_passes(name):
    certificate = verify(*ZOO[name].small(), **QUICK)
    assert certificate.passed, certificate.to_markdown()
    assert len(certificate.report.fused) == ZOO[name].runs
    assert certificate.measured.speedup > 0
    assert 0 < certificate.measured.memory_ratio <= 1.001


def test_the_network_is_not_changed():
    net = network()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    state = torch.get_rng_state()
    verify(net, images(), **QUICK)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())


def test_a_network_may_change_its_input_in_place():
    net = nn.Sequential(nn.LeakyReLU(0.2, inplace=True), nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4))
    x = images()
    before = x.clone()
    assert verify(net, x, **QUICK).passed
    assert torch.equal(x, before)


def test_a_fused_network_is_held_against_what_it_was():
    certificate = verify(fuse(network()), images(), **QUICK)
    assert certificate.passed
    assert certificate.network == "Sequential"
    assert len(certificate.report.fused) == 2


def failed(monkeypatch, wrong) -> list[str]:
    """Names of the checks that fail when the state between two runs goes through ``wrong``."""
    plain = layers.runs_of

    def broken(links):
        return [*plain(links), wrong]

    monkeypatch.setattr(layers, "runs_of", broken)
    return [check.name for check in verify(network(), images(), **QUICK).checks if not check.passed]


def test_a_small_fault_of_the_result_fails(monkeypatch):
    names = failed(monkeypatch, lambda x: layers.computed(x) * (1 + 1e-8))
    assert "outputs, float64, training mode" in names
    assert "outputs, float64, eval mode" in names
    assert not [name for name in names if "float32" in name]  # it is lost among the roundings there


def test_a_fault_of_the_gradient_alone_fails(monkeypatch):
    names = failed(monkeypatch, lambda x: layers.computed(x).detach() * 0.1 + layers.computed(x) * 0.9)
    assert "outputs, float64, training mode" not in names
    assert "input gradients, float64, training mode" in names
    assert "parameter gradients, float64, training mode" in names
    assert "gradients, float32, against float64" in names
    assert not [name for name in names if name.startswith("outputs")]


def test_a_network_in_eval_mode_is_checked_in_eval_mode():
    names = [check.name for check in verify(network().eval(), images(), **QUICK).checks]
    assert not [name for name in names if "training mode" in name]


def test_the_page_and_the_json_say_the_same():
    certificate = verify(network(), images(), **QUICK)
    page, data = certificate.to_markdown(), json.loads(certificate.to_json())
    assert page.startswith("# Sequential: fused against original\n\n**Passed**: 12 of 12 checks, on 2x3x12x10.\n")
    assert page.count("\n") < 60
    assert data["passed"] is True
    assert [check["name"] for check in data["checks"]] == [check.name for check in certificate.checks]
    assert data["ratios"]["speedup"] == certificate.measured.speedup
    assert data["report"]["fused"][0]["layers"] == ["Conv2d", "BatchNorm2d", "ReLU"]
    for check in certificate.checks:
        assert f"| {check.name} | {check.found} | {check.bound} | passed |" in page


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ((nn.ReLU(), []), ValueError, "example_inputs must hold at least one tensor, got none"),
        ((nn.ReLU(), [3]), TypeError, "example_inputs[0] must be a Tensor, got int"),
        ((torch.relu, torch.ones(1)), TypeError, "module must be a torch.nn.Module"),
    ],
)
def test_what_cannot_be_checked_is_refused(arguments, error, sentence):
    with pytest.raises(error, match=re.escape(sentence)):
        verify(*arguments)


def test_counts_below_one_are_refused():
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        verify(network(), images(), steps=0)


# --- the command -----------------------------------------------------------------------------------------

PROJECT = """
from torch import nn

def generator(width=4, affine=False):
    norm = nn.InstanceNorm2d(width, affine=affine)
    return nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(3, width, 3), norm, nn.ReLU())

net = generator()
number = 3
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "networks.py").write_text(PROJECT)
    return tmp_path


SHORT = ["--shape", "1x3x8x8", "--steps=1", "--repeats=1"]


@pytest.mark.parametrize("target", ["networks.py:generator", "networks:generator", "networks.py:net"])
def test_the_command_prints_the_page_and_writes_the_files(project, target, capsys):
    assert main(["verify", target, *SHORT, "--markdown=page.md", "--json=page.json"]) == 0
    printed = capsys.readouterr().out
    assert printed == (project / "page.md").read_text()
    assert "**Passed**" in printed
    assert json.loads((project / "page.json").read_text())["passed"] is True


def test_the_command_takes_options_and_weights(project, capsys):
    net = nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(3, 8, 3), nn.InstanceNorm2d(8, affine=True), nn.ReLU())
    torch.save(net.state_dict(), project / "weights.pth")
    options = ["--options", "{width: 8, affine: true}", "--weights", "weights.pth"]
    assert main(["verify", "networks.py:generator", *SHORT, *options]) == 0
    assert "4 entries, the same" in capsys.readouterr().out


REFUSALS = {
    "no colon": (["networks.py", *SHORT], "a network is named as package.module:name or file.py:name"),
    "no such name": (["networks.py:genrator", *SHORT], "has no 'genrator'; did you mean 'generator'?"),
    "no network": (["networks.py:number", *SHORT], "must be a network or make one, got a int"),
    "no shape": (["networks.py:net"], "--shape is missing"),
    "a shape that is none": (["networks.py:net", "--shape=1x3xtall"], "--shape must be sizes as in 1x3x256x256"),
    "no such file": (["other.py:net", *SHORT], "the file other.py does not exist"),
    "options of a network": (["networks.py:net", *SHORT, "--options={a: 1}"], "--options is for what makes a network"),
    "options that are none": (["networks.py:generator", *SHORT, "--options=[1]"], "--options must be a mapping"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_wrong_call_is_one_sentence(project, name, capsys):
    arguments, sentence = REFUSALS[name]
    assert main(["verify", *arguments]) in (1, 2)
    (line,) = capsys.readouterr().err.splitlines()
    assert sentence in line


def test_weights_that_do_not_fit_are_refused(project, capsys):
    torch.save({"0.weight": torch.zeros(1)}, project / "weights.pth")
    assert main(["verify", "networks.py:generator", *SHORT, "--weights=weights.pth"]) == 1
    assert "weights.pth does not fit networks.py:generator: " in capsys.readouterr().err
