"""Every mistake about a network of somebody else's, in ``verify`` and ``export``, is one sentence and costs no file."""

from __future__ import annotations

from pathlib import Path

import pytest

from torchp2p.cli.main import main

NETS = """
from torch import nn

def good():
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.InstanceNorm2d(8), nn.LeakyReLU(0.2), nn.Conv2d(8, 3, 1))

class Failing(nn.Module):
    def forward(self, x):
        raise KeyError("inside")

number = 3
"""

CALLS = {
    "too few dimensions": (["--shape=1x3x16"], 1, "the network cannot be called with inputs of shape 1x3x16: "),
    "other channels": (["--shape=1x4x16x16"], 1, "inputs of shape 1x4x16x16: RuntimeError: Given groups=1"),
    "no shape": ([], 2, "--shape is missing"),
    "a shape that is none": (["--shape=axb"], 2, "--shape must be sizes as in 1x3x256x256"),
    "options that it does not have": (["--shape=1x3x16x16", "--options={a: 1}"], 1, "unexpected keyword argument 'a'"),
    "weights that are none": (["--shape=1x3x16x16", "--weights=junk.pth"], 1, "junk.pth is damaged or is not a"),
    "weights that are not there": (["--shape=1x3x16x16", "--weights=no.pth"], 1, "weights file no.pth does not exist"),
}
OF_VERIFY = {
    "a device that is none": (["--device=gpu"], 2, "device must be auto, cpu, cuda or cuda:N, got 'gpu'"),
    "a folder that is not there": (["--json=no/page.json"], 1, "No such file or directory: no/page.json"),
    "a folder that is a file": (["--markdown=kept.pt2/page.md"], 1, "Not a directory: kept.pt2/page.md"),
    "no steps": (["--steps=0"], 1, "steps must be at least 1, got 0"),
}
OF_EXPORT = {
    "another suffix": ("net.trt", [], 1, "path must end in .onnx or .pt2, got net.trt"),
    "a folder that is not there": ("no/net.pt2", [], 1, "No such file or directory: no/net.pt2"),
    "a folder that is a file": ("kept.pt2/net.pt2", [], 1, "Not a directory: kept.pt2/net.pt2"),
    "a negative tolerance": ("kept.pt2", ["--tolerance=-1"], 1, "tolerance must not be negative, got -1.0"),
}


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    """Run a command; what it said, once that is one line and every file is as it was."""
    monkeypatch.chdir(tmp_path)
    for name, text in (("nets.py", NETS), ("junk.pth", "junk"), ("kept.pt2", "kept")):
        Path(name).write_text(text)

    def run(arguments: list[str], status: int) -> str:
        assert main(arguments) == status
        out, err = capfd.readouterr()
        assert out == ""
        assert len(err.splitlines()) == 1, err
        assert {path.name for path in tmp_path.iterdir()} - {"__pycache__"} == {"nets.py", "junk.pth", "kept.pt2"}
        assert Path("kept.pt2").read_text() == "kept"
        return err

    return run


@pytest.mark.parametrize("command", [["verify"], ["export"]], ids=lambda command: command[0])
@pytest.mark.parametrize(("options", "status", "sentence"), CALLS.values(), ids=CALLS.keys())
def test_what_a_network_cannot_be_called_or_made_with_is_said(command, options, status, sentence, said) -> None:
    file = ["kept.pt2"] if command == ["export"] else []
    assert sentence in said([*command, "nets.py:good", *file, *options], status)


@pytest.mark.parametrize(
    ("network", "status", "sentence"),
    [
        ("nets.py:Failing", 1, "1x3x8x8: KeyError: 'inside'"),
        ("nets.py:goood", 2, "nets.py has no 'goood'; did you mean 'good'?"),
        ("nets.py:number", 2, "nets.py:number must be a network or make one, got a int"),
        ("nets.py:", 2, "a network is named as package.module:name"),
        ("no.py:good", 1, "the file no.py does not exist"),
    ],
)
def test_what_is_no_network_is_said(network, status, sentence, said) -> None:
    for command in (["verify", network], ["export", network, "kept.pt2"]):
        assert sentence in said([*command, "--shape=1x3x8x8"], status)


@pytest.mark.parametrize(("options", "status", "sentence"), OF_VERIFY.values(), ids=OF_VERIFY.keys())
def test_verify_says_what_it_cannot_do_before_it_does_anything(options, status, sentence, said) -> None:
    assert sentence in said(["verify", "nets.py:good", "--shape=1x3x8x8", *options], status)


@pytest.mark.parametrize(("file", "options", "status", "sentence"), OF_EXPORT.values(), ids=OF_EXPORT.keys())
def test_export_says_what_it_cannot_write(file, options, status, sentence, said) -> None:
    assert sentence in said(["export", "nets.py:good", file, "--shape=1x3x8x8", *options], status)
