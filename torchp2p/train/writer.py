"""A background thread for what a training writes beside its work."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import ParamSpec

_Job = ParamSpec("_Job")
_logger = logging.getLogger("torchp2p")

_PENDING = 64


class Writer:
    """One background thread that runs small jobs in order; a context manager.

    At most 64 jobs wait or run at a time: then ``submit`` waits too, so memory stays bounded when the disk is
    slower than the network. The first exception of a job is kept and raised, once, by the next ``submit``,
    ``wait`` or ``close``: it is the job's own exception, which names the file.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="torchp2p-writer")
        self._room = threading.Semaphore(_PENDING)
        self._failure: Exception | None = None

    def submit(self, job: Callable[_Job, object], *args: _Job.args, **kwargs: _Job.kwargs) -> None:
        """Run ``job(*args, **kwargs)`` later; nothing it is given may be changed afterwards.

        Raises:
            RuntimeError: the writer is closed.
            Exception: what an earlier job raised, OSError as a rule; this job is then not run.
        """
        self._raise_failure()
        self._room.acquire()
        try:
            self._thread.submit(self._run, lambda: job(*args, **kwargs))
        except RuntimeError:
            self._room.release()
            raise

    def wait(self) -> None:
        """Return when every job submitted so far has run; raises what one of them raised."""
        self._thread.submit(lambda: None).result()  # jobs run in order, so this one is the last
        self._raise_failure()

    def close(self) -> None:
        """Run what is left and end the thread; raises what a job raised. Closing again has no effect."""
        self._thread.shutdown()
        self._raise_failure()

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        self._thread.shutdown()
        if self._failure is not None:  # raising it would hide the error that is under way
            _logger.error("%s", self._failure)

    def _run(self, job: Callable[[], object]) -> None:
        try:
            job()
        except Exception as error:
            if self._failure is None:
                self._failure = error
        finally:
            self._room.release()

    def _raise_failure(self) -> None:
        failure = self._failure
        if failure is not None:
            self._failure = None
            raise failure
