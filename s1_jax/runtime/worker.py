"""A worker process that answers line by line, for work that can hang, crash or exhaust its memory."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import IO

from s1_jax.errors import RunError
from s1_jax.runtime.clocks import AwakeTime

SECONDS_OF_A_START = 120.0  # it takes less than one on an idle machine
LOOK = 0.2  # seconds between two looks at the clock
PIECE = 2**16  # bytes that one read returns at most


class Worker:
    """A process that prints "ready" and then answers each line with a line; after it was ended, a new one starts.

    It runs the Python file and the arguments that `script` returns. It starts with the first question, and ends with
    its standard input, hence with this process. `what` is what errors call it.
    """

    def __init__(self, script: Callable[[], Sequence[str]], what: str) -> None:
        self._script, self._what = script, what
        self._process: subprocess.Popen[bytes] | None = None
        self._turn = threading.Lock()

    def ask_line(self, line: str, seconds: float) -> str | None:
        """Return the worker's reply; None if it ended, or was ended because it gave none within `seconds`.

        Raises RunError if it cannot be started.
        """
        with self._turn:
            process = self._process or self._start()
            try:
                return self._asked(process, line, seconds)
            except BaseException:  # after Ctrl-C, the late reply would answer the next question
                self.close()
                raise

    def close(self) -> None:
        """End the worker, whatever it is working on."""
        if self._process is not None:
            process, self._process = self._process, None
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            for pipe in (process.stdin, process.stdout):
                _end(pipe).close()
            process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        with tempfile.TemporaryFile() as errors:
            self._process = process = subprocess.Popen(
                [sys.executable, "-P", *self._script()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,
                start_new_session=True,  # so that Ctrl-C reaches only this process
            )
            try:
                said = _line(process, SECONDS_OF_A_START)
            except BaseException:
                self.close()
                raise
            if said != "ready":
                self.close()
                errors.seek(0)
                lines = errors.read().decode(errors="replace").split("\n")
                reason = next((line for line in reversed(lines) if line.strip()), "it said nothing")
                raise RunError(f"{self._what} could not be started ({reason})")
        return process

    def _asked(self, process: subprocess.Popen[bytes], line: str, seconds: float) -> str | None:
        left, reply = line.encode() + b"\n", None
        with suppress(BrokenPipeError):
            while left:
                left = left[_end(process.stdin).write(left) :]
            reply = _line(process, seconds)
        if reply is None:
            self.close()
        return reply


def _line(process: subprocess.Popen[bytes], seconds: float) -> str | None:
    """Return the next line that the process writes; None if it has ended or writes none in time."""
    output, clock, pieces = _end(process.stdout), AwakeTime(2 * LOOK), [b""]
    while not pieces[-1].endswith(b"\n"):
        ready, _, _ = select.select([output], [], [], LOOK)
        piece = output.read(PIECE) if ready else b""
        if (ready and not piece) or (clock.look() > seconds and not piece.endswith(b"\n")):
            return None
        if piece:
            pieces.append(piece)
    return b"".join(pieces).decode().strip()


def _end(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe
