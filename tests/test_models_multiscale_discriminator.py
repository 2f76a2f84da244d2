"""The multiscale discriminator of pix2pixHD (spec sections 3.2, 3.3)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from network_testing import assert_close, assert_same_function, layout, parameter_count, randomise
from torch import Tensor, nn

from benchmarks.plain.pix2pixhd import PlainMultiscale
from torchp2p.models import MultiscaleDiscriminator

NORMS = ("instance", "batch")


class Flat(nn.Module):
    """All that a discriminator hands out, one after the other."""

    def __init__(self, net: Callable[[Tensor], list[list[Tensor]]]) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([map_.flatten() for scale in self.net(x) for map_ in scale])


@pytest.mark.parametrize(("num_D", "parameters"), [(1, 2_801_601), (2, 5_603_202), (3, 8_404_803)])
def test_each_scale_has_the_published_parameters_and_entries(num_D, parameters):
    with torch.device("meta"):
        net = MultiscaleDiscriminator(39, num_D=num_D)
    assert (parameter_count(net), len(net.state_dict())) == (parameters, 10 * num_D)


@pytest.mark.parametrize("features", [True, False])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("n_layers", "num_D"), [(3, 2), (1, 1), (2, 3), (5, 1)])
def test_keys_shapes_and_their_order_are_the_originals(n_layers, num_D, norm, features):
    with torch.device("meta"):
        ours = MultiscaleDiscriminator(39, 64, n_layers, num_D, norm, features)
        assert layout(ours) == layout(PlainMultiscale(39, 64, n_layers, num_D, norm, features))


def test_the_published_keys_have_the_published_shapes():
    with torch.device("meta"):
        grouped = MultiscaleDiscriminator(39, norm="batch").state_dict()
        flat = MultiscaleDiscriminator(39, norm="batch", get_interm_feat=False).state_dict()
    assert grouped["scale1_layer2.0.weight"].shape == (256, 128, 4, 4)
    assert grouped["scale1_layer2.1.running_mean"].shape == (256,)
    convs = [name for name, value in flat.items() if name.startswith("layer1.") and value.dim() == 4]
    assert convs == [f"layer1.{index}.weight" for index in (0, 2, 5, 8, 11)]
    norms = [name for name in flat if name.startswith("layer1.") and name.endswith("running_var")]
    assert norms == [f"layer1.{index}.running_var" for index in (3, 6, 9)]


@pytest.mark.parametrize("features", [True, False])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("n_layers", "num_D"), [(3, 2), (2, 3), (1, 1)])
def test_it_computes_what_the_plain_layers_compute(n_layers, num_D, norm, features):
    ours = MultiscaleDiscriminator(5, 2, n_layers, num_D, norm, features)
    theirs = PlainMultiscale(5, 2, n_layers, num_D, norm, features)
    x = torch.randn(2, 5, 32, 50, dtype=torch.float64)
    assert_same_function(Flat(ours).double(), Flat(theirs).double(), x)


@pytest.mark.parametrize("features", [True, False])
@pytest.mark.parametrize("norm", NORMS)
def test_channels_that_images_share_may_be_convolved_beforehand(norm, features):
    net = MultiscaleDiscriminator(5, 2, 2, 2, norm, features).double()
    randomise(net)
    labels, image = torch.randn(2, 3, 32, 50).double(), torch.randn(2, 2, 32, 50).double().requires_grad_()
    both = [
        Flat(lambda x: net(x, net.share(labels)))(image),
        Flat(lambda x: net(torch.cat((labels, x), 1)))(image),
    ]
    assert_close(*both, "result")
    gradients = []
    for result in both:
        weighted = (result * torch.linspace(-1, 1, result.numel(), dtype=result.dtype)).sum()
        gradients.append(torch.autograd.grad(weighted, [image, *net.parameters()]))
    noise = 1e-3 * max(gradient.abs().max().item() for gradient in gradients[1])
    for mine, plain in zip(*gradients, strict=True):
        assert_close(mine, plain, "gradient", at_least=noise)


def test_an_image_must_have_the_channels_that_are_not_shared():
    net = MultiscaleDiscriminator(5, 1)
    with pytest.raises(RuntimeError, match="to have 2 channels, but got 3 channels"):
        net(torch.randn(1, 3, 16, 16), net.share(torch.randn(1, 3, 16, 16)))


SHAPES = {
    (512, 1024): [
        [(64, 257, 513), (128, 129, 257), (256, 65, 129), (512, 66, 130), (1, 67, 131)],
        [(64, 129, 257), (128, 65, 129), (256, 33, 65), (512, 34, 66), (1, 35, 67)],
        [(64, 65, 129), (128, 33, 65), (256, 17, 33), (512, 18, 34), (1, 19, 35)],
    ],
    (256, 256): [
        [(64, 129, 129), (128, 65, 65), (256, 33, 33), (512, 34, 34), (1, 35, 35)],
        [(64, 65, 65), (128, 33, 33), (256, 17, 17), (512, 18, 18), (1, 19, 19)],
        [(64, 33, 33), (128, 17, 17), (256, 9, 9), (512, 10, 10), (1, 11, 11)],
    ],
}


@pytest.mark.parametrize("size", SHAPES)
def test_features_have_the_published_shapes_full_resolution_first(size):
    with torch.device("meta"):
        found = MultiscaleDiscriminator(39, num_D=3)(torch.empty(1, 39, *size))
    assert [[tuple(each.shape[1:]) for each in scale] for scale in found] == SHAPES[size]


def test_at_2048_by_1024_each_scale_is_the_finer_one_of_1024_by_512():
    with torch.device("meta"):
        found = MultiscaleDiscriminator(39, num_D=3)(torch.empty(1, 39, 1024, 2048))
    shapes = [[tuple(each.shape[1:]) for each in scale] for scale in found]
    assert shapes[1:] == SHAPES[512, 1024][:2]
    assert shapes[0] == [(64, 513, 1025), (128, 257, 513), (256, 129, 257), (512, 130, 258), (1, 131, 259)]


def test_without_features_each_scale_is_a_list_of_its_decisions():
    with torch.device("meta"):
        found = MultiscaleDiscriminator(39, num_D=2, get_interm_feat=False)(torch.empty(1, 39, 512, 1024))
    assert [[tuple(each.shape[1:]) for each in scale] for scale in found] == [[(1, 67, 131)], [(1, 35, 67)]]


def test_channels_stop_at_512_whatever_ndf_is():
    with torch.device("meta"):
        net = MultiscaleDiscriminator(3, ndf=96, num_D=1)
    assert [net.get_submodule(f"scale0_layer{layer}")[0].out_channels for layer in range(4)] == [96, 192, 384, 512]


def test_scale_names_count_from_the_coarsest():
    net = MultiscaleDiscriminator(1, 1, 1, 2)
    for name, parameter in net.named_parameters():
        torch.nn.init.constant_(parameter, float(name.startswith("scale1")))
    full, half = net(torch.rand(1, 1, 16, 16) + 1)
    assert full[0].abs().min() > 0
    assert not half[0].any()


@pytest.mark.parametrize(("scale", "field"), [(0, 70), (1, 141), (2, 283)])
def test_one_decision_of_each_scale_sees_a_patch_of_the_published_size(scale, field):
    net = MultiscaleDiscriminator(1, 1, num_D=3, norm="batch").double().eval()
    for parameter in net.parameters():
        torch.nn.init.constant_(parameter, 0.1)
    x = torch.rand(1, 1, 640, 640, dtype=torch.float64, requires_grad=True)
    decisions = net(x)[scale][-1]
    decisions[0, 0, decisions.shape[2] // 2, decisions.shape[3] // 2].backward()
    assert x.grad is not None
    rows, columns = x.grad[0, 0].nonzero(as_tuple=True)
    assert (rows.max() - rows.min() + 1, columns.max() - columns.min() + 1) == (field, field)


def test_decisions_are_not_squashed_and_features_are_rectified_leakily():
    net = MultiscaleDiscriminator(3, 4, 2, 1)
    torch.nn.init.constant_(net.get_submodule("scale0_layer3")[0].bias, 7.0)
    *features, decisions = net(torch.randn(1, 3, 32, 32))[0]
    assert decisions.mean() > 5
    for feature in features[1:]:
        assert -feature.min() < 0.5 * feature.max()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "none"}, "norm must be one of batch, instance, got 'none'"),
        ({"num_D": 0}, "num_D must be a positive int, got 0"),
        ({"n_layers": -1}, "n_layers must be a positive int, got -1"),
    ],
)
def test_a_bad_option_is_named_with_what_was_expected(options, message):
    with pytest.raises(ValueError, match=message):
        MultiscaleDiscriminator(39, **options)
