"""Exported files compute what the network does: they are run, compared, and not left behind when they do not."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch
from network_testing import randomise
from torch import nn
from zoo import ZOO

from torchp2p import export as package
from torchp2p import fuse
from torchp2p.cli.main import main
from torchp2p.export import ExportError, FromLabels, export
from torchp2p.models import (
    GlobalGenerator,
    LocalEnhancer,
    encode_labels,
    resnet_6blocks,
    unet_128,
)
from torchp2p.nn import LabelConv2d

pytestmark = pytest.mark.filterwarnings("error::FutureWarning", "ignore::DeprecationWarning")


def images(count: int, channels: int, height: int, width: int) -> torch.Tensor:
    return torch.rand(count, channels, height, width, generator=torch.Generator().manual_seed(2)) * 2 - 1


def lively(net: nn.Module) -> nn.Module:
    """Weights and running statistics of ordinary sizes."""
    randomise(net)
    return net


NETWORKS = {
    "pix2pix with the statistics of the image": (lambda: unet_128(3, 3, 4), images(1, 3, 128, 128), ".onnx"),
    "pix2pix with the statistics of a batch": (lambda: resnet_6blocks(3, 3, 4), images(2, 3, 16, 20), ".onnx"),
    "pix2pix with running statistics": (lambda: resnet_6blocks(3, 3, 4).eval(), images(1, 3, 16, 20), ".onnx"),
    "pix2pixHD, encoded": (lambda: GlobalGenerator(6, 3, 4, 2, 2), images(1, 6, 16, 32), ".onnx"),
    "a fused network": (lambda: fuse(ZOO["pix2pix_resnet"].make(8)), images(1, 3, 16, 16), ".onnx"),
    "a network of another project, batch statistics": (
        lambda: ZOO["pix2pix_unet"].make(8),
        images(2, 3, 64, 64),
        ".onnx",
    ),
    "a network that changes its input in place": (
        lambda: nn.Sequential(nn.LeakyReLU(0.2, True), nn.Conv2d(3, 3, 3)),
        images(1, 3, 8, 8),
        ".onnx",
    ),
    "several outputs": (lambda: ZOO["nnunet"].make(8), images(1, 1, 16, 16), ".onnx"),
    "torch.export of a U-Net": (lambda: unet_128(3, 3, 4), images(1, 3, 128, 128), ".pt2"),
    "torch.export of pix2pixHD": (lambda: LocalEnhancer(6, 3, 4, 2, 2), images(1, 6, 32, 32), ".pt2"),
    "torch.export of a fused network": (lambda: fuse(ZOO["dcgan_generator"].make(8)), images(2, 16, 1, 1), ".pt2"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_file_computes_what_the_network_does(name, tmp_path):
    make, x, suffix = NETWORKS[name]
    net = lively(make())
    before = {key: value.clone() for key, value in net.state_dict().items()}
    training = net.training
    done = export(net, x, tmp_path / f"net{suffix}")
    assert done.largest_difference <= 1e-5 * max(1, done.largest_value)
    assert done.largest_value > 0.01
    assert done.path.stat().st_size > 1000
    assert not [operator for operator in done.operators if "torchp2p" in operator]
    assert net.training == training
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_norms_are_single_operators_of_onnx(tmp_path):
    net = lively(resnet_6blocks(3, 3, 4))
    of_images = export(net, images(1, 3, 16, 16), tmp_path / "net.onnx").operators
    assert of_images["InstanceNormalization"] == 17
    running = export(net.eval(), images(1, 3, 16, 16), tmp_path / "net.onnx").operators
    assert "InstanceNormalization" not in running
    assert "Dropout" not in of_images


@pytest.mark.parametrize(("edges", "features"), [(True, True), (False, False)])
@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_label_maps_are_encoded_inside_of_the_file(edges, features, suffix, tmp_path):
    generator = lively(GlobalGenerator(5 + edges + 3 * features, 3, 4, 2, 1))
    label, inst = torch.randint(5, (1, 1, 16, 32)), torch.randint(3, (1, 1, 16, 32))
    feat = images(1, 3, 16, 32)
    inputs = [label, *([inst] if edges else []), *([feat] if features else [])]
    net = FromLabels(generator, 5, edges=edges, features=features)
    seen = [encode_labels(label, inst if edges else None, 5), *([feat] if features else [])]
    torch.testing.assert_close(net(*inputs), generator(torch.cat(seen, 1)))
    done = export(net, inputs, tmp_path / f"net{suffix}")
    assert done.largest_difference <= 1e-5
    if suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(done.path, providers=["CPUExecutionProvider"])
        assert [each.name for each in session.get_inputs()] == net.input_names


def test_a_layer_that_looks_labels_up_is_exported_as_a_convolution(tmp_path):
    done = export(LabelConv2d(5, 4, 3, padding=1), torch.randint(5, (1, 1, 8, 8)), tmp_path / "net.pt2")
    assert done.largest_difference <= 1e-5
    assert not [operator for operator in done.operators if "torchp2p" in operator]


def test_a_file_that_computes_something_else_is_not_left(tmp_path, monkeypatch):
    monkeypatch.setattr(package, "at_rest", lambda net: nn.Sequential(net, nn.Dropout(0.5)).eval()[0][:1])
    with pytest.raises(ExportError, match=r"would differ from the network by .* nothing was written"):
        export(nn.Sequential(nn.Conv2d(3, 3, 1), nn.Tanh()), images(1, 3, 8, 8), tmp_path / "net.pt2")
    assert list(tmp_path.iterdir()) == []


def test_the_file_that_was_there_survives_a_failed_export(tmp_path, monkeypatch):
    file = tmp_path / "net.pt2"
    export(nn.Sequential(nn.Conv2d(3, 3, 1)), images(1, 3, 8, 8), file)
    content = file.read_bytes()
    monkeypatch.setattr(package, "at_rest", lambda net: nn.Sequential(net, nn.Dropout(0.5)).eval()[0][:1])
    with pytest.raises(ExportError):
        export(nn.Sequential(nn.Conv2d(3, 3, 1), nn.Tanh()), images(1, 3, 8, 8), file)
    assert file.read_bytes() == content


def test_another_suffix_is_refused(tmp_path):
    with pytest.raises(ValueError, match=re.escape("path must end in .onnx or .pt2, got net.trt")):
        export(nn.ReLU(), images(1, 3, 8, 8), "net.trt")


def test_a_missing_package_is_named_with_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=re.escape("pip install torchp2p[export]")):
        export(nn.ReLU(), images(1, 3, 8, 8), tmp_path / "net.onnx")


# --- the command -----------------------------------------------------------------------------------------


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Bare files of weights of both projects, in the current folder."""
    monkeypatch.chdir(tmp_path)
    torch.save(lively(resnet_6blocks(3, 3, 4)).state_dict(), tmp_path / "p2p_net_G.pth")
    torch.save(lively(GlobalGenerator(9, 3, 4, 3, 2)).state_dict(), tmp_path / "hd_net_G.pth")
    (tmp_path / "networks.py").write_text("from torch import nn\nnet = nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU())\n")
    return tmp_path


