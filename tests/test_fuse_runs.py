"""Which layers ``fuse`` takes for a run, and which it leaves alone and why; never a wrong number."""

from __future__ import annotations

import copy

import pytest
import torch
from fuse_case import assert_same_step
from op_testing import saved_tensors
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune, weight_norm

from torchp2p import fuse
from torchp2p.nn import NormAct

SHAPE = (2, 4, 9, 8)


def conv(**options) -> nn.Conv2d:
    return nn.Conv2d(4, 4, 3, **options)


def chain(*layers: nn.Module) -> nn.Sequential:
    """In training, with the same numbers every time, and none that hides behind a 0 or a 1."""
    net = nn.Sequential(*layers)
    torch.manual_seed(1)
    for tensor in (*net.parameters(), *net.buffers()):
        if tensor.is_floating_point() and tensor.dim() == 1:
            nn.init.uniform_(tensor, 0.5, 1.5)
        elif tensor.is_floating_point():
            nn.init.normal_(tensor, 0, tensor[0].numel() ** -0.5)
    return net


def runs_in(net: nn.Module) -> list[str]:
    """The runs of the report, as the first letters of the layers in each."""
    _, report = fuse(net, report=True)
    return ["".join(layer[0] for layer in run.layers) for run in report.fused]


def assert_same(net: nn.Module, shape: tuple[int, ...] = SHAPE) -> None:
    torch.manual_seed(2)
    assert_same_step(fuse(net), net, (torch.randn(shape),), torch.float64)


class OwnConv(nn.Conv2d):
    def forward(self, x):
        return super().forward(x) * 2


# --- runs ------------------------------------------------------------------------------------------------

CHAINS = {
    "conv norm": ((conv(), nn.InstanceNorm2d(4)), ["CI"]),
    "conv norm act": ((conv(), nn.BatchNorm2d(4), nn.ReLU(True)), ["CBR"]),
    "conv act": ((conv(), nn.LeakyReLU(0.1)), ["CL"]),
    "conv act act": ((conv(), nn.Tanh(), nn.ReLU()), ["CT"]),
    "pad conv": ((nn.ReflectionPad2d(2), conv()), ["RC"]),
    "replicate pad conv": ((nn.ReplicationPad2d(2), conv(stride=2)), ["RC"]),
    "zero pad before zero padding": ((nn.ZeroPad2d(1), conv(padding=1)), ["ZC"]),
    "convT norm act": ((nn.ConvTranspose2d(4, 4, 3, 2, 1, 1), nn.InstanceNorm2d(4), nn.ReLU()), ["CIR"]),
    "norm": ((nn.InstanceNorm2d(4),), ["I"]),
    "norm act": ((nn.BatchNorm2d(4), nn.LeakyReLU(0.2, True)), ["BL"]),
    "norm act pad": ((nn.InstanceNorm2d(4), nn.ReLU(), nn.ReflectionPad2d(1)), ["IRR"]),
    "act conv norm": ((nn.LeakyReLU(0.2), conv(), nn.BatchNorm2d(4)), ["LCB"]),
    "act pad conv": ((nn.ReLU(), nn.ReflectionPad2d(1), conv()), ["RRC"]),
    "conv dropout norm act": ((conv(), nn.Dropout2d(0.5, True), nn.InstanceNorm2d(4), nn.LeakyReLU()), ["CDIL"]),
    "identities between": ((conv(), nn.Identity(), nn.InstanceNorm2d(4), nn.Identity(), nn.ReLU()), ["CIR"]),
    "two in a row": ((conv(), nn.InstanceNorm2d(4), nn.ReLU(), nn.ReflectionPad2d(1), conv()), ["CIR", "RC"]),
    "norm conv": ((nn.InstanceNorm2d(4), conv()), ["I"]),
    "a pad of the convolution's own": ((conv(padding=1, padding_mode="reflect"), nn.InstanceNorm2d(4)), ["CI"]),
    "norm norm": ((conv(), nn.InstanceNorm2d(4), nn.BatchNorm2d(4)), ["CI", "B"]),
    "nested": ((nn.Sequential(conv(), nn.InstanceNorm2d(4)), nn.ReLU(), nn.Sequential(conv())), ["CIR"]),
    # What conv_norm_act cannot do is left to the convolution itself; the norm behind it is fused all the same.
    "groups": ((nn.InstanceNorm2d(4), conv(groups=2), nn.InstanceNorm2d(4), nn.ReLU()), ["I", "CIR"]),
    "dilation": ((nn.ReflectionPad2d(2), conv(dilation=2), nn.BatchNorm2d(4)), ["CB"]),
    "unequal paddings": ((conv(padding=(1, 0)), nn.BatchNorm2d(4)), ["CB"]),
    "padding by name": ((conv(padding="same"), nn.InstanceNorm2d(4)), ["CI"]),
    "circular": ((conv(padding=1, padding_mode="circular"), nn.InstanceNorm2d(4)), ["CI"]),
    "two kinds of padding": ((nn.ReflectionPad2d(1), conv(padding=1), nn.InstanceNorm2d(4)), ["CI"]),
    "norm act pad before groups": (
        (nn.InstanceNorm2d(4), nn.ReLU(), nn.ReflectionPad2d(1), conv(groups=4)),
        ["IRR"],
    ),
    "pad before a transposed convolution": (
        (nn.InstanceNorm2d(4), nn.ReLU(), nn.ZeroPad2d(1), nn.ConvTranspose2d(4, 4, 3)),
        ["IRZ"],
    ),
}


