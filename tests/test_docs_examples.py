"""Every example of the documents runs, and the three of the first page have ten lines."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from torchp2p.cli.main import COMMANDS, main

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> dict[str, str]:
    """The code blocks of all pages that are in a language, by page and number."""
    found = {}
    for page in PAGES:
        for number, match in enumerate(FENCE.finditer(page.read_text())):
            if match[1] == language:
                found[f"{page.relative_to(ROOT)}:{number}"] = match[2]
    return found


PYTHON, CONSOLE = blocks("python"), blocks("console")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", PYTHON)
def test_an_example_in_python_runs(name):
    exec(compile(PYTHON[name], name, "exec"), {"__name__": "__main__"})


def test_the_first_page_has_an_example_of_ten_lines_for_each_kind_of_user():
    of_first_page = [text for name, text in (PYTHON | CONSOLE).items() if name.startswith("docs/index.md")]
    assert len(of_first_page) == 3
    assert all(1 <= len(re.findall(r"^.", text, re.MULTILINE)) <= 10 for text in of_first_page)


@pytest.mark.filterwarnings("error::FutureWarning", "ignore::DeprecationWarning")
def test_the_commands_of_the_first_page_run():
    (commands,) = (text for name, text in CONSOLE.items() if name.startswith("docs/index.md"))
    for line in commands.splitlines():
        assert main(shlex.split(line)[1:]) == 0, line
    assert Path("first.onnx").is_file()


@pytest.mark.parametrize("name", CONSOLE)
def test_commands_are_those_that_there_are(name, capsys):
    for line in CONSOLE[name].splitlines():
        program, *call = shlex.split(line, comments=True)
        assert (program, call[0] in COMMANDS) == ("torchp2p", True), line
        known = flags_of(call, capsys)
        assert {word.partition("=")[0] for word in call if word.startswith("--")} <= known, line


def flags_of(call: list[str], capsys: pytest.CaptureFixture[str]) -> set[str]:
    """The flags of the command, of its sub-command, and of the model that its preset is of."""
    words = call[: 2 if call[0] in ("data", "features") else 1]
    preset = call.index("--preset") if "--preset" in call else len(call)
    with pytest.raises(SystemExit):
        main([*words, *call[preset : preset + 2], "--help"])
    return set(re.findall(r"--\w+", capsys.readouterr().out))
