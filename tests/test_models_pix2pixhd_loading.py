"""Checkpoints of pix2pixHD: described, loaded whole, and loaded into larger networks (spec sections 2.9, 13)."""

from __future__ import annotations

import pytest
import torch
from network_testing import randomise

from benchmarks.plain.pix2pix import PlainPatchDiscriminator
from benchmarks.plain.pix2pixhd import PlainEncoder, PlainGlobal, PlainLocal, PlainMultiscale
from torchp2p.models import (
    GlobalGenerator,
    InstanceEncoder,
    LocalEnhancer,
    MultiscaleDiscriminator,
    describe_state_dict,
    generator_from_weights,
    load_pretrain,
    load_state_dict_compatible,
)

PAIRS = {
    "global": (lambda: GlobalGenerator(5, 3, 2), lambda: PlainGlobal(5, 3, 2)),
    "local": (lambda: LocalEnhancer(5, 3, 2), lambda: PlainLocal(5, 3, 2)),
    "encoder": (lambda: InstanceEncoder(3, 3, 2), lambda: PlainEncoder(3, 3, 2)),
    "multiscale": (lambda: MultiscaleDiscriminator(8, 2), lambda: PlainMultiscale(8, 2)),
}


@pytest.mark.parametrize("kind", PAIRS)
def test_checkpoints_load_strictly_between_ours_and_plain_layers(kind):
    ours, plain = (make() for make in PAIRS[kind])
    randomise(plain)
    assert load_state_dict_compatible(ours, plain.state_dict()).loaded == tuple(plain.state_dict())
    plain.load_state_dict(ours.state_dict(), strict=True)


@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize(
    ("make", "described"),
    [
        (
            lambda norm: GlobalGenerator(5, 3, 2, 4, 7, norm),
            {"netG": "global", "input_nc": 5, "output_nc": 3, "ngf": 2, "n_downsample_global": 4, "n_blocks_global": 7},
        ),
        (
            lambda norm: LocalEnhancer(5, 3, 2, 2, 6, 2, 1, norm),
            {
                "netG": "local", "input_nc": 5, "output_nc": 3, "ngf": 2, "n_downsample_global": 2,
                "n_blocks_global": 6, "n_local_enhancers": 2, "n_blocks_local": 1,
            },
        ),
        (
            lambda norm: InstanceEncoder(3, 4, 2, 3, norm),
            {"netE": "instance", "input_nc": 3, "feat_num": 4, "nef": 2, "n_downsample_E": 3},
        ),
        (
            lambda norm: MultiscaleDiscriminator(8, 2, 2, 3, norm),
            {"netD": "multiscale", "input_nc": 8, "ndf": 2, "n_layers_D": 2, "num_D": 3, "get_interm_feat": True},
        ),
        (
            lambda norm: MultiscaleDiscriminator(8, 2, 4, 1, norm, False),
            {"netD": "multiscale", "input_nc": 8, "ndf": 2, "n_layers_D": 4, "num_D": 1, "get_interm_feat": False},
        ),
    ],
)  # fmt: skip
def test_options_are_read_off_a_checkpoint(make, described, norm):
    state_dict = make(norm).state_dict()
    assert describe_state_dict(state_dict) == {**described, "norm": norm}
    assert describe_state_dict({f"module.{name}": value for name, value in state_dict.items()}) == {
        **described,
        "norm": norm,
    }


def test_what_is_near_one_of_the_networks_is_not_taken_for_it():
    state_dict = MultiscaleDiscriminator(8, 2).state_dict()
    assert describe_state_dict({**state_dict, "extra.weight": torch.zeros(1)}) is None
    patch = describe_state_dict(PlainPatchDiscriminator(6, 2, 3, "batch").state_dict())
    assert patch is not None
    assert patch["netD"] == "n_layers"


@pytest.mark.parametrize(
    ("theirs", "ours", "message"),
    [
        (GlobalGenerator(5, 3, 1), LocalEnhancer(5, 3, 1), "has netG global.*, this network has netG local"),
        (MultiscaleDiscriminator(8, 1), MultiscaleDiscriminator(8, 1, num_D=3), "num_D 2, this network has num_D 3"),
        (InstanceEncoder(3, 3, 1), GlobalGenerator(3, 3, 1), "has netE instance, this network has netG global"),
        (InstanceEncoder(3, 3, 1), MultiscaleDiscriminator(8, 1), "netE instance, this network has netD multiscale"),
        (InstanceEncoder(3, 3, 1), InstanceEncoder(3, 3, 2), "has nef 1, this network has nef 2"),
    ],
)
def test_a_strict_load_names_the_options_that_differ(theirs, ours, message):
    with pytest.raises(ValueError, match=message):
        load_state_dict_compatible(ours, theirs.state_dict())