@pytest.mark.parametrize("name", CHAINS)
def test_a_run_is_found_and_gives_the_same(name):
    layers, runs = CHAINS[name]
    net = chain(*copy.deepcopy(layers))
    assert runs_in(net) == runs
    assert_same(net)


NORMS = {
    "instance": nn.InstanceNorm2d(4),
    "instance affine": nn.InstanceNorm2d(4, affine=True),
    "instance with running statistics": nn.InstanceNorm2d(4, affine=True, track_running_stats=True, momentum=0.3),
    "batch": nn.BatchNorm2d(4, eps=1e-3, momentum=0.2),
    "batch without affine": nn.BatchNorm2d(4, affine=False),
    "batch without running statistics": nn.BatchNorm2d(4, track_running_stats=False),
    "batch with a cumulative average": nn.BatchNorm2d(4, momentum=None),
}


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", NORMS)
def test_every_norm_is_the_same_in_training_and_eval_mode(name, training):
    net = chain(conv(), copy.deepcopy(NORMS[name]), nn.LeakyReLU(0.2), nn.ReflectionPad2d(1), conv())
    assert runs_in(net) == [f"C{type(net[1]).__name__[0]}L", "RC"]
    assert_same(net.train(training))


def test_running_statistics_are_switched_off_as_in_torch():
    net = chain(conv(), nn.BatchNorm2d(4), nn.ReLU())
    net[1].track_running_stats = False
    assert_same(net)
    assert_same(net.eval())


def test_an_activation_in_place_still_changes_what_it_is_given():
    net = nn.Sequential(nn.LeakyReLU(0.2, inplace=True), conv(), nn.InstanceNorm2d(4))
    x, y = torch.randn(SHAPE), torch.randn(SHAPE)
    y.copy_(x)
    torch.testing.assert_close(fuse(net)(x), net(y))
    assert torch.equal(x, y)
    assert (x >= 0).sum() < x.numel()


def test_a_bias_that_has_no_effect_gets_a_gradient_of_zero_and_not_none():
    net = fuse(chain(conv(), nn.InstanceNorm2d(4), nn.ReLU()))
    net(torch.randn(SHAPE)).square().sum().backward()
    assert torch.equal(net[0].bias.grad, torch.zeros(4))


def test_a_chain_keeps_one_tensor_a_convolution():
    def block() -> list[nn.Module]:
        return [nn.ReflectionPad2d(1), conv(), nn.InstanceNorm2d(4), nn.LeakyReLU(0.2)]

    net = chain(*block(), *block(), *block())
    x = torch.randn(2, 4, 32, 32)
    ours, theirs = (
        [tensor for tensor in saved_tensors(lambda each=each: each(x)) if tensor.numel() >= x.numel()]
        for each in (fuse(net), net)
    )
    assert len(ours) == 4  # x and the raw outputs
    assert len(theirs) >= 9  # what is padded, convolved and normalised


def test_layers_that_do_not_require_gradients_get_none():
    net = fuse(chain(conv(), nn.InstanceNorm2d(4), nn.ReLU(), conv()))
    net[0].requires_grad_(False)
    net(torch.randn(SHAPE)).sum().backward()
    assert net[0].weight.grad is None
    assert net[0].bias.grad is None
    assert net[3].weight.grad is not None


