"""``conv_norm_act(algorithm="fused")``: the convolution that makes its activation while it reads it.

On the CPU the kernels run in Triton's interpreter, with tiles so small that every image has several, and tails.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
import torch
from conv_norm_act_case import (
    REFLECT,
    Case,
    Geometry,
    chain_inputs,
    chain_results,
    ours,
    plain,
    random_inputs,
    results,
)
from conv_norm_act_fused_case import FIRST, FUSED, SMALL, TILES, UP, kernels
from op_testing import (
    assert_as_exact_as_eager,
    channel_slice_channels_last,
    channels_last,
    contiguous,
    cropped,
    expanded,
    leaf,
    saved_tensors,
)

from torchp2p.ops import Deferred, conv_norm_act
from torchp2p.reference import norm_act as norm_act_reference

GEOMETRIES = (
    Geometry(),
    REFLECT,
    Geometry(3, 2, 1),
    Geometry(4, 1, 2),
    Geometry(4, 2, 1),
    Geometry(7, 1, 3, "reflect"),
    Geometry(4, 2, 1, "reflect"),
    Geometry(3, (2, 1), 2, "replicate"),
    Geometry(1, 2, 0),  # phases of the data gradient without taps
    UP,
    Geometry(4, 2, 1, transposed=True),
    Geometry(4, (2, 1), 1, transposed=True, output_padding=(1, 0)),
)


@pytest.fixture(autouse=True)
def _tiny_tiles(monkeypatch):
    monkeypatch.setattr(kernels, "default_tiles", lambda x: TILES)


def assert_chain_as_exact_as_eager(cases, dtype, device, layout=contiguous, shape=SMALL):
    """A chain of fused blocks and all its gradients, against float64 and with eager's error as the measure."""
    blocks, grad = chain_inputs(cases, dtype, device, shape)
    exactly, eagerly = ([block.in_dtype(other) for block in blocks] for other in (torch.float64, dtype))
    found, grads = chain_results(cases, [block.laid_out(layout) for block in blocks], layout(grad), **FUSED)
    eager, eager_grads = chain_results(cases, eagerly, grad, native=False)
    exact, exact_grads = chain_results(cases, exactly, grad.double(), native=False)
    assert_as_exact_as_eager("y", found, eager, exact)
    for place, (ours_, eagers, exacts) in enumerate(zip(grads, eager_grads, exact_grads, strict=True)):
        if ours_ is None:  # a bias without effect
            continue
        # Of a vector it is a sum over all pixels, whose terms are larger than what is left of them.
        magnitude = (16 if exacts.dim() == 1 else 4) * exacts.abs().max().item()
        assert_as_exact_as_eager(f"gradient {place}", ours_, eagers, exacts, magnitude)


# --- the mathematics -------------------------------------------------------------------------------------


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_every_kind_of_convolution_reads_a_normalised_activation(geometry, device):
    cases = [FIRST, Case(geometry, act="tanh", inputs=4, residual=True)]
    shape = (1, 4, 5) if geometry.kernel == 7 else SMALL
    assert_chain_as_exact_as_eager(cases, torch.float32, device, channels_last, shape)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("geometry", [REFLECT, Geometry(4, 2, 1), UP], ids=str)
def test_half_precision_is_as_exact_as_eager(geometry, dtype, device):
    cases = [
        FIRST,
        Case(geometry, act="tanh", inputs=4, affine=True),
        Case(Geometry(1, 1, 0), "none", "none", inputs=5),
    ]
    assert_chain_as_exact_as_eager(cases, dtype, device, channels_last)


