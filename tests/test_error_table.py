"""The table of errors: what a row says, and that a run for some ops leaves the rows of the others."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from benchmarks.error_cases import conv_norm_act, down_and_up, gan_loss, norm_act
from benchmarks.error_table import Row, errors, main, tables, write

CPU = torch.device("cpu")


def row(op: str, error: float) -> Row:
    return Row(op, "a config", "1x1", "float32", "result", "native", error, error)


def lines(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    "case",
    [
        gan_loss("vanilla", 1.0, sizes=((5, 7),)),
        norm_act("instance", "relu", (1, 3, 8, 9), mean=1000.0),
        conv_norm_act((1, 8, 6, 7), mean=0.0),
        down_and_up((1, 8, 8, 8), mean=0.0),
    ],
    ids=lambda case: f"{case.op} {case.config}",
)
def test_every_quantity_has_an_error_of_eager_and_of_each_backend(case) -> None:
    found = list(errors(case, torch.float32, CPU, ["native", "reference"]))
    quantities = {"result", *(f"grad_{name}" for name in case.tensors)}
    assert {(each.quantity, each.provider) for each in found} == {
        (quantity, provider) for quantity in quantities for provider in ("eager", "native", "reference")
    }
    assert all(0 <= each.rms_relative_error < 1e-3 for each in found)
    assert len(list(tables(found))) == 1


def test_rows_replace_those_of_the_same_op_and_leave_the_others(tmp_path) -> None:
    path = tmp_path / "errors_cpu.csv"
    write(path, [row("norm_act", 1e-7), row("gan_loss", 2e-7)], "a chip")
    write(path, [row("gan_loss", 3e-7)], "another")
    found = [(line["op"], line["device"], line["rms_relative_error"]) for line in lines(path)]
    assert found == [("norm_act", "a chip", "1e-07"), ("gan_loss", "another", "3e-07")]


def test_an_op_that_has_no_cases_is_refused(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["--ops", "poems"])
    assert "invalid choice: 'poems' (choose from" in capsys.readouterr().err