HD = ["hd_net_G.pth", "hd.pt2", "--label_nc=8"]
CALLS = {
    "pix2pix": ["p2p_net_G.pth", "net.onnx", "--size=16x24"],
    "pix2pix in evaluation mode": ["p2p_net_G.pth", "net.pt2", "--size=16x24", "--eval", "--batch_size=2"],
    "pix2pixHD from label maps": [*HD, "--size=16x32"],
    "pix2pixHD from channels": [*HD, "--size=16x32", "--encoded"],
    "another project": ["networks.py:net", "net.pt2", "--shape=1x3x8x8"],
}


@pytest.mark.parametrize("name", CALLS)
def test_the_command_writes_the_file_and_says_how_far_it_is_off(name, weights, capsys):
    assert main(["export", *CALLS[name]]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{CALLS[name][1]}: ")
    assert re.fullmatch(r"largest difference \S+ \(allowed 1e-04\) where values reach \S+", second)
    assert (weights / CALLS[name][1]).is_file()


REFUSALS = {
    "no size": (HD, "--size is missing"),
    "no shape": (["networks.py:net", "net.pt2"], "--shape is missing"),
    "encoded images": (["p2p_net_G.pth", "net.pt2", "--encoded"], "--encoded is for pix2pixHD"),
    "a shape for a checkpoint": (["p2p_net_G.pth", "net.pt2", "--shape=1x3x8x8"], "--shape is for package.module:name"),
    "no images": (["p2p_net_G.pth", "net.pt2", "--batch_size=0"], "--batch_size must be at least 1, got 0"),
    "another format": (["p2p_net_G.pth", "net.trt", "--size=16x16"], "path must end in .onnx or .pt2"),
    "no such file": (["none.pth", "net.pt2"], "none.pth"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_wrong_call_is_one_sentence(name, weights, capsys):
    arguments, sentence = REFUSALS[name]
    assert main(["export", *arguments]) in (1, 2)
    (line,) = capsys.readouterr().err.splitlines()
    assert sentence in line
    assert not list(weights.glob("net.*"))
