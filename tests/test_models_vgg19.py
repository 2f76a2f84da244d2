"""The frozen VGG-19 features and the file they come from (spec section 4.5)."""

from __future__ import annotations

import copy
import hashlib

import pytest
import torch
from network_testing import assert_close
from torch import nn

from benchmarks.plain.pix2pixhd import PlainVGG19
from torchp2p.models import VGG19Features, download_vgg19_weights


@pytest.fixture(scope="module")
def plain() -> PlainVGG19:
    torch.manual_seed(0)
    return PlainVGG19()


@pytest.fixture(scope="module")
def weights(plain, tmp_path_factory):
    """A file as torchvision publishes it: all sixteen convolutions, and a classifier."""
    path = tmp_path_factory.mktemp("vgg") / "vgg19.pth"
    torch.save({**plain.state_dict(), "classifier.0.weight": torch.zeros(2, 2)}, path)
    return path


def test_the_five_maps_and_their_gradient_are_those_of_the_plain_layers(plain, weights):
    ours, theirs = VGG19Features(weights).double(), PlainVGG19().double()
    theirs.load_state_dict(plain.state_dict())
    found = []
    for net in (ours, theirs):
        x = torch.linspace(-1, 1, 3 * 32 * 48, dtype=torch.float64).reshape(1, 3, 32, 48).sin().requires_grad_()
        maps = net(x)
        sum((each * torch.arange(each.numel()).reshape(each.shape).cos()).sum() for each in maps).backward()
        found.append([*maps, x.grad])
    for index, (mine, plain_one) in enumerate(zip(*found, strict=True)):
        assert mine.shape == plain_one.shape
        assert_close(mine, plain_one, f"map {index + 1}")


def test_float32_maps_are_as_exact_as_those_of_the_plain_layers(plain, weights):
    x = torch.randn(1, 3, 32, 48).tanh()
    found, theirs = VGG19Features(weights)(x), plain(x)
    for mine, plain_one, exact in zip(found, theirs, copy.deepcopy(plain).double()(x.double()), strict=True):
        error, plain_error = ((each.double() - exact).norm() for each in (mine, plain_one))
        assert error <= 2 * plain_error + 1e-7 * exact.norm()


def test_maps_have_the_published_channels_and_sizes(weights):
    shapes = [tuple(each.shape[1:]) for each in VGG19Features(weights)(torch.randn(1, 3, 16, 32))]
    assert shapes == [(64, 16, 32), (128, 8, 16), (256, 4, 8), (512, 2, 4), (512, 1, 2)]


def test_parameters_have_the_names_of_torchvision_and_are_frozen(weights):
    net = VGG19Features(weights)
    indices = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28)
    assert list(net.state_dict()) == [f"features.{i}.{entry}" for i in indices for entry in ("weight", "bias")]
    assert not any(parameter.requires_grad for parameter in net.parameters())


def test_the_image_is_not_overwritten(weights):
    x = torch.randn(1, 3, 16, 16)
    kept = x.clone()
    VGG19Features(weights)(x)
    assert torch.equal(x, kept)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "features.0.weight is missing"),
        ({"features.0.weight": torch.zeros(8, 3, 3, 3)}, r"features.0.weight has shape \(8, 3, 3, 3\), expected"),
        ({"net.0.weight": torch.zeros(1)}, "features.0.weight is missing"),
    ],
)
def test_the_weights_of_another_network_are_one_clear_error(tmp_path, content, message):
    path = tmp_path / "other.pth"
    torch.save(content, path)
    with pytest.raises(ValueError, match=f"other.pth is not that of torchvision's vgg19: .*{message}"):
        VGG19Features(path)


def test_a_vgg_of_another_depth_is_refused(plain, tmp_path):
    path = tmp_path / "vgg16.pth"
    missing = {name: value for name, value in plain.state_dict().items() if not name.startswith("features.16.")}
    torch.save(missing, path)
    with pytest.raises(
        ValueError, match=r"vgg16.pth is not that of torchvision's vgg19: .*features.16.weight is missing"
    ):
        VGG19Features(path)


def test_a_missing_file_is_named_and_nothing_is_downloaded(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "download_url_to_file", None)
    with pytest.raises(FileNotFoundError, match=r"weights file .*none.pth does not exist"):
        VGG19Features(tmp_path / "none.pth")


def test_a_download_is_kept_when_its_checksum_fits(weights, tmp_path):
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    path = download_vgg19_weights(tmp_path / "got.pth", url=weights.as_uri(), sha256=digest[:8])
    assert path.read_bytes() == weights.read_bytes()
    assert isinstance(VGG19Features(path), nn.Module)


def test_a_download_with_another_checksum_leaves_nothing_behind(weights, tmp_path):
    with pytest.raises(ValueError, match="is not the file that was expected: invalid hash value"):
        download_vgg19_weights(tmp_path / "got.pth", url=weights.as_uri())
    assert not list(tmp_path.iterdir())


def test_an_address_that_cannot_be_read_is_named(tmp_path):
    url = (tmp_path / "absent.pth").as_uri()
    with pytest.raises(OSError, match=f"^{url} could not be downloaded"):
        download_vgg19_weights(tmp_path / "got.pth", url=url)


def test_a_file_that_is_there_is_not_fetched_again(weights, tmp_path):
    assert download_vgg19_weights(weights, url=(tmp_path / "absent.pth").as_uri()) == weights
