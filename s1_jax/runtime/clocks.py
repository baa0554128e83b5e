"""Time as a process saw it pass."""

from __future__ import annotations

import time
from collections.abc import Callable


class AwakeTime:
    """Seconds that passed while this process was running.

    While it is stopped (Ctrl-Z, a suspended machine) it cannot look, and no one is late: of the time between two looks
    at most `longest` seconds count.
    """

    def __init__(self, longest: float, now: Callable[[], float] = time.monotonic) -> None:
        self._longest, self._now = longest, now
        self._passed, self._looked = 0.0, now()

    def look(self) -> float:
        """The seconds since the start."""
        now = self._now()
        self._passed += min(now - self._looked, self._longest)
        self._looked = now
        return self._passed
