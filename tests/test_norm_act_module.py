"""``nn.NormAct`` behaves like the torch layers it replaces."""

from __future__ import annotations

import copy
import io
import pickle
import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torchp2p.nn import NormAct

LAYERS = {
    "batch": (nn.BatchNorm2d(3), {"norm": "batch"}),
    "batch, not affine": (nn.BatchNorm2d(3, affine=False), {"norm": "batch", "affine": False}),
    "batch, not tracked": (
        nn.BatchNorm2d(3, track_running_stats=False),
        {"norm": "batch", "track_running_stats": False},
    ),
    "batch, average of all": (nn.BatchNorm2d(3, momentum=None), {"norm": "batch", "momentum": None}),
    "instance": (nn.InstanceNorm2d(3), {"norm": "instance"}),
    "instance, affine": (nn.InstanceNorm2d(3, affine=True), {"norm": "instance", "affine": True}),
    "instance, tracked": (
        nn.InstanceNorm2d(3, track_running_stats=True),
        {"norm": "instance", "track_running_stats": True},
    ),
}
every_layer = pytest.mark.parametrize("name", LAYERS)


def pair_of(name, device, act="none"):
    """A torch layer with random parameters, and ours of the same kind."""
    layer, options = LAYERS[name]
    layer = copy.deepcopy(layer).to(device)
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return layer, NormAct(3, act=act, device=device, **options)


def batches(device, count=3):
    return [(1 + index) * torch.randn(2, 3, 6, 7, device=device) + index for index in range(count)]


@every_layer
def test_parameters_and_buffers_are_named_shaped_and_started_as_those_of_torch(name, device):
    layer, ours = copy.deepcopy(LAYERS[name][0]).to(device), NormAct(3, device=device, **LAYERS[name][1])
    assert list(ours.state_dict()) == list(layer.state_dict())
    for key, value in layer.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], value, msg=key)
    assert [key for key, _ in ours.named_parameters()] == [key for key, _ in layer.named_parameters()]
    assert ours.state_dict()._metadata == layer.state_dict()._metadata


@every_layer
def test_checkpoints_interchange_with_torch_both_ways(name, device):
    layer, ours = pair_of(name, device)
    x = torch.randn(2, 3, 5, 5, device=device)
    for module in (layer, ours):
        module(x)
    ours.load_state_dict(layer.state_dict())
    torch.testing.assert_close(ours.eval()(x), layer.eval()(x))
    other, _ = pair_of(name, device)
    other.load_state_dict(ours.state_dict())
    torch.testing.assert_close(other.eval()(x), ours(x))


@every_layer
def test_training_and_evaluation_give_what_torch_gives(name, device):
    layer, ours = pair_of(name, device)
    ours.load_state_dict(layer.state_dict())
    for x in batches(device):
        torch.testing.assert_close(ours(x), layer(x), rtol=1e-5, atol=1e-5)
    for key, value in layer.state_dict().items():
        # torch's InstanceNorm2d has a count of batches and never counts.
        if key != "num_batches_tracked" or ours.norm == "batch":
            torch.testing.assert_close(ours.state_dict()[key], value, rtol=1e-5, atol=1e-5, msg=key)
    x = torch.randn(2, 3, 6, 7, device=device)
    torch.testing.assert_close(ours.eval()(x), layer.eval()(x), rtol=1e-5, atol=1e-5)
    before = copy.deepcopy(ours.state_dict())
    ours(x)
    assert all(torch.equal(before[key], value) for key, value in ours.state_dict().items())


def test_without_momentum_the_running_mean_is_the_mean_of_all_batches(device):
    ours = NormAct(3, norm="batch", momentum=None, device=device)
    means = [(ours(x), x.mean((0, 2, 3)))[1] for x in batches(device, 5)]
    torch.testing.assert_close(ours.running_mean, torch.stack(means).mean(0), rtol=1e-5, atol=1e-5)
    assert ours.num_batches_tracked.item() == 5


@pytest.mark.parametrize("version", [None, 1])
def test_checkpoints_from_before_batches_were_counted_count_from_zero(version, device):
    ours = NormAct(3, norm="batch", device=device)
    state = nn.BatchNorm2d(3).state_dict()
    del state["num_batches_tracked"]
    state._metadata[""] = {} if version is None else {"version": version}
    ours(torch.randn(2, 3, 4, 4, device=device))
    ours.load_state_dict(state)
    assert ours.num_batches_tracked.item() == 0


