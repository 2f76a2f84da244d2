"""What was measured of the fused convolution: tables of shapes, one a GPU, shipped and found on this machine.

A table is a JSON file ``<gpu>.json``: ``{"format": 1, "rows": {key: row}}``. Those in ``torchp2p/ops/tuning`` were
measured by the project; what this machine measures is kept in ``$XDG_CACHE_HOME/torchp2p/tuning`` (``~/.cache`` where
that is not set) and goes before them. A row says which ``algorithm`` was faster, how many ``milliseconds`` each took
for forward and backward, and the ``tiles`` of the fused one: of ``forward``, ``data`` and ``weight`` five numbers each.
``TORCHP2P_TUNE=0`` turns measuring off; tables are read all the same. Where torch is told to be deterministic only the
shipped tables count: another measurement might find another algorithm the faster.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torchp2p.ops.norm_act import Options
from torchp2p.reference.conv_norm_act import Convolution
from torchp2p.reference.norm_act import memory_format_of

Row = dict[str, Any]
Table = dict[str, Row]

FORMAT = 1
SHIPPED = Path(__file__).parent / "tuning"


def enabled() -> bool:
    """Whether a shape that no table has may be measured."""
    return os.environ.get("TORCHP2P_TUNE", "1") != "0" and not torch.are_deterministic_algorithms_enabled()


def key_of(
    x: Tensor, residual: Tensor | None, options: Options, weight: Tensor, conv: Convolution, arithmetic: str
) -> str:
    """What a row is about; ``arithmetic`` is how float32 is multiplied, where it is that.

    Sizes of images count by powers of two: a table has few rows, however many sizes come.
    """
    n, _, height, width = x.shape
    kind = "transposed" if conv.transposed else "conv"
    layout = "channels_last" if memory_format_of(x) == torch.channels_last else "contiguous"
    return (
        f"{kind} {'x'.join(map(str, weight.shape))} stride {'x'.join(map(str, conv.stride))} padding {conv.padding} "
        f"{conv.pad_mode}, {options.norm} {options.act}{'' if residual is None else ' residual'}, "
        f"{str(x.dtype).removeprefix('torch.')} {arithmetic} {layout}, samples < {2 ** n.bit_length()}, "
        f"pixels < {2 ** (height * width).bit_length()}"
    )


def find(device: torch.device, key: str) -> Row | None:
    """The row of ``key``, if there is one."""
    found = SHIPPED if torch.are_deterministic_algorithms_enabled() else cache_folder()
    return _table(_name(device), found).get(key)


def remember(device: torch.device, key: str, row: Row) -> None:
    """Add ``row`` to this machine's table. A folder that cannot be written to costs the next process a measurement."""
    name, folder = _name(device), cache_folder()
    _table(name, folder)[key] = row
    try:
        write(folder / f"{name}.json", {**read(folder / f"{name}.json"), key: row})
    except OSError:
        return


def cache_folder() -> Path:
    """Where this machine keeps what it has measured."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "torchp2p" / "tuning"


def read(path: Path) -> Table:
    """The rows of a table; none where there is no such file, or it is not one of this format."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    rows = content.get("rows") if isinstance(content, dict) and content.get("format") == FORMAT else None
    return rows if isinstance(rows, dict) else {}


def write(path: Path, rows: Table) -> None:
    """Write a table whole or not at all: whoever reads meanwhile sees the one before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump({"format": FORMAT, "rows": dict(sorted(rows.items()))}, file, indent=1)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


@cache
def _table(name: str, folder: Path) -> Table:
    return {**read(SHIPPED / f"{name}.json"), **read(folder / f"{name}.json")}


@cache
def _name(device: torch.device) -> str:
    """Of the GPU, as a file is called; the interpreter runs on what torch calls cpu."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} interpreter"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