def test_second_derivatives_are_the_same():
    net = chain(conv(), nn.InstanceNorm2d(4), nn.LeakyReLU(0.2, True), conv(), nn.Tanh()).double()
    x = torch.randn(SHAPE, dtype=torch.float64, requires_grad=True)
    found = []
    for each in (net, fuse(net)):
        (slope,) = torch.autograd.grad(each(x).sum(), x, create_graph=True)
        found.append(torch.autograd.grad(slope.square().sum(), [x, net[0].weight, net[3].weight]))
    for theirs, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


# --- other inputs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_half_precision_and_is_as_close(dtype):
    net = chain(conv(), nn.InstanceNorm2d(4, affine=True), nn.ReLU(), conv())
    x = torch.randn(SHAPE)
    exact = copy.deepcopy(net)(x)
    halved = copy.deepcopy(net).to(dtype)
    theirs, ours = halved(x.to(dtype)), fuse(halved)(x.to(dtype))
    assert ours.dtype == dtype
    assert (ours - exact).norm() <= 1.5 * (theirs - exact).norm()


@pytest.mark.parametrize("last", ["norm", "pad"])
def test_autocast_gives_the_same_dtype_and_the_same_up_to_it(last):
    layers = [conv(), nn.InstanceNorm2d(4), nn.ReLU(), conv(), nn.BatchNorm2d(4), nn.ReflectionPad2d(1)]
    net = chain(*(layers[:5] if last == "norm" else layers))
    x = torch.randn(SHAPE)
    with torch.autocast("cpu", torch.bfloat16):
        theirs, ours = net(x), fuse(net)(x)
    assert theirs.dtype == ours.dtype
    torch.testing.assert_close(ours, theirs, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("shape", [(4, 9, 8), (0, 4, 9, 8)], ids=["no batch", "an empty batch"])
def test_what_torch_takes_besides_batches_of_images_goes_through(shape):
    net = chain(nn.ReflectionPad2d(1), conv(), nn.InstanceNorm2d(4), nn.ReLU())
    x = torch.randn(shape)
    torch.testing.assert_close(fuse(net)(x), net(x))


def test_chains_that_are_not_of_images_all_the_way_go_through():
    net = chain(nn.Linear(3, 64), nn.Unflatten(1, (4, 4, 4)), conv(), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
    assert runs_in(net) == ["CBR"]
    assert_same(net, (2, 3))


def test_values_that_are_not_finite_stay():
    net = chain(conv(), nn.LeakyReLU(0.2), conv(), nn.BatchNorm2d(4), nn.ReLU()).eval()
    x = torch.randn(SHAPE)
    x[0, 0, 4, 4], x[1, 0, 4, 4] = float("nan"), float("inf")
    torch.testing.assert_close(fuse(net)(x), net(x), equal_nan=True)


# --- left alone ------------------------------------------------------------------------------------------


def hooked() -> nn.Module:
    norm = nn.InstanceNorm2d(4)
    norm.register_forward_hook(lambda module, args, result: result + 1)
    return norm


def replaced() -> nn.Module:
    norm = nn.InstanceNorm2d(4)
    norm.forward = lambda x: x.abs()
    return norm


LEFT = {
    "a hook on the norm": (hooked, "a hook on it must see what it always saw"),
    "a forward of its own": (replaced, "its forward was replaced"),
    "a subclass of Conv2d": (lambda: OwnConv(4, 4, 1), "it is a subclass of Conv2d, which may do anything"),
    "weight norm": (lambda: parametrizations.weight_norm(conv(padding=1)), "its weight is parametrized"),
    "spectral norm": (lambda: parametrizations.spectral_norm(conv(padding=1)), "its weight is parametrized"),
    "group norm": (lambda: nn.GroupNorm(2, 4), "of the norms, BatchNorm2d and InstanceNorm2d are fused"),
    "a layer of ours": (lambda: NormAct(4), "it is a fused layer already"),
    "an unknown layer": (lambda: nn.PReLU(4), "it is no layer that is fused"),
    "a negative slope": (lambda: nn.LeakyReLU(-0.5), "its negative slope is below 0"),
    "a pad on one side": (lambda: nn.ReflectionPad2d((1, 0, 0, 0)), "its sides differ"),
}


@pytest.mark.parametrize("name", LEFT)
def test_a_layer_is_left_alone_with_the_reason(name):
    make, reason = LEFT[name]
    torch.manual_seed(1)
    net = chain(conv(), make(), nn.BatchNorm2d(4), nn.ReLU())
    _, report = fuse(net, report=True)
    assert [layer.reason for layer in report.left if layer.name == "1"] != []
    assert reason in next(layer.reason for layer in report.left if layer.name == "1")
    assert_same(net)


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: weight_norm(conv()), "WeightNorm makes its weight in a hook"),
        (lambda: prune.random_unstructured(conv(), "weight", 0.5), "a hook on it must see what it always saw"),
    ],
    ids=["weight norm of the old kind", "pruning"],
)
def test_a_weight_that_is_made_in_a_hook_is_left_alone(make, reason):
    net = nn.Sequential(make(), nn.InstanceNorm2d(4), nn.ReLU())
    fused, report = fuse(net, report=True)
    assert [layer.reason for layer in report.left] == [reason]
    x = torch.randn(SHAPE)
    torch.testing.assert_close(fused(x), net(x))


