"""``nn.ConvNormAct`` and ``nn.ConvTransposeNormAct`` behave like the torch layers that they stand for."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from torchp2p.nn import ConvNormAct, ConvTransposeNormAct, NormAct
from torchp2p.nn.conv_norm_act import chained
from torchp2p.ops import Deferred

ACTIVATIONS = {"relu": nn.ReLU(), "leaky_relu": nn.LeakyReLU(0.2), "tanh": nn.Tanh(), "none": nn.Identity()}

# Ours, and the same as torch's conv and norm.
PAIRS = {
    "instance": (ConvNormAct(3, 5, 3, 1, 1), nn.Conv2d(3, 5, 3, 1, 1), nn.InstanceNorm2d(5)),
    "reflect": (
        ConvNormAct(3, 5, 3, padding=1, padding_mode="reflect", bias=False),
        nn.Conv2d(3, 5, 3, padding=1, padding_mode="reflect", bias=False),
        nn.InstanceNorm2d(5),
    ),
    "batch": (ConvNormAct(3, 5, 4, 2, 1, norm="batch"), nn.Conv2d(3, 5, 4, 2, 1), nn.BatchNorm2d(5)),
    "instance, affine and tracked": (
        ConvNormAct(3, 5, 3, affine=True, track_running_stats=True),
        nn.Conv2d(3, 5, 3),
        nn.InstanceNorm2d(5, affine=True, track_running_stats=True),
    ),
    "batch, average of all": (
        ConvNormAct(3, 5, 3, norm="batch", momentum=None), nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5, momentum=None),
    ),
    "transposed": (
        ConvTransposeNormAct(3, 5, 3, 2, 1, 1, norm="batch", bias=False),
        nn.ConvTranspose2d(3, 5, 3, 2, 1, 1, bias=False),
        nn.BatchNorm2d(5),
    ),
}  # fmt: skip
every_pair = pytest.mark.parametrize("name", PAIRS)


def pair_of(name: str, device: torch.device, act: str = "leaky_relu"):
    """Ours, and torch's layers under the same names with the same random parameters."""
    ours, conv, norm = (copy.deepcopy(layer).to(device) for layer in PAIRS[name])
    ours.norm.act = act
    plain = nn.Sequential()
    plain.add_module("conv", conv)
    plain.add_module("norm", norm)
    for parameter in plain.parameters():
        nn.init.normal_(parameter)
    ours.load_state_dict(plain.state_dict(), strict=True)
    plain.add_module("act", copy.deepcopy(ACTIVATIONS[act]))
    return ours, plain


def running(net: nn.Module) -> dict[str, torch.Tensor]:
    """The running statistics. (torch's instance norm has a counter of batches, and does not count.)"""
    return {name: value for name, value in net.named_buffers() if "running" in name}


