"""Checkpoints into networks (spec section 2.9)."""

from __future__ import annotations

import os
import pickle
import re

import pytest
import torch
from network_testing import randomise
from torch import nn

from benchmarks.plain.pix2pix import PlainPatchDiscriminator, PlainResnet, PlainUnet
from torchp2p.models import (
    PatchDiscriminator,
    PixelDiscriminator,
    define_G,
    describe_state_dict,
    encoder_decoder,
    load_state_dict_compatible,
    load_weights,
    resnet_6blocks,
    resnet_9blocks,
    unet_128,
    unet_256,
)
from torchp2p.models.resnet import ResnetGenerator


def assert_filled(net, state_dict):
    for name, value in net.state_dict().items():
        assert torch.equal(value, state_dict[name]), name


def checkpoint_of(net):
    randomise(net)
    return net.state_dict()


def test_a_checkpoint_of_plain_layers_fills_the_network():
    checkpoint = checkpoint_of(PlainUnet(3, 3, 7, 2, "batch"))
    net = unet_128(3, 3, 2)
    report = load_state_dict_compatible(net, checkpoint)
    assert_filled(net, checkpoint)
    assert report.loaded == tuple(checkpoint)
    assert (report.dropped, report.defaulted, report.fresh, report.unused) == ((), (), (), ())
    assert not report.stripped_prefix


def test_our_checkpoint_fills_plain_layers():
    checkpoint = checkpoint_of(PatchDiscriminator(6, 2))
    net = PlainPatchDiscriminator(6, 2, 3, "batch")
    load_state_dict_compatible(net, checkpoint)
    assert_filled(net, checkpoint)


def test_a_module_prefix_is_stripped():
    checkpoint = checkpoint_of(PatchDiscriminator(6, 2))
    net = PatchDiscriminator(6, 2)
    report = load_state_dict_compatible(net, {f"module.{name}": value for name, value in checkpoint.items()})
    assert_filled(net, checkpoint)
    assert report.stripped_prefix


def test_a_module_prefix_stays_where_the_network_has_it_too():
    wrapped = nn.ModuleDict({"module": PatchDiscriminator(6, 2)})
    checkpoint = checkpoint_of(nn.ModuleDict({"module": PatchDiscriminator(6, 2)}))
    assert not load_state_dict_compatible(wrapped, checkpoint).stripped_prefix
    assert_filled(wrapped, checkpoint)


def test_running_statistics_under_old_instance_norms_are_dropped():
    net = resnet_6blocks(3, 3, 2, "instance", use_dropout=False)
    checkpoint = checkpoint_of(PlainResnet(3, 3, 2, "instance", 6))
    stale = {
        "model.2.running_mean": torch.zeros(2),
        "model.2.running_var": torch.ones(2),
        "model.10.conv_block.2.num_batches_tracked": torch.tensor(7),
    }
    report = load_state_dict_compatible(net, {**checkpoint, **stale})
    assert_filled(net, checkpoint)
    assert report.dropped == tuple(stale)


def test_missing_batch_counts_become_zero():
    net = PatchDiscriminator(6, 2)
    counts = [name for name in net.state_dict() if name.endswith("num_batches_tracked")]
    net.model.get_submodule("3").num_batches_tracked.fill_(5)
    checkpoint = checkpoint_of(PatchDiscriminator(6, 2))
    report = load_state_dict_compatible(net, {name: value for name, value in checkpoint.items() if name not in counts})
    assert report.defaulted == tuple(counts)
    assert not set(counts) & set(report.loaded)
    assert all(net.state_dict()[name] == 0 for name in counts)


