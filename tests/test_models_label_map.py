"""``LabelMap``: networks do with labels looked up what they do with one-hot channels (spec section 11.2 R6, R8, R9)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from torchp2p.models import GlobalGenerator, LabelMap, LocalEnhancer, MultiscaleDiscriminator, encode_labels

LABELS, UNKNOWN = 5, 255
LABEL = torch.randint(0, LABELS, (2, 1, 32, 64), generator=torch.Generator().manual_seed(1))
INST = torch.randint(0, 3, (2, 1, 32, 64), generator=torch.Generator().manual_seed(2))
FEATURES = torch.randn(2, 3, 32, 64, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
NETWORKS = {
    "global": lambda channels: GlobalGenerator(channels, 3, 2, 2, 1),
    "global, batch norm": lambda channels: GlobalGenerator(channels, 3, 2, 2, 1, norm="batch"),
    "local": lambda channels: LocalEnhancer(channels, 3, 2, 2, 1, n_local_enhancers=2, n_blocks_local=1),
}


def label_map(features: bool = False, inst: Tensor | None = INST, **options) -> LabelMap:
    labels = LabelMap(options.pop("label", LABEL), inst, LABELS, dtype=torch.float64, **options)
    return labels.with_features(FEATURES if features else None)


@pytest.mark.parametrize("features", [False, True])
@pytest.mark.parametrize("inst", [None, INST])
def test_it_stands_for_one_hot_labels_edges_and_features(features: bool, inst: Tensor | None) -> None:
    expected = encode_labels(LABEL, inst, LABELS, dtype=torch.float64)
    if features:
        expected = torch.cat((expected, FEATURES), 1)
    labels = label_map(features, inst)
    assert torch.equal(labels.tensor(), expected)
    assert labels.channels == expected.shape[1]


@pytest.mark.parametrize("features", [False, True])
@pytest.mark.parametrize("network", NETWORKS)
def test_generators_make_the_same_image_of_it_and_of_its_channels(network: str, features: bool) -> None:
    labels = label_map(features)
    G = NETWORKS[network](labels.channels).double()
    torch.testing.assert_close(G(labels), G(labels.tensor()), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("network", NETWORKS)
def test_generators_get_the_same_gradients(network: str) -> None:
    labels = label_map(features=True)
    G = NETWORKS[network](labels.channels).double()
    found = []
    for seen in (labels, labels.tensor()):
        used = [parameter for name, parameter in G.named_parameters() if "bias" not in name]
        found.append(torch.autograd.grad(G(seen).square().sum(), used))
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-12)


def test_features_get_a_gradient_through_every_level() -> None:
    G = NETWORKS["local"](LABELS + 1 + 3).double()
    gradients = []
    for dense in (False, True):
        features = FEATURES.clone().requires_grad_()
        seen = label_map().with_features(features)
        G(seen.tensor() if dense else seen).square().sum().backward()
        gradients.append(features.grad)
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("num_D", [1, 3])
def test_discriminators_share_it_as_they_share_its_channels(num_D: int) -> None:
    labels = label_map()
    D = MultiscaleDiscriminator(labels.channels + 3, 2, 2, num_D).double()
    found, expected = D(FEATURES, D.share(labels)), D(torch.cat((labels.tensor(), FEATURES), 1))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_an_ignored_id_is_zero_in_every_channel() -> None:
    label = LABEL.clone()
    label[0, 0, 3, 4:9] = UNKNOWN
    labels = label_map(label=label, ignored=UNKNOWN)
    assert not labels.tensor()[0, :LABELS, 3, 4:9].any()
    G = NETWORKS["global"](labels.channels).double()
    torch.testing.assert_close(G(labels), G(labels.tensor()), rtol=1e-12, atol=1e-12)


def test_an_id_out_of_range_is_refused_at_once_with_its_place() -> None:
    label = LABEL.clone()
    label[1, 0, 2, 7] = 99
    with pytest.raises(ValueError, match=r"label must be ids 0\.\.4 .* got 99 in sample 1 at row 2, column 7"):
        label_map(label=label)


@pytest.mark.parametrize("inst", [None, INST])
@pytest.mark.parametrize("network", NETWORKS)
def test_a_network_that_was_made_for_features_refuses_labels_without(network: str, inst: Tensor | None) -> None:
    G = NETWORKS[network](LABELS + 1 + 3).double()
    with pytest.raises(ValueError, match=r"channels"):
        G(label_map(inst=inst))


def test_hooks_on_the_first_convolution_see_tensors() -> None:
    labels = label_map()
    G = NETWORKS["global"](labels.channels).double()
    seen = []
    first = next(module for module in G.modules() if isinstance(module, nn.Conv2d))
    expected = G(labels)
    first.register_forward_hook(lambda _module, inputs, output: seen.append((inputs[0].shape, output.shape)))
    torch.testing.assert_close(G(labels), expected, rtol=1e-12, atol=1e-12)
    assert seen == [((2, LABELS + 1, 32, 64), (2, 2, 32, 64))]