def test_a_global_generator_fills_the_global_part_of_a_local_enhancer():
    plain = PlainGlobal(5, 3, 4)
    randomise(plain)
    net = LocalEnhancer(5, 3, 2)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    report = load_state_dict_compatible(net, plain.state_dict(), strict=False)
    assert (len(report.loaded), len(report.fresh)) == (54, 20)
    assert report.unused == ("model.38.weight", "model.38.bias")
    assert report.fresh_modules == ("model1_1", "model1_2")
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name] if name in report.fresh else plain.state_dict()[name]), name


def test_a_discriminator_of_two_scales_fills_the_coarser_two_of_three():
    plain = PlainMultiscale(8, 2)
    net = MultiscaleDiscriminator(8, 2, num_D=3)
    report = load_state_dict_compatible(net, plain.state_dict(), strict=False)
    assert report.loaded == tuple(plain.state_dict())
    assert report.fresh_modules == tuple(f"scale2_layer{layer}" for layer in range(5))


def test_the_report_says_in_one_line_what_was_copied_dropped_and_left():
    report = load_state_dict_compatible(LocalEnhancer(5, 3, 2), PlainGlobal(5, 3, 4).state_dict(), strict=False)
    assert report.summary() == (
        "copied 54 entries, dropped 2 without a place (model.38), left 20 as initialised (in model1_1, model1_2)"
    )
    whole = load_state_dict_compatible(LocalEnhancer(5, 3, 2), PlainLocal(5, 3, 2).state_dict())
    assert whole.summary() == "copied 74 entries"


@pytest.mark.parametrize(
    "plain", [PlainGlobal(5, 3, 2, 3, 2), PlainLocal(5, 3, 2, 2, 2, 1, 1), PlainLocal(5, 3, 2, 1, 2, 2, 1, "batch")]
)
def test_a_generator_is_made_from_a_bare_file_of_weights(tmp_path, plain):
    randomise(plain)
    torch.save(plain.state_dict(), tmp_path / "latest_net_G.pth")
    net = generator_from_weights(tmp_path / "latest_net_G.pth")
    x = torch.randn(1, 5, 16, 16)
    torch.testing.assert_close(net(x), plain(x), rtol=1e-3, atol=1e-4)


def files_of_a_training(folder, **networks):
    for label, net in networks.items():
        torch.save(net.state_dict(), folder / f"latest_net_{label}.pth")


def test_a_pretrained_folder_fills_every_network_it_is_asked_for(tmp_path):
    files_of_a_training(tmp_path, G=PlainGlobal(5, 3, 4), D=PlainMultiscale(8, 2), E=PlainEncoder(3, 3, 2))
    networks = {
        "G": LocalEnhancer(5, 3, 2),
        "D": MultiscaleDiscriminator(8, 2, num_D=3),
        "E": InstanceEncoder(3, 3, 2),
    }
    reports = load_pretrain(tmp_path, networks)
    assert {label: len(report.loaded) for label, report in reports.items()} == {"G": 54, "D": 20, "E": 20}


@pytest.mark.parametrize("missing", ["G", "D", "E"])
def test_a_file_that_is_missing_is_an_error_and_nothing_is_changed(tmp_path, missing):
    files_of_a_training(tmp_path, G=PlainGlobal(5, 3, 2), D=PlainMultiscale(8, 2), E=PlainEncoder(3, 3, 2))
    (tmp_path / f"latest_net_{missing}.pth").unlink()
    networks = {"G": GlobalGenerator(5, 3, 2), "D": MultiscaleDiscriminator(8, 2), "E": InstanceEncoder(3, 3, 2)}
    before = {label: [value.clone() for value in net.state_dict().values()] for label, net in networks.items()}
    with pytest.raises(FileNotFoundError, match=f"latest_net_{missing}.pth does not exist"):
        load_pretrain(tmp_path, networks)
    for label, net in networks.items():
        assert all(torch.equal(old, new) for old, new in zip(before[label], net.state_dict().values(), strict=True))


def test_a_file_that_has_nothing_for_its_network_is_an_error(tmp_path):
    files_of_a_training(tmp_path, G=PlainMultiscale(8, 2))
    with pytest.raises(ValueError, match=r"latest_net_G.pth has no entry of the network G"):
        load_pretrain(tmp_path, {"G": GlobalGenerator(5, 3, 2)})


def test_another_epoch_is_read_when_asked_for(tmp_path):
    torch.save(PlainGlobal(5, 3, 2).state_dict(), tmp_path / "20_net_G.pth")
    assert load_pretrain(tmp_path, {"G": GlobalGenerator(5, 3, 2)}, "20")["G"].summary() == "copied 56 entries"
