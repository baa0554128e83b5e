"""The note of a progress bar while an engine decodes requests: tokens per second, and the time left."""

from __future__ import annotations

import time

from s1_jax.decoding.engine import Status
from s1_jax.runtime.stages import LiveNote, Stages


class DecodingNote(LiveNote):
    """The note of a progress bar while an engine decodes: the tokens per second.

    Where standard error is not a terminal, no bar is shown before its end. There a line says that decoding begins, and
    another that programs are compiled.
    """

    def __init__(self, begins: str) -> None:
        super().__init__()
        self._begins = begins
        self._first: tuple[float, int] | None = None  # the time of the first tokens, and their number
        self._speed = 0.0  # tokens per second since

    def __enter__(self) -> DecodingNote:
        super().__enter__()
        self._stages = Stages(live=False)
        self._stages.__enter__().at(self._begins)
        return self

    def __exit__(self, *exc: object) -> None:
        self._stages.__exit__()
        super().__exit__()

    def show(self, status: Status) -> None:
        """Update the note to the progress of the engine."""
        now = time.perf_counter() - self.compiling
        if self._first is None:
            self._first = now, status.recorded_tokens
        elif now > self._first[0]:
            self._speed = (status.recorded_tokens - self._first[1]) / (now - self._first[0])
            self.text = f"{self._speed:,.0f} tokens/s" if self._speed else ""

    def seconds_left(self, status: Status) -> float | None:
        """Estimate the seconds until all requests are done, if the others are as long as those done; None: unknown."""
        if not (status.done and self._speed):
            return None
        left = status.decoded_tokens / status.done * (status.total - status.done)
        under_way = status.recorded_tokens - status.decoded_tokens
        return max(left - under_way, 0.0) / self._speed
