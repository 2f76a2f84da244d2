"""``instance_edges``: the boundary map, exactly, from any integers in any layout."""

from __future__ import annotations

import copy
import pickle
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from op_testing import LAYOUTS, recorded_calls
from torch import Tensor

from torchp2p.data.demo import draw_scene
from torchp2p.data.images import read_ids
from torchp2p.nn import InstanceEdges
from torchp2p.ops import BackendUnavailableError, instance_edges

OP = "instance_edges"
ON_THE_GRID = True
ID_DTYPES = (
    torch.uint8, torch.int8, torch.uint16, torch.int16, torch.uint32, torch.int32, torch.uint64, torch.int64,
)  # fmt: skip
EDGE_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.uint8, torch.bool)
every_id_dtype = pytest.mark.parametrize("id_dtype", ID_DTYPES, ids=str)


def definition(ids: Tensor) -> list[list[list[list[int]]]]:
    """Pixel by pixel, as spec section 6.4 reads, in Python's integers."""

    def edge(image: list[list[int]], y: int, x: int) -> int:
        around = ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1))
        inside = [(i, j) for i, j in around if 0 <= i < len(image) and 0 <= j < len(image[0])]
        return int(any(image[i][j] != image[y][x] for i, j in inside))

    return [
        [[[edge(image, y, x) for x in range(len(image[0]))] for y in range(len(image))]] for [image] in ids.tolist()
    ]


# --- exactly ---------------------------------------------------------------------------------------------


@every_id_dtype
@pytest.mark.parametrize("dtype", EDGE_DTYPES, ids=str)
def test_both_pixels_at_a_boundary_are_marked(dtype, id_dtype, backend, device):
    ids = torch.tensor([[1, 1, 2], [1, 1, 2], [3, 3, 3]], dtype=id_dtype, device=device)[None, None]
    edges = instance_edges(ids, dtype=dtype, backend=backend)
    assert edges.dtype == dtype
    assert edges.shape == (1, 1, 3, 3)
    assert edges[0, 0].tolist() == [[0, 1, 1], [1, 1, 1], [1, 1, 1]]