@pytest.mark.parametrize(
    ("theirs", "ours", "message"),
    [
        (unet_128(3, 3, 2), unet_128(3, 3, 4), "checkpoint has ngf 2, this network has ngf 4"),
        (
            unet_128(1, 2, 1),
            unet_128(3, 3, 1),
            "input_nc 1, output_nc 2, this network has input_nc 3, output_nc 3",
        ),
        (unet_128(3, 3, 1), unet_128(3, 3, 1, "instance"), "has norm batch, this network has norm instance"),
        (unet_128(3, 3, 1, "none"), unet_128(3, 3, 1), "has norm none, this network has norm batch"),
        (unet_128(3, 3, 1), unet_256(3, 3, 1), "has netG unet_128, this network has netG unet_256"),
        (
            resnet_9blocks(3, 3, 1),
            resnet_6blocks(3, 3, 1),
            "resnet_9blocks, this network has netG resnet_6blocks",
        ),
        (
            resnet_6blocks(3, 3, 1),
            unet_128(3, 3, 1),
            "has netG resnet_6blocks, this network has netG unet_128",
        ),
        (encoder_decoder(3, 3, 1), unet_256(3, 3, 1), "netG encoder_decoder, this network has netG unet_256"),
        (
            resnet_6blocks(3, 3, 1),
            resnet_6blocks(3, 3, 1, use_dropout=False),
            "use_dropout True, .* use_dropout False",
        ),
        (
            resnet_6blocks(3, 3, 1, padding_type="zero"),
            resnet_6blocks(3, 3, 1),
            "has padding_type zero, this network has padding_type reflect",
        ),
        (
            resnet_6blocks(3, 3, 1, "instance", use_dropout=False),
            resnet_6blocks(3, 3, 2),
            "ngf 1, norm instance, use_dropout False, this network has ngf 2, norm batch, use_dropout True",
        ),
        (
            PatchDiscriminator(6, 1, 3),
            PatchDiscriminator(6, 1, 5),
            "n_layers_D 3, this network has n_layers_D 5",
        ),
        (
            PatchDiscriminator(3, 2),
            PatchDiscriminator(6, 1),
            "input_nc 3, ndf 2, this network has input_nc 6, ndf 1",
        ),
        (PatchDiscriminator(6, 1), PixelDiscriminator(6, 1), "netD n_layers, this network has netD pixel"),
        (PatchDiscriminator(6, 1), unet_128(3, 3, 1), "has netD n_layers, this network has netG unet_128"),
    ],
)
def test_a_checkpoint_of_other_options_is_refused_by_naming_them(theirs, ours, message):
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    with pytest.raises(ValueError, match=message) as caught:
        load_state_dict_compatible(ours, theirs.state_dict())
    assert "weight" not in str(caught.value)
    assert_filled(ours, before)


