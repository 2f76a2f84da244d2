"""``fuse`` on networks as other projects write them: the same numbers, the same names, so many runs."""

from __future__ import annotations

import pytest
import torch
from fuse_case import apart, assert_same_step
from torch import nn
from zoo import ZOO

from torchp2p import fuse, unfuse

FAMILIES = sorted(ZOO)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", FAMILIES)
def test_outputs_gradients_and_buffers_are_the_same(name, dtype):
    net, inputs = ZOO[name].small()
    assert_same_step(fuse(net), net, inputs, dtype)


@pytest.mark.parametrize("name", FAMILIES)
def test_so_are_they_in_eval_mode(name):
    net, inputs = ZOO[name].small()
    with torch.no_grad():
        net(*inputs)  # running statistics other than those of the standard normal
    assert_same_step(fuse(net.eval()), net, inputs, torch.float64)


@pytest.mark.parametrize("name", FAMILIES)
def test_names_order_and_tensors_stay(name):
    net, _ = ZOO[name].small()
    fused = fuse(net)
    for theirs, ours in (
        (net.state_dict(keep_vars=True), fused.state_dict(keep_vars=True)),
        (dict(net.named_parameters()), dict(fused.named_parameters())),
        (dict(net.named_buffers()), dict(fused.named_buffers())),
    ):
        assert list(theirs) == list(ours)
        assert all(mine is plain for mine, plain in zip(ours.values(), theirs.values(), strict=True))
    assert [type(m) for m in unfuse(fused).modules()] == [type(m) for m in net.modules()]


@pytest.mark.parametrize("name", FAMILIES)
def test_the_report_counts_the_runs_and_has_a_reason_for_all_else(name):
    net, _ = ZOO[name].small()
    _, report = fuse(net, report=True)
    assert len(report.fused) == ZOO[name].runs
    assert all(layer.reason for layer in report.left)
    assert len({layer.name for layer in report.left}) == len(report.left)
    in_runs = [layer for run in report.fused for layer in run.names]
    assert set(in_runs).isdisjoint(layer.name for layer in report.left)
    assert len(set(in_runs)) == len(in_runs)
    convolutions = {m for m in net.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))}
    spoken_of = {net.get_submodule(name) for name in in_runs} | {net.get_submodule(layer.name) for layer in report.left}
    assert convolutions <= spoken_of


@pytest.mark.parametrize("name", FAMILIES)
def test_channels_last_gives_the_same(name):
    net, inputs = ZOO[name].small()
    for module in net.modules():  # torch draws in the order of memory, and its own instance norm loses the layout
        if isinstance(module, (nn.Dropout, nn.Dropout2d)):
            module.p = 0.0
    lying = [x.to(memory_format=torch.channels_last) if x.is_floating_point() else x for x in inputs]
    assert_same_step(fuse(apart(net).to(memory_format=torch.channels_last)), net, lying, torch.float64)