BEFORE = {
    "batch norm": Case(Geometry(1, 1, 0), "batch", "tanh", affine=True, inputs=3, outputs=4),
    "batch norm with running statistics": Case(
        Geometry(1, 1, 0), "batch", "tanh", bias=True, running=True, inputs=3, outputs=4
    ),
    "given statistics": Case(
        Geometry(1, 1, 0), "batch", "tanh", affine=True, running=True, training=False, inputs=3, outputs=4
    ),
    "instance norm without affine": Case(Geometry(1, 1, 0), act="tanh", inputs=3, outputs=4),
    "a residual": Case(Geometry(1, 1, 0), act="tanh", residual=True, inputs=3, outputs=4),
    "no norm": Case(Geometry(1, 1, 0), "none", "tanh", bias=True, inputs=3, outputs=4),
    "no norm, affine": Case(Geometry(1, 1, 0), "none", "none", affine=True, residual=True, inputs=3, outputs=4),
    "nothing": Case(Geometry(1, 1, 0), "none", "none", inputs=3, outputs=4),
}


@pytest.mark.parametrize("geometry", [Geometry(), REFLECT], ids=str)
@pytest.mark.parametrize("before", BEFORE.values(), ids=BEFORE.keys())
def test_whatever_stands_before_the_convolution(before, geometry, device):
    last = Case(geometry, "none", "none", bias=True, inputs=4)
    assert_chain_as_exact_as_eager([before, last], torch.float32, device, channels_last)


@pytest.mark.parametrize("act", ["leaky_relu", "relu"])
def test_activations_with_a_kink(act, device):
    cases = [replace(FIRST, act=act), Case(REFLECT, act=act, inputs=4), Case(UP, act="none", inputs=5)]
    blocks, grad = chain_inputs(cases, torch.float32, device, SMALL)
    found, expected = (chain_results(cases, blocks, grad, **how) for how in (FUSED, {"native": False}))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_channels_that_fill_several_tiles_and_half_another(device):
    cases = [replace(FIRST, outputs=19), Case(Geometry(), act="tanh", inputs=19, outputs=18)]
    assert_chain_as_exact_as_eager(cases, torch.float32, device, channels_last, (1, 4, 5))


@pytest.mark.parametrize("layout", [contiguous, cropped, channel_slice_channels_last], ids=lambda f: f.__name__)
def test_images_may_lie_in_memory_in_any_way(layout, device):
    cases = [FIRST, Case(Geometry(3, 2, 1), act="tanh", inputs=4, residual=True)]
    assert_chain_as_exact_as_eager(cases, torch.float32, device, layout)


def test_a_gradient_may_be_expanded(device):
    case = Case(Geometry(4, 2, 1), "none", "none")
    inputs = random_inputs(case, torch.float32, device)
    inputs = replace(inputs, grad=expanded(inputs.grad))
    found, expected = results(ours, case, inputs, **FUSED), results(plain, case, inputs)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_groups_of_samples_have_statistics_of_their_own(device):
    x, weight = torch.randn(4, 3, 5, 6, device=device), torch.randn(4, 3, 3, 3, device=device)
    options = {"padding": 1, "norm": "batch", "act": "relu", "defer": True}
    both = conv_norm_act(x, weight, stat_groups=2, **options, **FUSED).tensor()
    halves = [conv_norm_act(half, weight, **options, **FUSED).tensor() for half in x.chunk(2)]
    torch.testing.assert_close(both, torch.cat(halves))


@pytest.mark.parametrize("layout", [contiguous, channels_last], ids=lambda f: f.__name__)
def test_result_and_gradients_keep_the_layout_of_x(layout, device):
    case = Case(REFLECT, residual=True, inputs=8, outputs=16)
    found = results(ours, case, random_inputs(case, torch.float32, device).laid_out(layout), **FUSED)
    for name in ("y", "grad_x", "grad_residual"):
        assert found[name].stride() == layout(found[name]).stride(), name


def test_two_runs_give_the_same_bits(device):
    case = Case(UP, "batch", affine=True, residual=True)
    inputs = random_inputs(case, torch.float32, device)
    first, second = (results(ours, case, inputs, **FUSED) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first if first[name] is not None)