def test_a_checkpoint_of_an_unknown_network_is_refused_by_its_first_entries():
    checkpoint = dict(PatchDiscriminator(6, 1).state_dict())
    del checkpoint["model.5.weight"], checkpoint["model.6.bias"]
    checkpoint["extra"] = torch.zeros(1)
    checkpoint["model.3.weight"] = torch.zeros(7)
    message = (
        "checkpoint does not fit this network: 4 entries differ, first "
        "model.3.weight has shape (7,), expected (2,); model.5.weight is missing; model.6.bias is missing"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_state_dict_compatible(PatchDiscriminator(6, 1), checkpoint)


@pytest.mark.parametrize(
    "net",
    [
        unet_128(3, 3, 1),
        resnet_6blocks(3, 3, 1),
        encoder_decoder(3, 3, 1),
        PatchDiscriminator(6, 1),
        PixelDiscriminator(6, 1),
    ],
)
def test_a_checkpoint_without_any_one_of_its_entries_is_refused(net):
    for name in net.state_dict():
        if not name.endswith("num_batches_tracked"):
            checkpoint = dict(net.state_dict())
            del checkpoint[name]
            with pytest.raises(ValueError, match="checkpoint does not fit this network: "):
                load_state_dict_compatible(net, checkpoint)


def test_an_empty_checkpoint_is_refused():
    with pytest.raises(ValueError, match="checkpoint does not fit this network: 7 entries differ"):
        load_state_dict_compatible(PatchDiscriminator(6, 1, norm="none"), {})


def test_without_strict_what_fits_is_copied_and_the_rest_reported():
    checkpoint = checkpoint_of(PatchDiscriminator(3, 2, 3))
    net = PatchDiscriminator(6, 2, 4)
    first = net.state_dict()["model.0.weight"].clone()
    report = load_state_dict_compatible(net, checkpoint, strict=False)
    after = net.state_dict()
    assert torch.equal(after["model.0.weight"], first)
    assert torch.equal(after["model.5.weight"], checkpoint["model.5.weight"])
    assert "model.0.weight" in report.fresh
    assert "model.14.weight" in report.fresh
    assert "model.0.weight" in report.unused
    assert {*report.loaded, *report.fresh} == set(after)
    assert report.fresh_modules == ("model",)


@pytest.mark.parametrize("netG", ["unet_128", "unet_256", "encoder_decoder", "resnet_6blocks", "resnet_9blocks"])
@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
def test_a_generator_is_made_again_from_what_its_weights_say(netG, norm):
    net = define_G(netG, 1, 2, 3, norm, use_dropout=False)
    options = describe_state_dict(net.state_dict())
    assert {**options, "use_dropout": False, "padding_type": "reflect"} == {
        "netG": netG,
        "input_nc": 1,
        "output_nc": 2,
        "ngf": 3,
        "norm": norm,
        "use_dropout": False,
        "padding_type": "reflect",
    }


@pytest.mark.parametrize("padding_type", ["reflect", "zero"])
@pytest.mark.parametrize("use_dropout", [True, False])
@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
def test_the_weights_of_a_resnet_say_dropout_and_padding(norm, use_dropout, padding_type):
    options = describe_state_dict(ResnetGenerator(3, 3, 1, norm, use_dropout, 2, padding_type).state_dict())
    assert options["netG"] == "resnet_2blocks"
    assert (options["use_dropout"], options["padding_type"]) == (use_dropout, padding_type)


def test_the_weights_of_a_discriminator_say_its_options():
    patch = describe_state_dict(PatchDiscriminator(6, 4, 5, "instance").state_dict())
    assert patch == {"netD": "n_layers", "input_nc": 6, "ndf": 4, "norm": "instance", "n_layers_D": 5}
    pixel = describe_state_dict(PixelDiscriminator(4, 3, "none").state_dict())
    assert pixel == {"netD": "pixel", "input_nc": 4, "ndf": 3, "norm": "none"}


@pytest.mark.parametrize("net", [nn.Linear(2, 2), nn.Sequential(nn.Conv2d(3, 3, 3)), nn.BatchNorm2d(3)])
def test_the_weights_of_an_unknown_network_say_nothing(net):
    assert describe_state_dict(net.state_dict()) is None


class TestLoadWeights:
    @pytest.mark.parametrize("zipped", [True, False])
    def test_a_saved_state_dict_comes_back_in_its_order_on_the_cpu(self, tmp_path, zipped):
        checkpoint = checkpoint_of(PatchDiscriminator(6, 2))
        path = tmp_path / "latest_net_D.pth"
        torch.save(checkpoint, path, _use_new_zipfile_serialization=zipped)
        loaded = load_weights(path)
        assert list(loaded) == list(checkpoint)
        assert all(torch.equal(loaded[name], checkpoint[name]) for name in checkpoint)

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"weights file .*no\.pth does not exist"):
            load_weights(tmp_path / "no.pth")

    def test_a_folder_is_named(self, tmp_path):
        with pytest.raises(IsADirectoryError, match="is a folder"):
            load_weights(str(tmp_path))

    @pytest.mark.parametrize("zipped", [True, False])
    @pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.99])
    def test_a_truncated_file_is_refused(self, tmp_path, zipped, kept):
        path = tmp_path / "cut.pth"
        torch.save(PatchDiscriminator(6, 2).state_dict(), path, _use_new_zipfile_serialization=zipped)
        path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
        with pytest.raises(ValueError, match="is damaged"):
            load_weights(path)

    @pytest.mark.parametrize(
        "content",
        [b"", b"version https://git-lfs.github.com/spec/v1\n", b"<html>404</html>", b"\x89PNG\r\n\x1a\n"],
    )
    def test_a_file_of_another_kind_is_refused(self, tmp_path, content):
        path = tmp_path / "other.pth"
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is damaged"):
            load_weights(path)

    @pytest.mark.parametrize("save", [torch.save, lambda o, path: path.write_bytes(pickle.dumps(o, protocol=2))])
    def test_pickled_code_is_refused_and_does_not_run(self, tmp_path, save):
        class Payload:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "ran"),)

        path = tmp_path / "code.pth"
        save({"weight": Payload()}, path)
        with pytest.raises(ValueError, match="carries pickled Python objects"):
            load_weights(path)
        assert not (tmp_path / "ran").exists()

    def test_a_whole_pickled_network_is_refused(self, tmp_path):
        path = tmp_path / "net.pth"
        torch.save(nn.Linear(2, 2), path)
        with pytest.raises(ValueError, match="carries pickled Python objects"):
            load_weights(path)

    @pytest.mark.parametrize(
        ("content", "got"),
        [
            (torch.zeros(3), "got a Tensor"),
            ([torch.zeros(3)], "got a list"),
            ({"epoch": 3, "net": {}}, "got a int under 'epoch'"),
            ({"net": {"weight": torch.zeros(1)}}, "got a dict under 'net'"),
        ],
    )
    def test_something_else_than_a_state_dict_is_refused(self, tmp_path, content, got):
        path = tmp_path / "else.pth"
        torch.save(content, path)
        with pytest.raises(ValueError, match=f"must hold a state_dict.*{got}"):
            load_weights(path)
