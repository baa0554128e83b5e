"""Asks math_worker.py, which is started at the first pair that needs it and lives as long as this process.

Threads that ask at the same time have a worker each.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import IO

from s1_jax.clocks import AwakeTime
from s1_jax.config import RunError

WORKER = Path(__file__).with_name("math_worker.py")
SECONDS_OF_A_PAIR = 5.0  # of processor time; the slowest formula that a person wrote took 0.9
SECONDS_OF_AN_ANSWER = 300.0  # by the clock, for a worker that does not even end its forks: room for a busy machine
SECONDS_OF_A_START = 120.0  # less than one, where nothing else is running
LOOK = 0.2  # seconds after which it is looked at the clock
REMEMBERED = 2**14  # pairs: a sweep meets the same answer to the same problem again and again


def mathematically_equal(gold: str, answer: str) -> bool | None:
    """What math-verify says; None where it cannot read one of the two, or not within processor time and memory.

    What it says is remembered; that it was ended is not. Raises RunError where math-verify cannot be started.
    """
    try:
        return _said_of(gold, answer)
    except _Ended:
        return None


@lru_cache(maxsize=REMEMBERED)
def _said_of(gold: str, answer: str) -> bool | None:
    """As `mathematically_equal`, but raises _Ended, which the cache does not keep, where math-verify was ended."""
    reply = _helpers.ask(gold, answer)
    if reply in ("too long", "killed"):
        raise _Ended
    return {"equal": True, "different": False}.get(reply)


forget = _said_of.cache_clear  # what was said so far


class _Ended(Exception):
    """Math-verify was ended before it said anything."""


class Helper:
    """One worker process; a new one after it was ended."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._turn = threading.Lock()

    def ask(self, gold: str, answer: str) -> str:
        """The worker's reply, or "killed" where it died or SECONDS_OF_AN_ANSWER are over. Raises RunError."""
        with self._turn:
            process = self._process or self._start()
            try:
                return self._asked(process, json.dumps([gold, answer]))
            except BaseException:  # Ctrl-C, say: the reply would come to the next pair
                self.close()
                raise

    def close(self) -> None:
        """Ends the worker, and with it what it works on."""
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
                [sys.executable, "-P", str(WORKER), str(SECONDS_OF_A_PAIR)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,
                start_new_session=True,  # Ctrl-C is for this process
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
                raise RunError(f"math-verify, which compares answers, could not be started ({reason})")
        return process

    def _asked(self, process: subprocess.Popen[bytes], pair: str) -> str:
        try:
            _end(process.stdin).write(pair.encode() + b"\n")
            reply = _line(process, SECONDS_OF_AN_ANSWER)
        except BrokenPipeError:
            reply = None
        if reply is None:
            self.close()
        return reply or "killed"


class Helpers:
    """Helpers for any number of threads: one that is idle, else a new one."""

    def __init__(self) -> None:
        self._idle: list[Helper] = []

    def ask(self, gold: str, answer: str) -> str:
        """As `Helper.ask`."""
        try:
            helper = self._idle.pop()
        except IndexError:
            helper = Helper()
        try:
            return helper.ask(gold, answer)
        finally:
            self._idle.append(helper)

    def close(self) -> None:
        """Ends the workers that are idle."""
        for helper in self._idle:
            helper.close()


def _line(process: subprocess.Popen[bytes], seconds: float) -> str | None:
    """The next line the process writes; None where it has ended, or writes none in time."""
    output, line = _end(process.stdout), b""
    clock = AwakeTime(2 * LOOK)
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([output], [], [], LOOK)
        piece = output.read(64) if ready else b""
        if (ready and not piece) or (clock.look() > seconds and not piece.endswith(b"\n")):
            return None
        line += piece
    return line.decode().strip()


def _end(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe


_helpers = Helpers()
atexit.register(_helpers.close)