def test_no_samples_give_no_samples(device):
    x = torch.empty(0, 4, 6, 7, device=device, requires_grad=True)
    y = conv_norm_act(x, torch.randn(5, 4, 3, 3, device=device), norm="batch", defer=True, **FUSED).tensor()
    assert y.shape == (0, 5, 4, 5)
    y.sum().backward()
    assert x.grad.shape == x.shape


def test_a_gradient_penalty_is_that_of_the_plain_layers(device):
    weights = [torch.randn(4, n, 3, 3, dtype=torch.float64, device=device).requires_grad_() for n in (3, 4)]
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64, device=device, requires_grad=True)

    def fused(x, first, second):
        h = conv_norm_act(x, first, padding=1, pad_mode="reflect", act="tanh", defer=True, **FUSED)
        return conv_norm_act(h, second, padding=1, norm="none", act="none", **FUSED)

    def layers(x, first, second):
        h = torch.nn.functional.pad(x, (1,) * 4, mode="reflect")
        h = torch.tanh(torch.nn.functional.instance_norm(torch.conv2d(h, first)))
        return torch.conv2d(h, second, padding=1)

    def penalty_gradients(forward, dtype):
        leaves = [leaf(t.to(dtype)) for t in (x, *weights)]
        (slope,) = torch.autograd.grad(forward(*leaves).square().mean(), leaves[0], create_graph=True)
        return [t.double() for t in torch.autograd.grad(slope.square().sum(), leaves)]

    found, expected = penalty_gradients(fused, torch.float32), penalty_gradients(layers, torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("geometry", [REFLECT, Geometry(4, 2, 1), UP], ids=str)
def test_every_tile_at_sizes_of_the_networks(geometry, device, monkeypatch):
    if device.type == "cpu":
        pytest.skip("sizes for a GPU: hours in the interpreter")
    cases = [replace(FIRST, outputs=96), Case(geometry, act="tanh", inputs=96, outputs=160, residual=True)]
    for dtype, use in product((torch.bfloat16, torch.float16, torch.float32), TILES._fields):
        for tile in kernels.candidates(torch.empty(0, dtype=dtype, device=device), use):
            monkeypatch.setattr(kernels, "default_tiles", lambda x, use=use, tile=tile: TILES._replace(**{use: tile}))
            assert_chain_as_exact_as_eager(cases, dtype, device, channels_last, (2, 65, 130))


# --- statistics are handed on ----------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("geometry", [REFLECT, UP], ids=str)
def test_a_block_hands_on_the_statistics_of_its_raw_output(geometry, norm, device):
    case = Case(geometry, norm)
    inputs = random_inputs(case, torch.float32, device)
    deferred = ours(case, inputs.x + 300, inputs.tensors, defer=True, **FUSED)  # far from zero, little deviation
    groups = 2 if norm == "instance" else 1
    mean, var = norm_act_reference.mean_and_variance(deferred.raw.double(), groups)
    size = deferred.raw.abs().max().item()
    torch.testing.assert_close(deferred.mean.double(), mean, rtol=0, atol=1e-6 * size)
    torch.testing.assert_close(deferred.var.double(), var, rtol=1e-4, atol=(1e-6 * size) ** 2)


def test_more_tiles_than_are_merged_at_once(device, monkeypatch):
    monkeypatch.setattr("torchp2p.kernels._conv_statistics.MERGED", 2)
    case = Case(Geometry(1, 1, 0), "batch")
    inputs = random_inputs(case, torch.float32, device, (3, 9, 11))
    deferred = ours(case, inputs.x, inputs.tensors, defer=True, **FUSED)
    mean, var = norm_act_reference.mean_and_variance(deferred.raw.double(), 1)
    torch.testing.assert_close((deferred.mean.double(), deferred.var.double()), (mean, var), rtol=1e-5, atol=1e-6)


@pytest.fixture
def passes_for_statistics(monkeypatch):
    """Grows by one whenever statistics are taken from an image, instead of in a convolution's epilogue."""
    passes = []
    for owner, name in ((kernels, "statistics"), (norm_act_reference, "mean_and_variance")):
        taken = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *args, taken=taken, **more: passes.append(1) or taken(*args, **more))
    return passes


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_statistics_that_were_handed_on_are_not_taken_again(norm, passes_for_statistics, device):
    cases = [replace(FIRST, norm=norm), Case(Geometry(), norm, inputs=4, running=True), Case(REFLECT, inputs=5)]
    blocks, _ = chain_inputs(cases, torch.float32, device, SMALL)
    chain = blocks[0].x
    for case, block in zip(cases, blocks, strict=True):
        chain = ours(case, chain, block.tensors, defer=True, **FUSED)
    chain.tensor(backend="reference")
    assert passes_for_statistics == []


