"""A fused network is still the module it was: names, tensors, hooks, copies, wrappers, compilers."""

from __future__ import annotations

import copy
import io
import pickle
import re

import pytest
import torch
from fuse_case import assert_same_step
from op_testing import recorded_calls
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.flop_counter import FlopCounterMode

import torchp2p
from torchp2p import fuse, unfuse


class ConvBlock(nn.Sequential):
    """A Sequential of a class of its own, at the top of a module so that it can be pickled."""


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.ReflectionPad2d(1),
        nn.Conv2d(3, 4, 3),
        nn.InstanceNorm2d(4),
        nn.LeakyReLU(0.2, True),
        ConvBlock(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(True)),
        nn.Conv2d(4, 3, 1),
        nn.Tanh(),
    )


def images() -> torch.Tensor:
    torch.manual_seed(2)
    return torch.randn(2, 3, 12, 10)


def is_fused(net: nn.Module) -> bool:
    """Whether calling it runs an operator of ours."""
    return any(call.startswith("torchp2p::") for call in recorded_calls(lambda: net(images())))


def assert_same(one: nn.Module, other: nn.Module) -> None:
    assert_same_step(one, other, (images(),), torch.float64)


# --- in place, copies, back again ------------------------------------------------------------------------


def test_a_copy_is_fused_and_the_network_stays_as_it_was():
    net = network()
    fused = fuse(net)
    assert is_fused(fused)
    assert not is_fused(net)


def test_in_place_the_network_itself_is_fused():
    net = network()
    parts = list(net.modules())
    assert fuse(net, inplace=True) is net
    assert is_fused(net)
    assert list(net.modules()) == parts


def test_fusing_twice_is_fusing_once():
    fused = fuse(fuse(network()))
    assert [type(part) for part in fused.modules()] == [type(part) for part in fuse(network()).modules()]
    assert_same(fused, network())


def test_unfusing_gives_the_network_back():
    net = network()
    fused = fuse(net)
    back = unfuse(fused)
    assert [type(part) for part in back.modules()] == [type(part) for part in net.modules()]
    assert not is_fused(back)
    assert is_fused(fused)
    assert unfuse(fused, inplace=True) is fused
    assert not is_fused(fused)


def test_an_optimiser_of_the_original_trains_the_fused_network():
    net = network()
    optimiser = torch.optim.SGD(net.parameters(), 0.1)
    fused = fuse(net)
    before = fused(images()).detach()
    fused(images()).square().sum().backward()
    optimiser.step()
    assert not torch.equal(fused(images()), before)
    torch.testing.assert_close(net(images()), fused(images()))


def test_checkpoints_go_both_ways():
    net, fused = network(), fuse(network())
    with torch.no_grad():
        fused[1].weight.mul_(2)
    net.load_state_dict(fused.state_dict())
    assert_same(fused, net)
    fuse(network()).load_state_dict(net.state_dict())


def test_training_mode_dtype_and_device_are_those_of_the_network():
    assert not fuse(network().eval()).training
    fused = fuse(network().double())
    assert fused(images().double()).dtype == torch.float64
    assert fuse(network().to("meta"))(images().to("meta")).shape == (2, 3, 12, 10)


def test_it_may_be_moved_and_switched_after_it_was_fused():
    fused, net = fuse(network()), network()
    for each in (fused, net):
        each.eval().double().to(memory_format=torch.channels_last)
    assert_same(fused, net)
    assert fused.bfloat16()(images().bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))], ids=["copy", "pickle"])
def test_copies_are_fused_and_have_tensors_of_their_own(copied):
    fused = fuse(network())
    twin = copied(fused)
    assert [type(part) for part in twin.modules()] == [type(part) for part in fused.modules()]
    assert twin[1].weight is not fused[1].weight
    assert_same(twin, fused)


def test_a_whole_module_is_saved_and_loaded():
    file = io.BytesIO()
    torch.save(fuse(network()), file)
    file.seek(0)
    assert_same(torch.load(file, weights_only=False), network())