def gradients(net: nn.Module, y: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of every parameter, zeros where there is none (a bias without effect)."""
    named = dict(net.named_parameters())
    found = torch.autograd.grad(y.square().sum(), list(named.values()), allow_unused=True)
    return {
        name: torch.zeros_like(p) if grad is None else grad
        for (name, p), grad in zip(named.items(), found, strict=True)
    }


@every_pair
def test_parameters_and_buffers_are_named_and_shaped_as_those_of_torch(name, device):
    ours, plain = pair_of(name, device)
    assert [(key, value.shape) for key, value in ours.state_dict().items()] == [
        (key, value.shape) for key, value in plain.state_dict().items()
    ]
    plain.load_state_dict(ours.state_dict(), strict=True)


@pytest.mark.parametrize("act", ACTIVATIONS)
@every_pair
def test_a_block_is_conv_norm_act_in_a_sequential(name, act, device):
    ours, plain = (net.double() for net in pair_of(name, device, act))
    for _ in range(3):
        x = torch.randn(2, 3, 8, 10, dtype=torch.float64, device=device)
        found, expected = ours(x), plain(x)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(gradients(ours, found), gradients(plain, expected), rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(running(ours), running(plain))
    torch.testing.assert_close(ours.eval()(x), plain.eval()(x))


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@every_pair
def test_a_deferred_block_is_read_by_the_next_as_its_activation(name, training, device):
    ours, plain = (net.double().train(training) for net in pair_of(name, device, "relu"))
    after = ConvNormAct(5, 4, 3, padding=1, padding_mode="reflect", dtype=torch.float64, device=device)
    x = torch.randn(2, 3, 8, 10, dtype=torch.float64, device=device)
    deferred = ours(x, defer=True)
    assert isinstance(deferred, Deferred)
    torch.testing.assert_close(after(deferred), after(plain(x)))
    torch.testing.assert_close(running(ours), running(plain))


def test_a_residual_is_added_before_the_activation(device):
    ours, plain = pair_of("reflect", device, "relu")
    x, residual = torch.randn(2, 3, 6, 7, device=device), torch.randn(2, 5, 6, 7, device=device)
    expected = torch.relu(plain.norm(plain.conv(x)) + residual)
    torch.testing.assert_close(ours(x, residual), expected)
    torch.testing.assert_close(ours(x, residual, defer=True).tensor(), expected)


@pytest.mark.parametrize("make", [ConvNormAct, ConvTransposeNormAct])
def test_parameters_start_as_those_of_the_torch_layers(make):
    torch.manual_seed(3)
    ours = make(3, 5, 3)
    torch.manual_seed(3)
    torch_layer = (nn.Conv2d if make is ConvNormAct else nn.ConvTranspose2d)(3, 5, 3)
    assert torch.equal(ours.conv.weight, torch_layer.weight)
    assert torch.equal(ours.conv.bias, torch_layer.bias)


@pytest.mark.parametrize("make", [ConvNormAct, ConvTransposeNormAct])
def test_device_and_dtype_are_those_of_all_parameters(make):
    block = make(3, 5, 3, norm="batch", device="meta", dtype=torch.float64)
    floating = [t for t in block.state_dict().values() if t.is_floating_point()]
    assert all(t.dtype == torch.float64 and t.device.type == "meta" for t in floating)


@every_pair
def test_a_block_can_be_copied_pickled_and_saved(name, device):
    ours, _ = pair_of(name, device)
    x = torch.randn(2, 3, 8, 10, device=device)
    file = io.BytesIO()
    torch.save(ours.state_dict(), file)
    file.seek(0)
    loaded = copy.deepcopy(PAIRS[name][0]).to(device)
    loaded.load_state_dict(torch.load(file, weights_only=True))
    copies = [copy.deepcopy(ours), pickle.loads(pickle.dumps(ours)), loaded]
    expected = ours(x)
    for each in copies:
        assert torch.equal(each(x), expected)
        torch.testing.assert_close(each.state_dict(), ours.state_dict(), rtol=0, atol=0)


def test_repr_shows_both_layers():
    assert repr(ConvNormAct(3, 5, 3, padding=1, padding_mode="reflect", act="relu")) == (
        "ConvNormAct(\n"
        "  (conv): Conv2d(3, 5, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), padding_mode=reflect)\n"
        "  (norm): NormAct(5, norm=instance, act=relu, affine=False, track_running_stats=False)\n"
        ")"
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"padding_mode": "circular"}, "padding_mode must be one of reflect, replicate, zeros, got 'circular'"),
        ({"norm": "layer"}, "norm must be one of"),
        ({"act": "gelu"}, "act must be one of"),
        ({"pad": 1}, "norm must not pad, whoever reads the result does"),
    ],
)
def test_the_constructor_refuses_what_the_op_would_refuse(options, words):
    with pytest.raises(ValueError, match=words):
        ConvNormAct(3, 5, 3, **options)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(4, 4, 3, dilation=2),
        nn.Conv2d(4, 4, 3, groups=2),
        nn.Conv2d(4, 4, 3, padding=(1, 0)),
        nn.Conv2d(4, 4, 3, padding="same"),
    ],
    ids=["dilation", "groups", "unequal padding", "same"],
)
def test_a_convolution_that_cannot_be_chained_is_refused(conv):
    with pytest.raises(ValueError, match="conv must have equal paddings, no dilation and one group"):
        chained(conv, NormAct(4), torch.zeros(1, 4, 8, 8))


@every_pair
@pytest.mark.parametrize("hooked", ["conv", "norm"])
def test_hooks_on_its_parts_run_and_change_nothing(name, hooked, device):
    ours, _ = pair_of(name, device)
    x = torch.randn(2, 3, 8, 9, device=device)
    expected = copy.deepcopy(ours)(x)
    seen = []
    ours.get_submodule(hooked).register_forward_hook(lambda *_: seen.append(hooked))
    torch.testing.assert_close(ours(x), expected, rtol=1e-5, atol=1e-5)
    assert seen == [hooked]


@pytest.mark.parametrize("pad_mode", ["reflect", "replicate", "zeros"])
def test_hooks_change_nothing_where_the_padding_and_the_activation_come_from_outside(pad_mode, device):
    conv, norm = nn.Conv2d(3, 3, 3, padding=int(pad_mode == "zeros"), device=device), NormAct(3, act="relu")
    before = Deferred(torch.randn(2, 3, 8, 9, device=device), norm="instance", act="relu")
    residual = torch.randn(2, 3, 8, 9, device=device)
    expected = chained(conv, norm, before, residual, pad_mode=pad_mode, padding=1)
    norm.register_forward_hook(lambda *_: None)
    found = chained(conv, norm, before, residual, pad_mode=pad_mode, padding=1, defer=True)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
