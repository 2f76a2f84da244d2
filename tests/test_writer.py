"""The background writer: order, bounded memory, and failures that reach the caller."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import numpy as np
import pytest

from torchp2p.data.images import write_image
from torchp2p.train.writer import Writer

_PATIENCE = 30.0
"""Seconds that a test waits before it fails."""


def test_jobs_run_in_the_order_they_were_submitted() -> None:
    ran: list[int] = []
    with Writer() as writer:
        for number in range(200):
            writer.submit(ran.append, number)
    assert ran == list(range(200))


def test_a_slow_job_does_not_hold_up_the_caller() -> None:
    go_on, seen = threading.Event(), []
    with Writer() as writer:
        writer.submit(lambda: seen.append(go_on.wait(_PATIENCE)))
        go_on.set()  # reached only because submit did not wait
    assert seen == [True]


def test_jobs_run_in_another_thread() -> None:
    threads: list[int] = []
    with Writer() as writer:
        writer.submit(lambda: threads.append(threading.get_ident()))
    assert threads != [threading.get_ident()]


def test_submit_waits_while_64_jobs_are_pending() -> None:
    go_on, full, finished = threading.Event(), threading.Event(), []

    def job() -> None:
        go_on.wait(_PATIENCE)
        finished.append(1)

    def open_when_full() -> None:
        full.wait(_PATIENCE)
        go_on.set()

    opener = threading.Thread(target=open_when_full)
    opener.start()
    with Writer() as writer:
        for _ in range(64):
            writer.submit(job)
        assert finished == []
        full.set()
        writer.submit(job)
        assert len(finished) >= 1
    opener.join()
    assert len(finished) == 65


def test_wait_returns_when_everything_submitted_has_run() -> None:
    ran: list[int] = []
    with Writer() as writer:
        for number in range(20):
            writer.submit(ran.append, number)
        writer.wait()
        assert len(ran) == 20


def _break(writer: Writer, tmp_path: Path) -> None:
    """Submit a picture that cannot be written: what should be its folder is a file."""
    (tmp_path / "taken").write_bytes(b"")
    writer.submit(write_image, np.zeros((4, 4, 3), np.uint8), tmp_path / "taken" / "picture.png")


def test_a_failed_job_raises_its_error_with_the_file_at_close(tmp_path: Path) -> None:
    writer = Writer()
    _break(writer, tmp_path)
    with pytest.raises(NotADirectoryError, match=r"taken/.*picture"):
        writer.close()


def test_a_failed_job_raises_at_a_later_submit(tmp_path: Path) -> None:
    with Writer() as writer:
        _break(writer, tmp_path)
        with pytest.raises(NotADirectoryError, match=r"taken/.*picture"):  # noqa: PT012
            for _ in range(65):  # when the last may be submitted, the first has run
                writer.submit(int)


def test_a_failure_is_raised_once_and_the_writer_goes_on(tmp_path: Path) -> None:
    ran: list[int] = []
    with Writer() as writer:
        _break(writer, tmp_path)
        with pytest.raises(NotADirectoryError):
            writer.wait()
        writer.submit(ran.append, 1)
    assert ran == [1]


def test_of_several_failures_the_first_is_raised() -> None:
    def fail(number: int) -> None:
        raise OSError(f"failure {number}")

    gate = threading.Event()
    writer = Writer()
    writer.submit(gate.wait, _PATIENCE)
    for number in range(3):
        writer.submit(fail, number)
    gate.set()
    with pytest.raises(OSError, match="failure 0"):
        writer.close()


def test_the_error_of_the_block_is_not_hidden_by_that_of_a_job(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def block() -> None:
        with Writer() as writer:
            _break(writer, tmp_path)
            raise KeyError("the block's own")

    with caplog.at_level(logging.ERROR, "torchp2p"), pytest.raises(KeyError, match="the block's own"):
        block()
    assert "Not a directory" in caplog.text


def test_a_closed_writer_refuses_jobs_and_may_be_closed_again() -> None:
    writer = Writer()
    writer.close()
    for _ in range(100):  # more than could be pending
        with pytest.raises(RuntimeError):
            writer.submit(print)
    writer.close()
