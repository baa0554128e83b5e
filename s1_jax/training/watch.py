"""Measures of a step other than its loss: where its time went, device memory, and traces of chosen steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Hashable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import NamedTuple, TypeVar

import jax

from s1_jax.errors import UserError
from s1_jax.runtime.terminal import say

T = TypeVar("T")
GIB = 2**30


class StepTime(NamedTuple):
    """Parts of the time of one step, in seconds."""

    seconds: float  # from its dispatch until its numbers are read, without compilation
    input_wait: float  # of these, blocked in the loader for the step after it
    compilation: float | None  # None: nothing new was compiled


class StepClock:
    """Clock of a run's loop, from its first step on. Compilation is counted apart, as later steps do not have it."""

    def __init__(self, now: Callable[[], float] = time.perf_counter):
        self.took: StepTime  # of the last step
        self._now = now
        self._started: float | None = None
        self._compiled: set[Hashable] = set()
        self._steps, self._all_compilation = 0, 0.0
        self._input_wait, self._compilation = 0.0, 0.0  # of the step under way

    def waiting(self, steps: Iterator[T]) -> Iterator[T]:
        """Yield `steps`; the time that they block counts as input wait of the step in which they are asked."""
        while True:
            asked = self._now()
            step = next(steps, None)
            self._input_wait += self._now() - asked
            if step is None:
                return
            yield step

    @contextmanager
    def compiling(self, program: str, shape: tuple[int, ...]) -> Iterator[bool]:
        """Time the call of a jitted function, and yield whether it is the first of its shape, which compiles."""
        called, new = self._now(), (program, shape) not in self._compiled
        yield new
        if new:
            seconds = self._now() - called
            self._compiled.add((program, shape))
            self._compilation += seconds
            if self._started is not None:
                self._all_compilation += seconds

    @contextmanager
    def step(self) -> Iterator[None]:
        """Time one step; `took` has its parts afterwards."""
        self._input_wait, self._compilation = 0.0, 0.0
        began = self._now()
        if self._started is None:
            self._started = began
        yield
        seconds = self._now() - began - self._compilation
        self.took = StepTime(seconds, self._input_wait, self._compilation or None)
        self._steps += 1

    def seconds_left(self, steps: int) -> float:
        """Estimate the seconds that this many more steps take, at the pace since the first step; needs one step."""
        assert self._started is not None
        return steps * (self._now() - self._started - self._all_compilation) / self._steps


def device_memory() -> dict[str, float | None]:
    """Read the memory of the fullest local device in GiB: `hbm_gib`, `hbm_peak_gib` since the start, `hbm_limit_gib`.

    Values are None where the platform does not report them, as on CPU.
    """
    told = [device.memory_stats() or {} for device in jax.local_devices()]
    names = {"hbm_gib": "bytes_in_use", "hbm_peak_gib": "peak_bytes_in_use", "hbm_limit_gib": "bytes_limit"}
    return {
        ours: max(stats[theirs] for stats in told) / GIB if all(theirs in stats for stats in told) else None
        for ours, theirs in names.items()
    }


class Trace:
    """Traces of chosen steps through jax's profiler: a folder in `folder` for each unbroken range of `steps`.

    Raises UserError for a step after the last of `total_steps`.
    """

    def __init__(self, folder: Path, steps: Collection[int], total_steps: int):
        if steps and max(steps) > total_steps:
            raise UserError(f"log.profile_steps has {max(steps)}; the last step is {total_steps}")
        self._folder, self._steps = folder, frozenset(steps)
        self._range: range | None = None  # of the trace under way

    def __enter__(self) -> Trace:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop()  # where the run ends within a range, what was caught is kept

    @contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Trace one step if it is chosen; prints where the trace is after the last step of a range."""
        if number in self._steps and self._range is None:
            self._range = range(number, next(after for after in count(number) if after not in self._steps))
            jax.profiler.start_trace(self._folder / _name(self._range))
        with jax.profiler.StepTraceAnnotation("train", step_num=number):
            yield
        if number + 1 not in self._steps:
            self._stop()

    def _stop(self) -> None:
        if self._range is None:
            return
        jax.profiler.stop_trace()
        say(f"trace of {_name(self._range).replace('_', ' ')}: {self._folder / _name(self._range)}")
        say(f"  to see it: pip install xprof; xprof --logdir {self._folder}")
        say("  or take its .trace.json.gz to https://ui.perfetto.dev")
        self._range = None


def _name(steps: range) -> str:
    return f"step_{steps[0]}" if len(steps) == 1 else f"steps_{steps[0]}_to_{steps[-1]}"