def test_classes_are_still_those_that_others_look_for():
    fused = fuse(network())
    assert isinstance(fused, nn.Sequential)
    assert isinstance(fused[4], ConvBlock)
    assert isinstance(fused[2], nn.InstanceNorm2d)
    assert type(fused[1]) is nn.Conv2d
    assert repr(fused).startswith("FusedSequential(\n  (0): ReflectionPad2d(")


def test_the_input_keeps_its_name():
    assert fuse(network())(input=images()).shape == fuse(nn.InstanceNorm2d(3))(input=images()).shape


def test_a_part_of_a_fused_sequential_is_a_sequential():
    fused, net = fuse(network()), network()
    assert_same(fused[:4], net[:4])


def test_a_network_without_a_run_is_said_to_have_none(caplog):
    x = torch.randn(2, 3)
    net = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    torch.testing.assert_close(fuse(net)(x), net(x))
    assert caplog.messages == ["fuse found nothing to fuse in Sequential; fuse(net, report=True) says why"]


# --- what comes later ------------------------------------------------------------------------------------


def test_hooks_from_before_run_and_those_on_the_sequential_too():
    seen = []
    net = network()
    net[2].register_forward_hook(lambda *_: seen.append("norm"))
    net[4].register_forward_pre_hook(lambda *_: seen.append("block"))
    net[1].register_full_backward_hook(lambda *_: seen.append("backward"))
    fuse(net)(images()).sum().backward()
    assert seen == ["norm", "block", "backward"]


def test_a_method_that_is_a_hook_still_belongs_to_its_object():
    class Recorder:
        def __init__(self):
            self.seen = []

        def hook(self, module, args, result):
            self.seen.append(result.shape)

    recorder, net = Recorder(), network()
    net[2].register_forward_hook(recorder.hook)
    fuse(net)(images())
    assert recorder.seen == [(2, 4, 12, 10)]


def test_a_hook_that_comes_later_sees_what_it_would_have_seen():
    net, fused = network(), fuse(network())
    seen = []
    for each in (net, fused):
        each[2].register_forward_hook(lambda module, args, result: seen.append(result.clone()))
    assert_same(fused, net)
    torch.testing.assert_close(seen[0], seen[1])
    assert is_fused(fused)  # the rest of it


def test_a_layer_that_is_exchanged_later_is_respected():
    fused, net = fuse(network()), network()
    for each in (fused, net):
        each[2] = nn.GroupNorm(2, 4)
        each.append(nn.Dropout(0.5))
    assert_same(fused, net)


def test_a_parametrization_that_comes_later_is_respected():
    fused, net = fuse(network()), network()
    for each in (fused, net):
        nn.utils.parametrizations.weight_norm(each[1])
    assert_same(fused, net)


def test_hooks_on_all_modules_of_the_process_see_every_layer():
    seen = []
    handle = nn.modules.module.register_module_forward_hook(lambda module, *_: seen.append(type(module).__name__))
    try:
        fuse(network())(images())
    finally:
        handle.remove()
    assert "Conv2d" in seen
    assert "ReLU" in seen


# --- wrappers and compilers ------------------------------------------------------------------------------


