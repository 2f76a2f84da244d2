"""Atomic writing: the old file or the new one, whatever happens in between."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from torchp2p.files import atomic_path, atomic_write


def test_the_new_content_takes_the_place_of_the_old(tmp_path: Path) -> None:
    path = tmp_path / "state.bin"
    path.write_bytes(b"old")
    atomic_write(path, lambda file: file.write(b"new"))
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["state.bin"]


def test_the_temporary_file_is_a_hidden_neighbour_with_the_same_suffix(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "picture.png") as temporary:
        temporary.write_bytes(b"x")
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".png"
        assert temporary.name.startswith(".")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_whatever_stops_the_writer_leaves_the_previous_file_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "state.bin"
    path.write_bytes(b"old")

    def write_half() -> None:
        with atomic_path(path) as temporary:
            temporary.write_bytes(b"ha")
            raise error("stopped")

    with pytest.raises(error):
        write_half()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["state.bin"]


_WRITERS = {
    "bytes": ("f.bin", "atomic_write(path, lambda file: file.write(bytes(100_000)))"),
    "png": ("f.png", "save_image(np.random.default_rng(0).random((3, 200, 200)), path)"),
    "tiff": ("f.tif", "save_image(np.zeros((5, 200, 200)), path)"),
}


@pytest.mark.parametrize(("name", "statement"), _WRITERS.values(), ids=_WRITERS)
def test_a_file_that_does_not_fit_raises_os_error_and_leaves_the_previous_one(
    tmp_path: Path, name: str, statement: str
) -> None:
    pytest.importorskip("resource", reason="file size limits are POSIX")
    path = tmp_path / name
    path.write_bytes(b"old")
    program = f"""
import resource, sys
import numpy as np
from torchp2p.data.images import save_image
from torchp2p.files import atomic_write
path = sys.argv[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    {statement}
except OSError as error:
    sys.exit(0 if path in str(error) else f"the error does not name the file: {{error}}")
sys.exit("nothing was raised")
"""
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == [name]


def test_a_missing_folder_is_file_not_found_and_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "state.bin"
    with pytest.raises(FileNotFoundError) as caught:
        atomic_write(path, lambda file: file.write(b"new"))
    assert caught.value.filename == str(path)


def test_an_error_about_another_file_keeps_its_name(tmp_path: Path) -> None:
    source = tmp_path / "source.bin"
    with pytest.raises(FileNotFoundError) as caught:
        atomic_write(tmp_path / "copy.bin", lambda file: file.write(source.read_bytes()))
    assert caught.value.filename == str(source)


@pytest.mark.skipif(os.name == "nt", reason="symbolic links and umask are POSIX")
class TestOnPosix:
    def test_a_symbolic_link_is_written_through(self, tmp_path: Path) -> None:
        real, link = tmp_path / "epoch_5.bin", tmp_path / "latest.bin"
        real.write_bytes(b"old")
        link.symlink_to(real.name)
        atomic_write(link, lambda file: file.write(b"new"))
        assert link.is_symlink()
        assert real.read_bytes() == b"new"

    def test_a_new_file_has_the_permissions_any_new_file_has(self, tmp_path: Path) -> None:
        (tmp_path / "plain").write_bytes(b"")
        atomic_write(tmp_path / "atomic", lambda file: file.write(b""))
        assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode
