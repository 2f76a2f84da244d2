"""The tables of what was measured of the fused convolution, and the choice between it and the vendor's."""

from __future__ import annotations

import json
import os

import pytest
import torch

from benchmarks import tune_convolutions
from torchp2p.ops import Deferred, _algorithm, _conv_fused, _tuning, conv_norm_act
from torchp2p.ops._conv_fused import tiles_of
from torchp2p.ops.norm_act import Options
from torchp2p.reference.conv_norm_act import Convolution

kernels = pytest.importorskip("torchp2p.kernels.conv_norm_act", reason="triton is not installed")
CPU = torch.device("cpu")
NAME = "cpu-interpreter.json"
ROW = {
    "algorithm": "fused",
    "milliseconds": {"vendor": 2.0, "fused": 1.0},
    "tiles": {"forward": [32, 16, 16, 4, 1], "data": [16, 16, 16, 4, 1], "weight": [16, 8, 32, 4, 1]},
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """This machine's tables, which are empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("TORCHP2P_TUNE", raising=False)
    _tuning._table.cache_clear()
    yield tmp_path / "torchp2p" / "tuning"
    _tuning._table.cache_clear()


def forget():
    """What a new process has in memory."""
    _tuning._table.cache_clear()


# --- tables ----------------------------------------------------------------------------------------------


def test_a_row_is_found_by_the_next_process(folder):
    assert _tuning.find(CPU, "a shape") is None
    _tuning.remember(CPU, "a shape", ROW)
    forget()
    assert _tuning.find(CPU, "a shape") == ROW
    assert json.loads((folder / NAME).read_text()) == {"format": 1, "rows": {"a shape": ROW}}


def test_rows_that_another_process_has_written_meanwhile_stay(folder):
    _tuning.remember(CPU, "ours", ROW)
    _tuning.write(folder / NAME, {"theirs": ROW})
    _tuning.remember(CPU, "another", ROW)
    assert _tuning.read(folder / NAME).keys() == {"theirs", "another"}


def test_what_this_machine_has_measured_goes_before_what_is_shipped(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(_tuning, "SHIPPED", tmp_path / "shipped")
    vendor = {"algorithm": "vendor"}
    _tuning.write(tmp_path / "shipped" / NAME, {"both": vendor, "shipped": vendor})
    _tuning.write(folder / NAME, {"both": ROW})
    assert _tuning.find(CPU, "both") == ROW
    assert _tuning.find(CPU, "shipped") == vendor


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 2, "rows": {"a": {}}}', '{"format": 1, "rows": []}'])
def test_a_file_that_is_no_table_is_none(content, tmp_path):
    path = tmp_path / "table.json"
    path.write_text(content)
    assert _tuning.read(path) == {}


def test_a_table_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "table.json"
    _tuning.write(path, {"before": ROW})
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("the disk is full")))
    with pytest.raises(OSError, match="full"):
        _tuning.write(path, {"after": ROW})
    assert _tuning.read(path) == {"before": ROW}
    assert [each.name for each in tmp_path.iterdir()] == ["table.json"]


def test_a_folder_that_cannot_be_written_to_is_no_error(folder):
    folder.parent.mkdir(parents=True)
    folder.write_text("a file in its place")
    _tuning.remember(CPU, "a shape", ROW)
    assert _tuning.find(CPU, "a shape") == ROW


# --- keys ------------------------------------------------------------------------------------------------

CONVOLUTION = Convolution([1, 1], 1, "reflect", False, [0, 0])
OPTIONS = Options("instance", 1e-5, "relu", 0.2, 1, "reflect", 1)


def key(size=(2, 4, 6, 7), dtype=torch.float32, residual=None, options=OPTIONS, conv=CONVOLUTION, arithmetic="ieee"):
    x, weight = torch.empty(size, dtype=dtype), torch.empty(5, 4, 3, 3)
    return _tuning.key_of(x, residual, options, weight, conv, arithmetic)


def test_sizes_within_a_power_of_two_share_a_row():
    assert key((2, 4, 6, 7)) == key((3, 4, 7, 9))
    assert key((2, 4, 6, 7)) != key((2, 4, 8, 8))
    assert key((2, 4, 6, 7)) != key((4, 4, 6, 7))


@pytest.mark.parametrize(
    "other",
    [
        {"dtype": torch.bfloat16}, {"residual": torch.empty(0)}, {"options": OPTIONS._replace(act="tanh")},
        {"options": OPTIONS._replace(norm="batch")}, {"conv": CONVOLUTION._replace(stride=[2, 2])},
        {"conv": CONVOLUTION._replace(pad_mode="zeros")}, {"conv": CONVOLUTION._replace(transposed=True)},
        {"arithmetic": "tf32"},
    ],
    ids=lambda other: next(iter(other)),
)  # fmt: skip
def test_whatever_changes_the_kernel_changes_the_key(other):
    assert key(**other) != key()


# --- the choice ------------------------------------------------------------------------------------------

BLOCK = {"stride": 1, "padding": 1, "norm": "instance", "act": "none"}


@pytest.fixture
def block(monkeypatch):
    """A block on a machine where nobody asks for an algorithm and both can run; what it measures with."""
    monkeypatch.setattr(_algorithm, "DEVICES", ("cpu",))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(kernels, "candidates", lambda x, use: [kernels.Tile(16, 8, 8, 4, 1), TINY])
    return lambda **more: conv_norm_act(Deferred(X, "instance", act="relu"), WEIGHT, **BLOCK, **more)


TINY = kernels.Tile(32, 8, 8, 4, 1)
X, WEIGHT = torch.ones(1, 3, 4, 5), torch.ones(2, 3, 3, 3)


def timer(monkeypatch, took):
    """Measuring finds what ``took`` says, call by call; the number of measurements is what grows."""
    measured = []

    def milliseconds(function):
        function()
        measured.append(1)
        return took[(len(measured) - 1) % len(took)]

    monkeypatch.setattr(_algorithm, "_milliseconds", milliseconds)
    return measured


# Two candidates for each of three tiles, then the vendor's and the fused convolution.
VENDOR_WINS, FUSED_WINS = [3, 1, 1, 3, 3, 1, 4, 5], [3, 1, 1, 3, 3, 1, 5, 4]


@pytest.mark.parametrize(("took", "winner"), [(VENDOR_WINS, "vendor"), (FUSED_WINS, "fused")], ids=["vendor", "fused"])
def test_a_shape_without_a_row_is_measured_once_and_the_faster_is_taken(took, winner, block, folder, monkeypatch):
    measured, ran = timer(monkeypatch, took), []
    expected = block(algorithm="vendor")
    torch.testing.assert_close(block(), expected, rtol=1e-4, atol=1e-4)
    assert len(measured) == 8
    forget()
    forward = _conv_fused.forward
    monkeypatch.setattr(_conv_fused, "forward", lambda *arguments: ran.append(1) or forward(*arguments))
    block()
    assert len(measured) == 8
    assert bool(ran) == (winner == "fused")
    (row,) = _tuning.read(folder / NAME).values()
    assert row["algorithm"] == winner
    assert row["milliseconds"] == {"vendor": took[6], "fused": took[7]}
    assert row["tiles"] == {"forward": list(TINY), "data": [16, 8, 8, 4, 1], "weight": list(TINY)}


def test_the_tiles_of_a_row_are_used(folder):
    tensors = (X, None, None, None, None, None)
    _tuning.remember(CPU, _conv_fused.key_of(tensors, OPTIONS, WEIGHT, CONVOLUTION), ROW)
    tiles = tiles_of(tensors, OPTIONS, WEIGHT, CONVOLUTION)
    assert {use: list(tile) for use, tile in tiles._asdict().items()} == ROW["tiles"]


def test_with_tuning_off_the_vendors_convolution_runs_and_nothing_is_measured(block, monkeypatch):
    monkeypatch.setenv("TORCHP2P_TUNE", "0")
    measured = timer(monkeypatch, FUSED_WINS)
    assert torch.equal(block(), block(algorithm="vendor"))
    assert measured == []


def test_with_tuning_off_tables_are_read(block, monkeypatch):
    timer(monkeypatch, FUSED_WINS)
    block()
    monkeypatch.setenv("TORCHP2P_TUNE", "0")
    assert block(defer=True).mean is not None  # the fused convolution hands statistics on


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def test_where_torch_is_to_be_deterministic_nothing_is_measured(block, monkeypatch, deterministic):
    measured = timer(monkeypatch, FUSED_WINS)
    assert torch.equal(block(), block(algorithm="vendor"))
    assert measured == []


def test_where_torch_is_to_be_deterministic_only_what_is_shipped_counts(folder, tmp_path, monkeypatch, deterministic):
    monkeypatch.setattr(_tuning, "SHIPPED", tmp_path / "shipped")
    _tuning.write(tmp_path / "shipped" / NAME, {"shipped": ROW})
    _tuning.remember(CPU, "measured", ROW)
    forget()
    assert _tuning.find(CPU, "shipped") == ROW
    assert _tuning.find(CPU, "measured") is None


def test_nothing_is_measured_while_a_cuda_graph_is_captured(block, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    measured = timer(monkeypatch, FUSED_WINS)
    block()
    assert measured == []


def test_nothing_is_measured_while_torch_compile_traces(block, monkeypatch):
    measured = timer(monkeypatch, FUSED_WINS)
    torch.compile(block, backend="eager")()
    torch._dynamo.reset()
    assert measured == []


def out_of_memory(function):
    raise torch.OutOfMemoryError("no room")


def test_what_keeps_the_fused_convolution_from_being_measured_is_said_once_and_the_vendors_runs(block, monkeypatch):
    monkeypatch.setattr(_algorithm, "_milliseconds", out_of_memory)
    with pytest.warns(RuntimeWarning, match="leaves conv 2x3x3x3 .* to the vendor's convolution: no room") as said:
        results = [block(), block()]
    assert len(said) == 1
    assert all(torch.equal(y, block(algorithm="vendor")) for y in results)


def test_in_strict_mode_it_is_raised(block, monkeypatch):
    monkeypatch.setenv("TORCHP2P_STRICT", "1")
    monkeypatch.setattr(_algorithm, "_milliseconds", out_of_memory)
    with pytest.raises(torch.OutOfMemoryError, match="no room"):
        block()


def test_on_the_cpu_nothing_is_measured(monkeypatch):
    measured = timer(monkeypatch, FUSED_WINS)
    conv_norm_act(X, WEIGHT)
    assert measured == []


# --- the tables of the package ---------------------------------------------------------------------------


def test_new_rows_of_a_table_join_the_old_ones_and_losing_shapes_are_counted(tmp_path, capsys):
    path = tmp_path / "tuning" / "gpu.json"
    tune_convolutions.merged(path, {"format": 1, "rows": {"b": ROW}})
    rows = tune_convolutions.merged(path, {"format": 1, "rows": {"a": {"algorithm": "vendor"}}})
    assert _tuning.read(path) == rows == {"a": {"algorithm": "vendor"}, "b": ROW}
    tune_convolutions.show(rows)
    assert capsys.readouterr().out.splitlines() == [
        "       -        -  vendor  a",
        "   2.000    1.000  fused   b",
        "1 of 2 shapes are left to the vendor's convolution",
    ]


def test_without_a_gpu_the_tables_of_the_package_cannot_be_measured(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="needs a CUDA GPU"):
        tune_convolutions.main([])