def test_a_newer_checkpoint_that_lacks_the_count_is_refused(device):
    state = nn.BatchNorm2d(3).state_dict()
    del state["num_batches_tracked"]
    with pytest.raises(RuntimeError, match="num_batches_tracked"):
        NormAct(3, norm="batch", device=device).load_state_dict(state)


def test_all_in_one_is_the_sequence_of_layers(device):
    ours = NormAct(3, norm="batch", act="leaky_relu", slope=0.1, pad=2, pad_mode="replicate", device=device)
    x, residual = (torch.randn(2, 3, 5, 6, device=device) for _ in range(2))
    expected = F.pad(F.leaky_relu(nn.BatchNorm2d(3, device=device)(x) + residual, 0.1), (2,) * 4, mode="replicate")
    torch.testing.assert_close(ours(x, residual), expected)


@every_layer
def test_copies_and_pickles_are_independent_equals(name, device):
    ours = NormAct(3, device=device, **LAYERS[name][1])
    x = torch.randn(2, 3, 4, 5, device=device)
    ours(x)
    for twin in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert torch.equal(twin.eval()(x), ours.eval()(x))
        assert repr(twin) == repr(ours)
        for mine, theirs in zip(ours.state_dict().values(), twin.state_dict().values(), strict=True):
            assert mine.data_ptr() != theirs.data_ptr()


def test_the_state_loads_from_a_file_that_may_hold_weights_only(device):
    ours, file = NormAct(3, norm="batch", device=device), io.BytesIO()
    ours(torch.randn(2, 3, 4, 4, device=device))
    torch.save(ours.state_dict(), file)
    file.seek(0)
    twin = NormAct(3, norm="batch", device=device)
    twin.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(twin.running_mean, ours.running_mean)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_a_module_moves_to_another_dtype(dtype, device):
    ours = NormAct(3, norm="batch", device=device).to(dtype)
    y = ours(torch.randn(2, 3, 4, 4, device=device, dtype=dtype))
    assert y.dtype == ours.running_mean.dtype == dtype
    assert ours.num_batches_tracked.dtype == torch.long


def test_a_module_can_be_made_without_memory_and_filled_later(device):
    ours = NormAct(3, norm="batch", device="meta").to_empty(device=device)
    ours.reset_parameters()
    x = torch.randn(2, 3, 4, 4, device=device)
    torch.testing.assert_close(ours(x), NormAct(3, norm="batch", device=device)(x))


def test_a_module_compiles_whole_in_training_mode(device):
    torch._dynamo.reset()
    ours = NormAct(3, norm="batch", pad=1, device=device)
    twin = copy.deepcopy(ours)
    compiled = torch.compile(ours, backend="aot_eager", fullgraph=True)
    for x in batches(device):
        torch.testing.assert_close(compiled(x), twin(x))
    torch.testing.assert_close(ours.state_dict(), twin.state_dict())
    assert ours.num_batches_tracked.item() == 3


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "NormAct(3, norm=instance, act=leaky_relu, slope=0.2, affine=False, track_running_stats=False)"),
        (
            {"norm": "batch", "act": "relu", "pad": 1},
            "NormAct(3, norm=batch, act=relu, pad=1, pad_mode=reflect, affine=True, track_running_stats=True)",
        ),
        ({"norm": "none", "act": "tanh"}, "NormAct(3, norm=none, act=tanh)"),
    ],
)
def test_the_representation_says_what_is_in_force(options, text):
    assert repr(NormAct(3, **options)) == text


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"norm": "group"}, "norm must be one of instance, batch, none, got 'group'"),
        ({"act": "gelu"}, "act must be one of leaky_relu, relu, none, tanh, got 'gelu'"),
        ({"pad_mode": "wrap"}, "pad_mode must be one of reflect, replicate, zeros, got 'wrap'"),
        ({"norm": "none", "affine": True}, "norm 'none' has no affine parameters and no running statistics"),
        ({"norm": "none", "track_running_stats": True}, "norm 'none' has no affine parameters"),
    ],
)
def test_options_that_make_no_sense_are_refused_when_the_module_is_made(options, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        NormAct(3, **options)


def test_another_number_of_channels_is_refused_by_name(device):
    sentence = "weight must have shape (4,), one value per channel of x, got (3,)"
    with pytest.raises(ValueError, match=re.escape(sentence)):
        NormAct(3, norm="batch", device=device)(torch.randn(2, 4, 5, 5, device=device))