def test_a_layer_that_is_compiled_by_itself_stays_compiled():
    net = chain(conv(), nn.BatchNorm2d(4), nn.ReLU())
    net[1].compile(backend="eager")
    fused, report = fuse(net, inplace=True, report=True)
    assert [layer.reason for layer in report.left if layer.name == "1"] == ["it is compiled by itself"]
    assert fused[1]._compiled_call_impl is not None


def test_autocast_rounds_after_a_norm_and_not_before():
    net = chain(nn.InstanceNorm2d(4), nn.ReLU(), conv())
    x = torch.randn(SHAPE) + 1000  # in bfloat16 the differences would be gone
    with torch.autocast("cpu", torch.bfloat16):
        theirs, ours = net(x), fuse(net)(x)
    torch.testing.assert_close(ours, theirs, rtol=0.05, atol=0.05)


def test_layers_outside_of_a_sequential_are_left_alone_but_for_instance_norms():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.batch = conv(), nn.InstanceNorm2d(4), nn.BatchNorm2d(4)

        def forward(self, x):
            return torch.relu(self.norm(self.batch(self.conv(x))))

    net = Net()
    _, report = fuse(net, report=True)
    assert [run.names for run in report.fused] == [("norm",)]
    assert {layer.name for layer in report.left} == {"conv", "batch"}
    assert all("is not in a Sequential" in layer.reason for layer in report.left)
    assert_same(net)


def test_a_sequential_with_a_forward_of_its_own_is_left_alone():
    class Dense(nn.Sequential):
        def forward(self, x):
            return torch.cat([x, super().forward(x)], 1)

    net = Dense(conv(padding=1), nn.BatchNorm2d(4), nn.ReLU())
    fused, report = fuse(net, report=True)
    assert type(fused) is Dense
    assert report.fused == ()
    assert "its class has a forward of its own" in [layer.reason for layer in report.left]
    assert_same(net)


def test_a_residual_block_keeps_its_sum():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.ReflectionPad2d(1), conv(), nn.InstanceNorm2d(4))

        def forward(self, x):
            return x + self.body(x)

    net = nn.Sequential(Block(), Block())
    assert runs_in(net) == ["RCI", "RCI"]
    assert_same(net)


def test_layers_used_twice_are_used_twice():
    shared_conv, shared_norm, shared_act = conv(padding=1), nn.BatchNorm2d(4), nn.ReLU(True)
    twice = nn.Sequential(shared_conv, shared_norm, shared_act)
    net = nn.Sequential(twice, twice, shared_conv, shared_norm, shared_act)
    assert runs_in(net) == ["CBR", "CBR", "CBR"]
    assert_same(net)
    fused = fuse(net)
    fused(torch.randn(SHAPE))
    assert net[0][1].num_batches_tracked == 3


def test_the_report_reads_as_a_page():
    net = nn.Sequential(conv(), nn.InstanceNorm2d(4), nn.ReLU(), nn.GroupNorm(2, 4))
    _, report = fuse(net, report=True)
    assert str(report) == (
        "1 fused run\n"
        "  0, 1, 2: Conv2d + InstanceNorm2d + ReLU\n"
        "1 left as they were\n"
        "  GroupNorm: of the norms, BatchNorm2d and InstanceNorm2d are fused (3)"
    )
    assert report.to_dict()["fused"][0] == {"names": ("0", "1", "2"), "layers": ("Conv2d", "InstanceNorm2d", "ReLU")}


def test_parametrizing_removed_again_is_fused():
    net = nn.Sequential(parametrizations.spectral_norm(conv()), nn.InstanceNorm2d(4))
    parametrize.remove_parametrizations(net[0], "weight")
    assert runs_in(net) == ["CI"]
