"""Clocks that count only the time in which this process was running."""

from __future__ import annotations

import time
from collections.abc import Callable


class AwakeTime:
    """Clock of the seconds that passed while this process was running.

    While the process is stopped (Ctrl-Z, a suspended machine) it cannot look at the clock. So at most `longest` seconds
    between two looks count.
    """

    def __init__(self, longest: float, now: Callable[[], float] = time.monotonic) -> None:
        self._longest, self._now = longest, now
        self._passed, self._looked = 0.0, now()

    def look(self) -> float:
        """Return the seconds since the clock was made."""
        now = self._now()
        self._passed += min(now - self._looked, self._longest)
        self._looked = now
        return self._passed