def test_edges_are_float32_unless_asked_otherwise(backend, device):
    assert (
        instance_edges(torch.zeros(1, 1, 2, 2, dtype=torch.int32, device=device), backend=backend).dtype
        == torch.float32
    )


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "expanded"])
@every_id_dtype
@pytest.mark.parametrize("shape", [(2, 1, 9, 11), (1, 1, 5, 70), (1, 1, 3, 131)], ids=str)
def test_every_pixel_is_as_the_definition_says(shape, id_dtype, layout, backend, device):
    info = torch.iinfo(id_dtype)
    values = torch.tensor([info.min, info.max, info.max - 1, 0, 1, info.max // 2 + 1], dtype=id_dtype)
    coarse = values[torch.randint(6, (shape[0], 1, shape[2], shape[3] // 5 + 1))]
    ids = coarse.cpu().repeat_interleave(5, 3)[..., : shape[3]].to(device)
    found = instance_edges(LAYOUTS[layout](ids), backend=backend)
    assert found.int().tolist() == definition(ids)
    assert found.is_contiguous()


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 1, 1, 7), (2, 1, 7, 1), (1, 1, 1, 2), (1, 1, 2, 1), (1, 1, 2, 2)])
def test_the_border_of_the_image_is_no_boundary(shape, backend, device):
    ids = torch.randint(3, shape, device=device)
    assert instance_edges(ids, backend=backend).int().tolist() == definition(ids)
    assert not instance_edges(torch.full(shape, 7, device=device), backend=backend).any()


def test_samples_do_not_border_on_each_other(backend, device):
    ids = torch.tensor([1, 2, 3], device=device).view(3, 1, 1, 1).expand(3, 1, 4, 5)
    assert not instance_edges(ids, backend=backend).any()


@pytest.mark.parametrize(
    "pair",
    [(26001, 26002), (33000 - 65536, 33001 - 65536), (0, 2**32), (1, 1 - 2**63), (2**62, 2**62 + 1), (-1, 2**32 - 1)],
    ids=str,
)
def test_ids_are_told_apart_by_all_their_bits(pair, backend, device):
    ids = torch.tensor(pair, device=device).repeat_interleave(20).view(1, 1, 1, 40)
    assert instance_edges(ids, backend=backend).flatten().nonzero().flatten().tolist() == [19, 20]


def test_ids_that_wrapped_in_int16_keep_their_edges(backend, device):
    ids = torch.tensor([26001, 33000, 33001, 33001, 7], dtype=torch.int32, device=device).view(1, 1, 1, 5)
    wrapped = instance_edges(ids.to(torch.int16), backend=backend)
    assert torch.equal(wrapped, instance_edges(ids, backend=backend))
    assert wrapped.flatten().tolist() == [1, 1, 1, 1, 1]


@pytest.mark.parametrize("shape", [(2, 1, 301, 200), (1, 1, 3, 9001), (3, 1, 64, 128)], ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "transposed", "every_second"])
def test_bands_of_rows_meet_without_a_seam_and_for_any_number_of_threads(shape, layout, backend, device):
    coarse = torch.randint(4, (shape[0], 1, shape[2] // 3 + 1, shape[3] // 3 + 1), device=device)
    ids = coarse.repeat_interleave(3, 2).repeat_interleave(3, 3)[..., : shape[2], : shape[3]]
    expected = instance_edges(ids, backend="reference")
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        assert torch.equal(instance_edges(LAYOUTS[layout](ids), backend=backend), expected)


def test_a_mask_has_edges(backend, device):
    mask = torch.tensor([[True, True, False, False]], device=device).view(1, 1, 1, 4)
    assert instance_edges(mask, backend=backend).flatten().tolist() == [0, 1, 1, 0]


def test_ids_without_a_channel_axis_give_a_map_with_one(backend, device):
    ids = torch.randint(3, (2, 6, 7), device=device)
    assert torch.equal(instance_edges(ids, backend=backend), instance_edges(ids[:, None], backend=backend))


@pytest.mark.parametrize("shape", [(0, 1, 4, 5), (2, 1, 0, 5), (2, 1, 4, 0)], ids=str)
def test_nothing_has_no_edges(shape, backend, device):
    edges = instance_edges(torch.zeros(shape, dtype=torch.int32, device=device), dtype=torch.uint8, backend=backend)
    assert edges.shape == shape


def test_the_compiled_reference_gives_the_same(device):
    ids = torch.randint(3, (2, 1, 9, 11), device=device)
    for dtype in (torch.float32, torch.uint8):
        found = instance_edges(ids, dtype=dtype, backend="compile")
        assert torch.equal(found, instance_edges(ids, dtype=dtype, backend="reference"))


# --- real maps -------------------------------------------------------------------------------------------


def assert_edges_of_a_map(inst: Tensor, backend: str) -> None:
    edges = instance_edges(inst, backend=backend)
    assert torch.equal(edges, instance_edges(inst.to(torch.int64), backend="reference"))
    assert 0 < edges.mean() < 0.2


def test_the_edges_of_a_drawn_street(backend):
    assert_edges_of_a_map(torch.from_numpy(draw_scene((128, 256), seed=3).inst)[None, None], backend)


@pytest.mark.cityscapes
def test_the_edges_of_a_real_street(cityscapes: Path, backend):
    assert_edges_of_a_map(torch.from_numpy(read_ids(min((cityscapes / "test_inst").iterdir())))[None, None], backend)


# --- as a citizen of torch -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", EDGE_DTYPES, ids=str)
@pytest.mark.parametrize("id_dtype", [torch.uint8, torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "transposed"])
def test_the_operator_is_registered_as_torch_wants_it(layout, id_dtype, dtype, backend, device):
    ids = LAYOUTS[layout](torch.randint(3, (2, 1, 5, 6), device=device).to(id_dtype))
    torch.library.opcheck(torch.ops.torchp2p.instance_edges.default, (ids, dtype, backend))


def test_one_compilation_of_the_whole_graph_serves_every_size(device):
    def network_input(labels, ids):
        return torch.cat([labels, instance_edges(ids)], 1)

    torch._dynamo.reset()
    compiled = torch.compile(network_input, backend="aot_eager", fullgraph=True, dynamic=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for n, h, w in ((2, 9, 11), (3, 12, 10), (4, 7, 8)):
            labels, ids = torch.randn(n, 3, h, w, device=device), torch.randint(3, (n, 1, h, w), device=device)
            assert torch.equal(compiled(labels, ids), network_input(labels, ids))
    torch._dynamo.reset()


def test_the_operator_exports(device):
    sizes = {2: torch.export.Dim("height", min=2), 3: torch.export.Dim("width", min=2)}
    ids = torch.randint(3, (1, 1, 8, 8), device=device)
    program = torch.export.export(InstanceEdges(), (ids,), dynamic_shapes=(sizes,))
    other = torch.randint(3, (1, 1, 5, 11), device=device)
    assert torch.equal(program.module()(other), instance_edges(other))


def test_edges_have_no_gradient(backend, device):
    assert not instance_edges(torch.zeros(1, 1, 2, 2, dtype=torch.int32, device=device), backend=backend).requires_grad


def test_a_context_changes_nothing(backend, device):
    ids = torch.randint(3, (2, 1, 6, 7), device=device)
    expected = instance_edges(ids, backend=backend)
    with torch.inference_mode(), torch.autocast(device.type, dtype=torch.bfloat16):
        edges = instance_edges(ids, backend=backend)
    assert edges.dtype == torch.float32
    assert torch.equal(edges, expected)


def test_native_kernels_copy_no_map(device):
    if device.type != "cpu":
        pytest.skip("the CPU kernels' promise")
    ids = LAYOUTS["transposed"](torch.randint(3, (2, 1, 6, 7)))
    calls = recorded_calls(lambda: instance_edges(ids, backend="native"))
    assert {"aten::copy_", "aten::clone", "aten::contiguous", "aten::_to_copy"}.isdisjoint(calls)


IDS = torch.zeros(2, 1, 4, 5, dtype=torch.int32)


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"ids": 3}, TypeError, "ids must be a Tensor, got int"),
        ({"ids": IDS.half()}, TypeError, "ids must be integers, got torch.float16"),
        ({"ids": IDS.expand(2, 3, 4, 5)}, ValueError, "ids must be (N, 1, H, W) or (N, H, W), got shape (2, 3, 4, 5)"),
        ({"ids": IDS[0, 0]}, ValueError, "ids must be (N, 1, H, W) or (N, H, W), got shape (4, 5)"),
        (
            {"dtype": torch.int32},
            TypeError,
            "dtype must be float32, bfloat16, float16, float64, uint8 or bool, got torch.int32",
        ),
        ({"backend": "cuda"}, ValueError, "backend must be one of native, triton, compile, reference or None"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_argument_is_named_with_what_was_expected_and_what_came(arguments, error, sentence):
    with pytest.raises(error, match=re.escape(sentence)):
        instance_edges(**{"ids": IDS, **arguments})


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    shape=st.one_of(
        st.tuples(st.integers(0, 2), st.just(1), st.integers(0, 6), st.integers(0, 40)),
        st.lists(st.integers(0, 4), max_size=5),
    ),
    id_dtype=st.sampled_from([*ID_DTYPES, torch.bool, torch.float32]),
    dtype=st.sampled_from([*EDGE_DTYPES, torch.int64]),
    backend=st.sampled_from([None, "native", "reference", "triton", "vulkan"]),
)
def test_any_arguments_give_the_definition_or_a_documented_error(shape, id_dtype, dtype, backend):
    ids = torch.randint(2, shape).to(id_dtype)
    try:
        edges = instance_edges(ids, dtype=dtype, backend=backend)
    except (TypeError, ValueError, BackendUnavailableError):
        return
    assert edges.dtype == dtype
    if edges.numel():
        assert edges.int().tolist() == definition(ids if ids.dim() == 4 else ids[:, None])


# --- the module ------------------------------------------------------------------------------------------


def test_the_module_is_the_function():
    ids = torch.randint(3, (2, 1, 4, 5))
    module = InstanceEdges(torch.uint8)
    for same in (module, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(same(ids), instance_edges(ids, dtype=torch.uint8))
    assert repr(module) == "InstanceEdges(dtype=torch.uint8)"
    assert InstanceEdges()(ids).dtype == torch.float32
    assert module.state_dict() == {}
