"""Client that starts math_worker.py at the first request and keeps it as long as this process lives.

Each of several threads that ask at the same time has its own worker.
"""

from __future__ import annotations

import atexit
import json
from functools import lru_cache
from pathlib import Path

from s1_jax.runtime.worker import Worker

WORKER = Path(__file__).with_name("math_worker.py")
SECONDS_OF_A_PAIR = 5.0  # processor time; the slowest formula written by a person took 0.9
SECONDS_OF_AN_ANSWER = 300.0  # wall time, for a worker that does not even end its forks; long for busy machines
REMEMBERED = 2**14  # pairs; a sweep repeats the same answer to the same problem many times


def mathematically_equal(gold: str, answer: str) -> bool | None:
    """Return whether math-verify says that two formulas are equal.

    Returns None if it cannot parse one of them or exceeds its time or memory. Verdicts are cached; timeouts are not.
    Raises RunError if math-verify cannot be started.
    """
    try:
        return _said_of(gold, answer)
    except _Ended:
        return None


@lru_cache(maxsize=REMEMBERED)
def _said_of(gold: str, answer: str) -> bool | None:
    """Ask a worker, as `mathematically_equal` does, but raise _Ended, which is not cached, if it was ended."""
    reply = _helpers.ask(gold, answer)
    if reply in ("too long", "killed"):
        raise _Ended
    return {"equal": True, "different": False}.get(reply)


forget = _said_of.cache_clear


class _Ended(Exception):
    """Raised when math-verify was ended before it replied."""


class Helper(Worker):
    """One worker process, restarted after it was ended."""

    def __init__(self) -> None:
        super().__init__(lambda: [str(WORKER), str(SECONDS_OF_A_PAIR)], "math-verify, which compares answers,")

    def ask(self, gold: str, answer: str) -> str:
        """Return the worker's reply, or "killed" if it died or took longer than SECONDS_OF_AN_ANSWER.

        Raises RunError if it cannot be started.
        """
        return self.ask_line(json.dumps([gold, answer]), SECONDS_OF_AN_ANSWER) or "killed"


class Helpers:
    """Pool of helpers for any number of threads: an idle one is reused, else one is started."""

    def __init__(self) -> None:
        self._idle: list[Helper] = []

    def ask(self, gold: str, answer: str) -> str:
        """Ask an idle or a new helper, as in `Helper.ask`."""
        try:
            helper = self._idle.pop()
        except IndexError:
            helper = Helper()
        try:
            return helper.ask(gold, answer)
        finally:
            self._idle.append(helper)

    def close(self) -> None:
        """End the worker processes that are idle."""
        for helper in self._idle:
            helper.close()


_helpers = Helpers()
atexit.register(_helpers.close)
