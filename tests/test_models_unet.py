"""The U-Nets and the encoder-decoder (spec sections 2.2, 2.3)."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from network_testing import assert_same_function, layout, parameter_count
from torch import nn

from benchmarks.plain.pix2pix import NORMS, PlainEncoderDecoder, PlainUnet
from torchp2p.models import encoder_decoder, unet_128, unet_256
from torchp2p.models.unet import UnetLevel

LEVELS = {unet_128: 7, unet_256: 8}
DROPOUT_LEVELS = {
    (unet_128, "pytorch"): (4, 5),
    (unet_256, "pytorch"): (4, 5, 6),
    (unet_128, "paper"): (4, 5, 6),
    (unet_256, "paper"): (5, 6, 7),
}


def plain(make, norm, variant="pytorch", dropout=False, ngf=2):
    levels = DROPOUT_LEVELS[make, variant] if dropout else ()
    return PlainUnet(3, 2, LEVELS[make], ngf, norm, levels, skip_first=variant == "pytorch").double()


def dropout_sizes(net, size):
    """Heights of what each dropout is given, in the order of the forward pass."""
    seen = []
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.register_forward_hook(lambda _, args, __: seen.append(args[0].shape[2]))
    net(torch.randn(1, 3, size, size))
    return seen


@pytest.mark.parametrize(
    ("make", "norm", "parameters", "entries"),
    [
        (unet_256, "batch", 54_413_955, 82),
        (unet_256, "instance", 54_409_603, 32),
        (unet_256, "none", 54_404_099, 17),
        (unet_128, "batch", 41_828_995, 70),
        (unet_128, "instance", 41_825_667, 28),
        (unet_128, "none", 41_821_187, 15),
    ],
)
def test_a_unet_has_the_published_parameters_and_entries(make, norm, parameters, entries):
    with torch.device("meta"):
        net = make(3, 3, norm=norm)
    assert parameter_count(net) == parameters
    assert len(net.state_dict()) == entries


@pytest.mark.parametrize("variant", ["pytorch", "paper"])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("make", [unet_128, unet_256])
@pytest.mark.parametrize("use_dropout", [False, True])
def test_keys_shapes_and_their_order_are_the_originals(make, norm, variant, use_dropout):
    net = make(3, 2, 2, norm, use_dropout, variant)
    assert layout(net) == layout(plain(make, norm))


def test_keys_of_unet_256_read_as_in_published_checkpoints():
    with torch.device("meta"):
        entries = dict(layout(unet_256(3, 3)))
    inner = "model.model.1" + ".model.3" * 6 + ".model"
    assert entries["model.model.0.weight"] == (64, 3, 4, 4)
    assert entries["model.model.1.model.1.weight"] == (128, 64, 4, 4)
    assert entries["model.model.1.model.2.running_var"] == (128,)
    assert entries["model.model.1.model.2.num_batches_tracked"] == ()
    assert entries["model.model.1.model.5.weight"] == (256, 64, 4, 4)
    assert entries["model.model.3.weight"] == (128, 3, 4, 4)
    assert entries["model.model.3.bias"] == (3,)
    assert entries[f"{inner}.1.weight"] == (512, 512, 4, 4)
    assert entries[f"{inner}.3.weight"] == (512, 512, 4, 4)
    assert entries[f"{inner}.4.weight"] == (512,)
    assert f"{inner}.2.weight" not in entries


@pytest.mark.parametrize("variant", ["pytorch", "paper"])
@pytest.mark.parametrize("norm", NORMS)
def test_a_unet_computes_what_the_plain_layers_compute(norm, variant):
    ours = unet_128(3, 2, 2, norm, False, variant).double()
    theirs = plain(unet_128, norm, variant)
    assert_same_function(ours, theirs, torch.randn(2, 3, 128, 128, dtype=torch.float64))


def test_unet_256_computes_what_the_plain_layers_compute_at_batch_1():
    ours = unet_256(3, 2, 2, use_dropout=False).double()
    assert_same_function(ours, plain(unet_256, "batch"), torch.randn(1, 3, 256, 256, dtype=torch.float64))


@pytest.mark.parametrize("variant", ["pytorch", "paper"])
def test_a_unet_drops_exactly_what_the_plain_layers_drop(variant):
    ours = unet_128(3, 2, 2, "batch", True, variant).double()
    theirs = plain(unet_128, "batch", variant, dropout=True)
    assert_same_function(ours, theirs, torch.randn(2, 3, 128, 128, dtype=torch.float64))


def test_in_eval_mode_a_unet_uses_running_statistics_and_no_dropout():
    ours = unet_128(3, 2, 2).double().eval()
    theirs = plain(unet_128, "batch", dropout=True).eval()
    assert_same_function(ours, theirs, torch.randn(1, 3, 128, 128, dtype=torch.float64))


@pytest.mark.parametrize(
    ("make", "variant", "size", "expected"),
    [
        (unet_256, "pytorch", 256, [4, 8, 16]),
        (unet_256, "paper", 256, [2, 4, 8]),
        (unet_128, "pytorch", 128, [4, 8]),
        (unet_128, "paper", 128, [2, 4, 8]),
    ],
)
def test_dropout_stands_at_the_sizes_of_its_variant(make, variant, size, expected):
    assert dropout_sizes(make(3, 3, 1, variant=variant), size) == expected


def test_without_use_dropout_nothing_is_random():
    net = unet_128(3, 3, 1, use_dropout=False)
    x = torch.randn(1, 3, 128, 128)
    assert dropout_sizes(net, 128) == []
    assert torch.equal(net(x), net(x))


@pytest.mark.parametrize(("variant", "skip_half"), [("pytorch", 0), ("paper", 1)])
def test_the_skip_is_concatenated_first_in_pytorch_and_last_in_the_paper(variant, skip_half):
    net = unet_128(3, 3, 2, variant=variant, use_dropout=False)
    skips = []

    def compare(module, args, out):
        x = args[0]
        skips.append(torch.equal(out.chunk(2, dim=1)[skip_half], F.relu(x)))

    for module in net.modules():
        if isinstance(module, UnetLevel):
            module.register_forward_hook(compare)
    net(torch.randn(1, 3, 128, 128))
    assert skips == [True] * 6


@pytest.mark.parametrize(("make", "size"), [(unet_128, (128, 256)), (unet_256, (256, 512))])
def test_a_unet_keeps_the_size_and_stays_within_tanh(make, size):
    y = make(1, 4, 1)(torch.randn(2, 1, *size))
    assert y.shape == (2, 4, *size)
    assert y.abs().max() <= 1


def test_a_size_that_does_not_fit_is_named_with_its_multiple():
    with pytest.raises(ValueError, match="multiples of 256 for this network, got 300x256"):
        unet_256(3, 3, 1)(torch.zeros(1, 3, 300, 256))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "layer"}, "norm must be one of batch, instance, none, got 'layer'"),
        ({"variant": "torch7"}, "variant must be one of pytorch, paper, got 'torch7'"),
        ({"ngf": 0}, "ngf must be a positive int, got 0"),
    ],
)
def test_a_bad_option_is_named_with_what_was_expected(options, message):
    with pytest.raises(ValueError, match=message):
        unet_128(3, 3, **options)


@pytest.mark.parametrize("norm", NORMS)
def test_the_encoder_decoder_computes_what_the_plain_layers_compute(norm):
    ours = encoder_decoder(3, 2, 2, norm, use_dropout=False).double()
    theirs = PlainEncoderDecoder(3, 2, 2, norm).double()
    assert_same_function(ours, theirs, torch.randn(2, 3, 256, 256, dtype=torch.float64))


def test_the_encoder_decoder_drops_exactly_what_the_plain_layers_drop():
    ours = encoder_decoder(3, 2, 2).double()
    theirs = PlainEncoderDecoder(3, 2, 2, "batch", dropout=True).double()
    assert_same_function(ours, theirs, torch.randn(1, 3, 256, 256, dtype=torch.float64))


def test_the_encoder_decoder_has_a_1x1_bottleneck_of_8_ngf_channels_without_norm():
    net = encoder_decoder(3, 3, 2)
    assert net.encoder(torch.randn(1, 3, 256, 256)).shape == (1, 16, 1, 1)
    assert not any(name.startswith("encoder.norm7") for name in net.state_dict())


def test_the_encoder_decoder_has_dropout_on_its_first_three_decoder_layers():
    assert dropout_sizes(encoder_decoder(3, 3, 1), 256) == [2, 4, 8]


def test_the_encoder_decoder_has_no_skips_at_full_width():
    with torch.device("meta"):
        ours, theirs = encoder_decoder(3, 3), PlainEncoderDecoder(3, 3, 64, "batch")
    assert parameter_count(ours) == parameter_count(theirs)
    assert ours.decoder.conv3.weight.shape == (512, 512, 4, 4)
    assert ours.decoder.conv7.weight.shape == (64, 3, 4, 4)


def test_keys_of_the_encoder_decoder_are_stable():
    entries = [name for name, _ in layout(encoder_decoder(3, 3, 1, "instance"))]
    stages = [(part, conv) for part in ("encoder", "decoder") for conv in range(8)]
    expected = [f"{part}.conv{conv}.{entry}" for part, conv in stages for entry in ("weight", "bias")]
    assert entries == expected