@pytest.fixture
def process_group(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_data_parallel_training_gets_every_gradient(process_group):
    net, wrapped = network(), DistributedDataParallel(fuse(network()))
    for _ in range(2):  # DDP complains at the second step of parameters that got no gradient in the first
        for each in (net, wrapped):
            each.zero_grad()
            each(images()).square().sum().backward()
    for theirs, ours in zip(net.parameters(), wrapped.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-4, rtol=1e-4)


def test_a_network_wrapped_for_several_processes_is_fused_in_place_only(process_group):
    wrapped = DistributedDataParallel(network())
    with pytest.raises(TypeError, match="fuse the network before it is wrapped"):
        fuse(wrapped)
    assert is_fused(fuse(wrapped, inplace=True))


def test_replicas_of_data_parallel_run_with_tensors_of_their_own():
    fused = fuse(network())
    replica = fused._replicate_for_data_parallel()
    assert type(replica) is type(fused)
    replica._modules["1"] = copy.deepcopy(fused[1])
    with torch.no_grad():
        replica._modules["1"].weight.zero_()
    assert not torch.equal(replica(images()), fused(images()))


@pytest.mark.parametrize("autocast", [False, True])
def test_it_compiles_without_a_graph_break(autocast):
    torch._dynamo.reset()
    fused, net = fuse(network()), network()
    compiled = torch.compile(fused, backend="aot_eager", fullgraph=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        theirs, ours = net(images()), compiled(images())
    tolerance = 0.05 if autocast else 1e-5
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)
    ours.sum().backward()
    theirs.sum().backward()
    torch.testing.assert_close(fused[5].weight.grad, net[5].weight.grad, rtol=tolerance, atol=100 * tolerance)


def test_it_is_compiled_once():
    torch._dynamo.reset()
    compiled = torch.compile(fuse(network()), backend="aot_eager", fullgraph=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(3):
            compiled(images()).sum().backward()


def test_tracing_and_export_see_operators_of_torch_alone():
    fused = fuse(network().eval())
    exported = torch.export.export(fused, (images(),))
    operators = {str(node.target) for node in exported.graph.nodes if node.op == "call_function"}
    assert operators
    assert not [name for name in operators if "torchp2p" in name]
    torch.testing.assert_close(exported.module()(images()), fused(images()))
    traced = torch.jit.trace(fused, (images(),))
    assert "torchp2p::" not in str(traced.inlined_graph)


def test_checkpointing_of_activations_gives_the_same_gradients():
    net, fused = network(), fuse(network())
    net(images()).sum().backward()
    torch.utils.checkpoint.checkpoint(fused, images().requires_grad_(), use_reentrant=False).sum().backward()
    torch.testing.assert_close(fused[1].weight.grad, net[1].weight.grad)


def test_functional_calls_use_the_parameters_they_are_given():
    fused = fuse(network())
    zeros = {name: torch.zeros_like(parameter) for name, parameter in fused.named_parameters()}
    assert torch.func.functional_call(fused, zeros, (images(),)).abs().max() == 0


def test_transforms_of_functions_go_through():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4), nn.Tanh()).double()
    x = torch.randn(3, 2, 3, 6, 6, dtype=torch.float64)
    transforms = (
        lambda f: torch.vmap(f)(x),
        lambda f: torch.func.grad(lambda image: f(image).square().sum())(x[0]),
        lambda f: torch.func.jvp(f, (x[0],), (x[1],))[1],
        lambda f: forward_derivative(f, x[0], x[1]),
    )
    for transform in transforms:
        torch.testing.assert_close(transform(fuse(net)), transform(net))


def forward_derivative(function, x, direction):
    with torch.autograd.forward_ad.dual_level():
        y = function(torch.autograd.forward_ad.make_dual(x, direction))
        return torch.autograd.forward_ad.unpack_dual(y).tangent


def test_operations_are_counted_as_before():
    counts = []
    for net in (network(), fuse(network())):
        with FlopCounterMode(display=False) as counter:
            net(images())
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


# --- refusals --------------------------------------------------------------------------------------------


def test_a_compiled_network_is_refused_with_the_way_to_do_it():
    net = network()
    net.compile()
    for compiled in (net, torch.compile(network())):
        with pytest.raises(TypeError, match=re.escape("fuse the network first, then torch.compile what is returned")):
            fuse(compiled, inplace=True)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_scripted_network_is_refused():
    scripted = torch.jit.script(nn.Sequential(nn.ReLU()))
    with pytest.raises(TypeError, match="module is a ScriptModule"):
        fuse(scripted)


def test_what_is_no_module_is_refused():
    with pytest.raises(TypeError, match=re.escape("module must be a torch.nn.Module, got function")):
        fuse(network)
    with pytest.raises(TypeError, match=re.escape("module must be a torch.nn.Module, got str")):
        unfuse("network")


def test_wrong_input_is_refused():
    with pytest.raises((ValueError, RuntimeError), match="channels"):
        fuse(network())(torch.randn(1, 5, 8, 8))


def test_the_package_offers_both():
    assert {"fuse", "unfuse"} <= set(torchp2p.__all__)
