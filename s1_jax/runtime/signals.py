"""What Ctrl-C and SIGTERM do to a command, from its first line to its last.

While a command is still being imported, which takes seconds, it ends at once. In `main`, both signals raise exceptions,
so that open files are closed in order; inside a StopFlag, the first signal lets the current step finish. Once the exit
code is known, a signal ends the command at once with that code.

This module imports nothing slow, because the package imports it before everything else.
"""

from __future__ import annotations

import _thread
import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple, NoReturn

from s1_jax.runtime.terminal import say

END = b"\0"  # no signal's number
STDERR = 2  # its file descriptor
MAIN_THREAD = threading.main_thread().ident or 0
AGAIN_SECONDS = 0.5  # between two checks whether the exception was lost


class Terminated(BaseException):
    """Raised in `main` when SIGTERM asks the command to stop.

    It is no Exception, like KeyboardInterrupt, so a library that catches every Exception cannot swallow it.
    """


class Stop(NamedTuple):
    """How a signal is named, reported and raised."""

    name: str
    exit_code: int
    line: str  # the line on standard error when it ends the command
    raised: type[BaseException]


STOPS: dict[int, Stop] = {
    signal.SIGINT: Stop("Ctrl-C", 130, "interrupted", KeyboardInterrupt),
    signal.SIGTERM: Stop("SIGTERM", os.EX_TEMPFAIL, "received SIGTERM", Terminated),
}
RAISED = tuple(stop.raised for stop in STOPS.values())


def stop_of(error: BaseException) -> Stop | None:
    """Return the signal that raised an exception; None for any other exception."""
    return next((stop for stop in STOPS.values() if isinstance(error, stop.raised)), None)


def end_at_once(exit_code: int | None = None) -> None:
    """Make signals end the process at once from now on.

    The exit code is `exit_code`; without it, it is the signal's own, and the signal's line is printed.
    """

    def end(number: int, frame: object) -> None:
        if exit_code is not None:
            os._exit(exit_code)
        end_now(number)

    for number in STOPS:
        signal.signal(number, end)
    atexit.register(_ignore)  # while Python shuts down, the exit code stands


def end_now(number: int) -> NoReturn:
    """Print the signal's line and end the process with its exit code, without any cleanup."""
    with suppress(OSError):
        os.write(STDERR, f"{STOPS[number].line}\n".encode())
    os._exit(STOPS[number].exit_code)


def _ignore() -> None:
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)


class RaisedInMain:
    """Context in which Ctrl-C raises KeyboardInterrupt in the main thread, and SIGTERM raises Terminated.

    This holds even if a script's `&` or a supervisor started the process with these signals ignored. `stop` is the last
    signal received. If the exception is lost, in a callback that can only drop it or in code that catches everything,
    it is raised again. After `over`, a signal ends the process at once.
    """

    def __init__(self) -> None:
        self.stop: Stop | None = None
        self._again = False  # the next call of the handler is not a second signal
        self._over, self._turn = False, threading.Lock()

    def __enter__(self) -> RaisedInMain:
        for number in STOPS:
            signal.signal(number, self._hear)
        self._hook_before, sys.unraisablehook = sys.unraisablehook, self._drop
        return self

    def __exit__(self, *exc: object) -> None:
        self._end()
        sys.unraisablehook = self._hook_before

    def over(self, exit_code: int) -> None:
        """Note that the command ends with this code, even if a signal arrives now."""
        self._end()
        end_at_once(exit_code)

    def _end(self) -> None:
        with self._turn:
            self._over = True

    def _hear(self, number: int, frame: object) -> None:
        again, self._again = self._again, False
        if again and _unwinding():
            return
        if self.stop is None:  # not a threading.Thread: the main thread may hold one of its locks right now
            _thread.start_new_thread(self._see_to_it, (number,))
        self.stop = STOPS[number]
        raise self.stop.raised

    def _see_to_it(self, number: int) -> None:
        ours = True
        while ours:  # otherwise a StopFlag handles it
            time.sleep(AGAIN_SECONDS)
            with self._turn:
                if self._over:
                    return
                self._again = ours = signal.getsignal(number) == self._hear
                signal.pthread_kill(MAIN_THREAD, number)  # wakes it if it waits

    def _drop(self, unraisable: Any) -> None:
        if not isinstance(unraisable.exc_value, RAISED):
            self._hook_before(unraisable)


def _unwinding() -> bool:
    """Whether one of our exceptions is already unwinding the main thread."""
    error = sys.exception()
    while error is not None and not isinstance(error, RAISED):
        error = error.__context__
    return error is not None


class Told:
    """Context in which `tell` is called at once with the number of each Ctrl-C or SIGTERM, in a separate thread.

    Python runs signal handlers only between its own instructions, which a compiled call can delay for minutes.
    """

    def __init__(self, tell: Callable[[int], None]) -> None:
        self._tell = tell

    def __enter__(self) -> Told:
        # the interpreter writes the number of each signal here on arrival, long before it runs a handler
        self._heard, self._told = os.pipe()
        os.set_blocking(self._told, False)
        self._fd_before = signal.set_wakeup_fd(self._told, warn_on_full_buffer=False)
        self._teller = threading.Thread(target=self._listen, daemon=True)
        self._teller.start()
        return self

    def __exit__(self, *exc: object) -> None:
        signal.set_wakeup_fd(self._fd_before)
        os.write(self._told, END)  # closing it is not enough if a forked process has it open too
        self._teller.join()
        for end in (self._told, self._heard):
            os.close(end)

    def _listen(self) -> None:
        numbers = b""
        while END not in numbers:
            numbers = os.read(self._heard, 64)
            for number in numbers:
                if number in STOPS:
                    self._tell(number)


class StopFlag:
    """Context in which the first Ctrl-C or SIGTERM only sets `asked`, so that a step can finish; a second one raises.

    A line on standard error acknowledges the signal at once, even during a compiled call, and names what the command
    still waits for: `waits_for`, which may change at any time. A signal that nobody has checked is raised at the end.
    """

    def __init__(self, waits_for: str = "the work in progress") -> None:
        self.asked = False
        self.waits_for = waits_for
        self._raised: type[BaseException] = Terminated
        self._said, self._told = False, Told(self._say)

    def __enter__(self) -> StopFlag:
        self._before = {number: signal.signal(number, self._ask) for number in STOPS}
        self._told.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._told.__exit__(kind, *exc)
        if kind is None:
            self.check()

    def check(self) -> None:
        """Raise KeyboardInterrupt or Terminated if a signal has been received.

        Python's own KeyboardInterrupt can get lost inside a compiled call.
        """
        if self.asked:
            raise self._raised

    def ask(self) -> None:
        """Ask for a stop, as SIGTERM does."""
        self.asked = True

    def _say(self, number: int) -> None:
        if not self._said:
            self._said = True
            with suppress(OSError):  # a log on a full disk
                say(f"received {STOPS[number].name}; waiting for {self.waits_for}", file=sys.stderr, flush=True)

    def _ask(self, number: int, frame: object) -> None:
        if self.asked:
            raise STOPS[number].raised
        self.asked, self._raised = True, STOPS[number].raised
