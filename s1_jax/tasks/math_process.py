"""Asks math_worker.py, which is started at the first pair that needs it and lives as long as this process.

Threads that ask at the same time have a worker each.
"""

from __future__ import annotations

import atexit
import json
from functools import lru_cache
from pathlib import Path

from s1_jax.runtime.worker import Worker

WORKER = Path(__file__).with_name("math_worker.py")
SECONDS_OF_A_PAIR = 5.0  # of processor time; the slowest formula that a person wrote took 0.9
SECONDS_OF_AN_ANSWER = 300.0  # by the clock, for a worker that does not even end its forks: room for a busy machine
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


class Helper(Worker):
    """One worker process; a new one after it was ended."""

    def __init__(self) -> None:
        super().__init__(lambda: [str(WORKER), str(SECONDS_OF_A_PAIR)], "math-verify, which compares answers,")

    def ask(self, gold: str, answer: str) -> str:
        """The worker's reply, or "killed" where it died or SECONDS_OF_AN_ANSWER are over. Raises RunError."""
        return self.ask_line(json.dumps([gold, answer]), SECONDS_OF_AN_ANSWER) or "killed"


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


_helpers = Helpers()
atexit.register(_helpers.close)
