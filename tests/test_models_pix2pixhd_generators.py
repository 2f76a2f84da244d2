"""GlobalGenerator, LocalEnhancer and InstanceEncoder (spec sections 2.1, 2.5 to 2.8)."""

from __future__ import annotations

import pytest
import torch
from network_testing import assert_close, assert_same_function, layout, parameter_count, randomise
from torch import nn

from benchmarks.plain.pix2pixhd import PlainEncoder, PlainGlobal, PlainLocal
from torchp2p.models import GlobalGenerator, InstanceEncoder, LocalEnhancer, define_hd_G, run_padded
from torchp2p.models.pyramid import pyramid

NORMS = ("instance", "batch")


@pytest.mark.parametrize(
    ("make", "parameters", "entries"),
    [
        (lambda: GlobalGenerator(36, 3), 182_546_755, 56),
        (lambda: GlobalGenerator(39, 3), 182_556_163, 56),
        (lambda: GlobalGenerator(3, 3), 182_443_267, 56),
        (lambda: LocalEnhancer(36, 3), 182_857_059, 74),
        (lambda: LocalEnhancer(39, 3), 182_871_171, 74),
        (lambda: LocalEnhancer(36, 3, ngf=16, n_local_enhancers=2), 182_947_699, 92),
        (lambda: InstanceEncoder(3, 3), 788_803, 20),
    ],
)
def test_a_network_has_the_published_parameters_and_entries(make, parameters, entries):
    with torch.device("meta"):
        net = make()
    assert (parameter_count(net), len(net.state_dict())) == (parameters, entries)


def test_with_batch_norm_the_global_generator_has_the_published_entries():
    with torch.device("meta"):
        assert len(GlobalGenerator(36, 3, norm="batch").state_dict()) == 191


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("halvings", "n_blocks"), [(4, 9), (1, 1), (3, 2)])
def test_keys_shapes_and_order_of_the_global_generator_are_the_originals(norm, halvings, n_blocks):
    ours = GlobalGenerator(5, 2, 3, halvings, n_blocks, norm)
    assert layout(ours) == layout(PlainGlobal(5, 2, 3, halvings, n_blocks, norm))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("enhancers", "n_blocks_local"), [(1, 3), (2, 3), (3, 1)])
def test_keys_shapes_and_order_of_the_local_enhancer_are_the_originals(norm, enhancers, n_blocks_local):
    ours = LocalEnhancer(5, 2, 2, 2, 3, enhancers, n_blocks_local, norm)
    assert layout(ours) == layout(PlainLocal(5, 2, 2, 2, 3, enhancers, n_blocks_local, norm))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("halvings", [1, 4])
def test_keys_shapes_and_order_of_the_encoder_are_the_originals(norm, halvings):
    assert layout(InstanceEncoder(3, 4, 2, halvings, norm)) == layout(PlainEncoder(3, 4, 2, halvings, norm))


def test_the_convolutions_stand_at_the_published_indices():
    with torch.device("meta"):
        G, local, E = (set(net.state_dict()) for net in (GlobalGenerator(36, 3), LocalEnhancer(36, 3), encoder()))
    assert {"model.1.weight", "model.13.weight", "model.16.conv_block.1.weight", "model.24.conv_block.5.bias"} <= G
    assert {"model.25.weight", "model.34.weight", "model.38.bias"} <= G
    assert {"model1_1.4.weight", "model1_2.2.conv_block.5.weight", "model1_2.3.bias", "model1_2.7.weight"} <= local
    assert "model.38.weight" not in local
    assert {"model.1.weight", "model.13.weight", "model.16.weight", "model.25.bias", "model.29.weight"} <= E


def encoder():
    return InstanceEncoder(3, 3)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("size", [(32, 64), (16, 16)])
def test_the_global_generator_computes_what_the_plain_layers_compute(norm, size):
    ours, theirs = GlobalGenerator(5, 3, 2, 3, 2, norm), PlainGlobal(5, 3, 2, 3, 2, norm)
    assert_same_function(ours.double(), theirs.double(), torch.randn(2, 5, *size, dtype=torch.float64))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("enhancers", [1, 2])
def test_the_local_enhancer_computes_what_the_plain_layers_compute(norm, enhancers):
    options = (2, 2, 2, enhancers, 2, norm)
    ours, theirs = LocalEnhancer(5, 3, *options), PlainLocal(5, 3, *options)
    assert_same_function(ours.double(), theirs.double(), torch.randn(2, 5, 32, 64, dtype=torch.float64))


@pytest.mark.parametrize("norm", NORMS)
def test_the_encoder_computes_what_the_plain_layers_compute(norm):
    ids = torch.randint(0, 4, (2, 1, 4, 8)).repeat_interleave(8, 2).repeat_interleave(8, 3) * 1000
    ours, theirs = InstanceEncoder(3, 4, 2, 2, norm).double(), PlainEncoder(3, 4, 2, 2, norm).double()
    image = torch.randn(2, 3, 32, 64, dtype=torch.float64)
    assert_same_function(Given(ours, ids), Given(theirs, ids), image)


class Given(nn.Module):
    """An encoder that is told the ids beforehand."""

    def __init__(self, net, ids):
        super().__init__()
        self.net, self.ids = net, ids

    def forward(self, image):
        return self.net(image, self.ids)