def test_after_a_block_of_the_vendors_they_are_taken_once(passes_for_statistics, device):
    case = replace(FIRST, act="leaky_relu")
    inputs = random_inputs(case, torch.float32, device)
    deferred = ours(case, inputs.x, inputs.tensors, defer=True, algorithm="vendor")
    assert deferred.mean is None
    weight = torch.randn(5, 4, 3, 3, device=device)
    found = conv_norm_act(deferred, weight, norm="none", act="none", **FUSED)
    assert passes_for_statistics == [1]
    torch.testing.assert_close(found, torch.conv2d(plain(case, inputs.x, inputs.tensors), weight), rtol=1e-4, atol=1e-4)


def test_running_statistics_are_updated_from_those_that_were_handed_on(device):
    case = Case(REFLECT, "batch", running=True, bias=True)
    inputs = random_inputs(case, torch.float32, device)
    copy = inputs.in_dtype(torch.float32)
    plain(case, copy.x, copy.tensors)
    deferred = ours(case, inputs.x, inputs.tensors, defer=True, **FUSED)
    for _ in range(2):  # readers; the batch counts once
        deferred.tensor()
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(inputs.tensors[name], copy.tensors[name])


def test_statistics_of_another_dtype_are_not_handed_on_by_autocast(passes_for_statistics, device):
    x, weight = torch.randn(2, 4, 5, 6, device=device), torch.randn(4, 4, 3, 3, device=device)
    deferred = conv_norm_act(x, weight, defer=True, **FUSED)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        conv_norm_act(deferred, weight, norm="none", act="none", **FUSED)
    assert passes_for_statistics == [1]


@pytest.mark.parametrize(
    ("statistics", "words"),
    [
        ({"mean": torch.zeros(1, 3), "var": torch.ones(1, 3)}, r"mean must be torch.float32 of shape \(2, 3\)"),
        (
            {"mean": torch.zeros(2, 3), "var": torch.ones(2, 3).double()},
            "var must be torch.float32 .* got torch.float64",
        ),
    ],
    ids=["shape", "dtype"],
)
def test_statistics_that_do_not_fit_are_refused(statistics, words):
    deferred = Deferred(torch.zeros(2, 3, 4, 5), "instance", **statistics)
    with pytest.raises(ValueError, match=words):
        deferred.tensor()


def test_a_chain_keeps_raw_outputs_and_their_statistics_and_nothing_else(device):
    x = torch.randn(2, 3, 5, 6, device=device, requires_grad=True)
    first, last = (torch.randn(4, n, 3, 3, device=device, requires_grad=True) for n in (3, 4))

    def chain():
        h = conv_norm_act(x, first, padding=1, act="relu", defer=True, **FUSED)
        return conv_norm_act(h, last, padding=1, pad_mode="reflect", act="relu", **FUSED)

    raw, statistics = 2 * 4 * 5 * 6, [2 * 4] * 2
    expected = [x.numel(), first.numel(), raw, *statistics, last.numel(), raw, *statistics]
    assert sorted(t.numel() for t in saved_tensors(chain)) == sorted(expected)
