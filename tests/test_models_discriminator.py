"""The PatchGAN and pixel discriminators (spec section 3.1)."""

from __future__ import annotations

import pytest
import torch
from network_testing import assert_same_function, layout, parameter_count

from benchmarks.plain.pix2pix import NORMS, PlainPatchDiscriminator, PlainPixelDiscriminator
from torchp2p.models import PatchDiscriminator, PixelDiscriminator, define_D
from torchp2p.nn import separate_statistics


def receptive_field(net, size):
    """Height and width of the input region that one central output value depends on."""
    for parameter in net.parameters():
        torch.nn.init.constant_(parameter, 0.1)
    x = torch.rand(1, 1, size, size, dtype=torch.float64, requires_grad=True)
    y = net.double()(x)
    y[0, 0, y.shape[2] // 2, y.shape[3] // 2].backward()
    rows, columns = x.grad[0, 0].nonzero(as_tuple=True)
    return (rows.max() - rows.min() + 1).item(), (columns.max() - columns.min() + 1).item()


@pytest.mark.parametrize(
    ("n_layers", "batch", "instance"),
    [
        (1, 139_585, 139_457),
        (2, 666_433, 666_049),
        (3, 2_768_705, 2_767_809),
        (4, 6_964_033, 6_962_625),
        (5, 11_159_361, 11_157_441),
    ],
)
def test_a_patch_discriminator_has_the_published_parameters(n_layers, batch, instance):
    with torch.device("meta"):
        counts = [parameter_count(PatchDiscriminator(6, 64, n_layers, norm)) for norm in ("batch", "instance")]
    assert counts == [batch, instance]


def test_the_pixel_discriminator_has_the_published_parameters():
    assert parameter_count(PixelDiscriminator(6, norm="batch")) == 9_024
    assert parameter_count(PixelDiscriminator(6, norm="instance")) == 8_897


@pytest.mark.parametrize(("norm", "entries"), [("batch", 22), ("instance", 10), ("none", 7)])
def test_the_basic_discriminator_has_the_published_entries(norm, entries):
    with torch.device("meta"):
        assert len(PatchDiscriminator(6, norm=norm).state_dict()) == entries


@pytest.mark.parametrize(("n_layers", "field"), [(1, 16), (2, 34), (3, 70), (4, 142), (5, 286)])
def test_one_output_value_sees_a_patch_of_the_published_size(n_layers, field):
    assert receptive_field(PatchDiscriminator(1, 1, n_layers, "none"), 2 * field + 40) == (field, field)


def test_one_value_of_the_pixel_discriminator_sees_one_pixel():
    assert receptive_field(PixelDiscriminator(1, 1, "none"), 9) == (1, 1)


@pytest.mark.parametrize(("n_layers", "size"), [(1, 126), (2, 62), (3, 30), (4, 14), (5, 6), (6, 2)])
def test_256_pixels_give_a_map_of_the_published_size(n_layers, size):
    assert PatchDiscriminator(6, 1, n_layers)(torch.randn(1, 6, 256, 256)).shape == (1, 1, size, size)


def test_the_pixel_discriminator_keeps_the_size():
    assert PixelDiscriminator(6, 2)(torch.randn(1, 6, 31, 17)).shape == (1, 1, 31, 17)


def test_a_patch_discriminator_runs_on_any_size():
    assert PatchDiscriminator(6, 1)(torch.randn(1, 6, 100, 333)).shape == (1, 1, 10, 39)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("n_layers", range(1, 7))
def test_keys_shapes_and_their_order_are_the_originals(norm, n_layers):
    assert layout(PatchDiscriminator(6, 2, n_layers, norm)) == layout(PlainPatchDiscriminator(6, 2, n_layers, norm))


@pytest.mark.parametrize("norm", NORMS)
def test_keys_of_the_pixel_discriminator_are_the_originals(norm):
    assert layout(PixelDiscriminator(6, 2, norm)) == layout(PlainPixelDiscriminator(6, 2, norm))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("n_layers", [1, 3, 5])
def test_a_patch_discriminator_computes_what_the_plain_layers_compute(norm, n_layers):
    ours, theirs = PatchDiscriminator(4, 2, n_layers, norm), PlainPatchDiscriminator(4, 2, n_layers, norm)
    assert_same_function(ours.double(), theirs.double(), torch.randn(2, 4, 128, 150, dtype=torch.float64))


@pytest.mark.parametrize("norm", NORMS)
def test_the_pixel_discriminator_computes_what_the_plain_layers_compute(norm):
    ours, theirs = PixelDiscriminator(4, 3, norm), PlainPixelDiscriminator(4, 3, norm)
    assert_same_function(ours.double(), theirs.double(), torch.randn(2, 4, 16, 20, dtype=torch.float64))


def test_in_eval_mode_running_statistics_are_used():
    ours, theirs = (
        PatchDiscriminator(4, 2).double().eval(),
        PlainPatchDiscriminator(4, 2, 3, "batch").double(),
    )
    assert_same_function(ours, theirs.eval(), torch.randn(1, 4, 64, 64, dtype=torch.float64))


def test_logits_are_not_squashed():
    net = PatchDiscriminator(1, 2, 1, "none")
    for parameter in net.parameters():
        torch.nn.init.constant_(parameter, 1.0)
    assert net(torch.ones(1, 1, 32, 32)).min() > 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PatchDiscriminator(6, n_layers=0), "n_layers must be a positive int, got 0"),
        (lambda: PixelDiscriminator(0), "input_nc must be a positive int, got 0"),
        (lambda: PatchDiscriminator(6, norm="spectral"), "norm must be one of batch, instance, none"),
    ],
)
def test_a_bad_option_is_named_with_what_was_expected(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_define_D_makes_each_kind_by_its_name():
    assert layout(define_D("basic", 6, 2, n_layers_D=5)) == layout(PatchDiscriminator(6, 2, 3))
    assert layout(define_D("n_layers", 6, 2, n_layers_D=5)) == layout(PatchDiscriminator(6, 2, 5))
    assert layout(define_D("pixel", 6, 2, norm="instance")) == layout(PixelDiscriminator(6, 2, "instance"))


def test_define_D_lists_its_choices():
    with pytest.raises(ValueError, match="netD must be one of basic, n_layers, pixel, got 'patch'"):
        define_D("patch", 6)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("make", [PatchDiscriminator, PixelDiscriminator])
def test_what_two_images_share_may_be_convolved_once_and_both_judged_as_one_batch(make, samples, norm):
    D, apart = (make(5, 4, norm=norm).double() for _ in range(2))
    apart.load_state_dict(D.state_dict())
    A, *images = (torch.randn(samples, channels, 32, 24).double() for channels in (3, 2, 2))
    expected = [apart(torch.cat((A, image), 1)) for image in images]
    with separate_statistics(D, 2):
        found = D(torch.cat(images), D.share(A)).chunk(2)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    for gradients in zip(
        torch.autograd.grad(sum(y.square().sum() for y in found), list(D.parameters())),
        torch.autograd.grad(sum(y.square().sum() for y in expected), list(apart.parameters())),
        strict=True,
    ):
        torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-10)