@pytest.mark.parametrize(
    "make", [lambda: GlobalGenerator(5, 3, 2, 1, 1, "batch"), lambda: LocalEnhancer(5, 3, 2, 1, 1)]
)
def test_in_eval_mode_the_networks_compute_what_the_plain_layers_compute(make):
    ours = make().double().eval()
    plain = PlainGlobal(5, 3, 2, 1, 1, "batch") if isinstance(ours, GlobalGenerator) else PlainLocal(5, 3, 2, 1, 1)
    assert_same_function(ours, plain.double().eval(), torch.randn(1, 5, 16, 16, dtype=torch.float64))


def test_hooks_on_layers_run_and_change_nothing():
    net = LocalEnhancer(5, 3, 2, 1, 1).double()
    randomise(net)
    x = torch.randn(1, 5, 16, 16, dtype=torch.float64)
    expected = net(x)
    seen = []
    layers = {name: module for name, module in net.named_modules() if not list(module.children())}
    for name, module in layers.items():
        module.register_forward_hook(lambda _module, _inputs, _output, name=name: seen.append(name))
    assert_close(net(x), expected, "output")
    assert sorted(seen) == sorted(layers)


@pytest.mark.parametrize("make", [lambda: GlobalGenerator(3, 3, 8), lambda: LocalEnhancer(3, 3, 4), encoder])
def test_weights_start_as_the_paper_has_them_and_biases_as_torch_has_them(make):
    for name, value in make().state_dict().items():
        if name.endswith("weight") and value.numel() > 2000:
            assert value.mean().abs() < 0.002
            assert value.std().item() == pytest.approx(0.02, rel=0.1)
    first = make().state_dict()["model.1.bias"]
    bound = (3 * 49) ** -0.5
    assert 0.3 * bound < first.abs().max() <= bound


def test_batch_norms_start_around_one():
    net = GlobalGenerator(3, 3, 16, norm="batch")
    weight, bias = (net.state_dict()[f"model.14.{entry}"] for entry in ("weight", "bias"))
    assert weight.mean().item() == pytest.approx(1, abs=0.01)
    assert weight.std().item() == pytest.approx(0.02, rel=0.4)
    assert not bias.any()


@pytest.mark.parametrize(
    ("net", "multiple"),
    [
        (GlobalGenerator(3, 3, 1), 16),
        (GlobalGenerator(3, 3, 1, n_downsample_global=2), 4),
        (LocalEnhancer(3, 3, 1, n_blocks_global=1), 32),
        (LocalEnhancer(3, 3, 1, 2, 1, n_local_enhancers=2), 16),
    ],
)
def test_any_size_runs_padded_to_the_size_multiple(net, multiple):
    assert net.size_multiple == multiple
    y = run_padded(net, torch.randn(1, 3, multiple + 5, 2 * multiple - 3))
    assert y.shape == (1, 3, multiple + 5, 2 * multiple - 3)
    assert y.abs().max() <= 1


def test_the_global_generator_rounds_sizes_up():
    assert GlobalGenerator(3, 3, 1, 4, 1)(torch.randn(1, 3, 50, 100)).shape == (1, 3, 64, 112)


def test_the_encoder_is_constant_over_an_instance_and_keeps_samples_apart():
    ids = torch.zeros(2, 1, 16, 32, dtype=torch.int32)
    ids[..., 16:] = 26001
    features = InstanceEncoder(3, 3, 2)(torch.randn(2, 3, 16, 32), ids)
    for half in (features[..., :16], features[..., 16:]):
        torch.testing.assert_close(half, half[..., :1, :1].expand_as(half))
    assert not torch.equal(features[0], features[1])


def test_the_encoder_refuses_a_size_that_does_not_fit():
    with pytest.raises(ValueError, match="multiples of 16 for this encoder, got 16x24"):
        InstanceEncoder(3, 3, 1)(torch.randn(1, 3, 16, 24), torch.zeros(1, 1, 16, 24, dtype=torch.int32))


def test_a_corner_of_ones_stays_one_in_the_pyramid():
    assert all(torch.equal(level, torch.ones_like(level)) for level in pyramid(torch.ones(1, 2, 9, 12), 3))


def test_levels_of_the_pyramid_round_up():
    shapes = [tuple(level.shape[2:]) for level in pyramid(torch.randn(1, 2, 9, 12), 3)]
    assert shapes == [(9, 12), (5, 6), (3, 3)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GlobalGenerator(3, 3, norm="none"), "norm must be one of batch, instance, got 'none'"),
        (lambda: GlobalGenerator(3, 3, n_blocks_global=0), "n_blocks_global must be a positive int, got 0"),
        (lambda: LocalEnhancer(3, 3, n_local_enhancers=0), "n_local_enhancers must be a positive int, got 0"),
        (lambda: InstanceEncoder(3, 3, n_downsample_E=0), "n_downsample_E must be a positive int, got 0"),
        (lambda: define_hd_G("unet", 3, 3), "netG must be one of global, local, got 'unet'"),
    ],
)
def test_a_bad_option_is_named_with_what_was_expected(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_define_hd_G_makes_each_kind_by_its_name():
    options = {"ngf": 2, "n_downsample_global": 2, "n_blocks_global": 1}
    assert layout(define_hd_G("global", 5, 3, **options)) == layout(GlobalGenerator(5, 3, 2, 2, 1))
    local = define_hd_G("local", 5, 3, **options, n_local_enhancers=2, n_blocks_local=1)
    assert layout(local) == layout(LocalEnhancer(5, 3, 2, 2, 1, 2, 1))
