"""What Ctrl-C and SIGTERM do to a command, from its first line to its last.

While a command is imported, which takes seconds, nothing is at stake: it ends at once. In its `main` both are
exceptions, so that what is open is closed in order; within a StopFlag the first one lets the step under way end. Once
the exit code is known, the command ends with it at once.

Imports nothing slow: the package itself imports it, before all that is slow.
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
AGAIN_SECONDS = 0.5  # after which it is looked whether an exception was lost


class Terminated(BaseException):
    """A command was told to end by its supervisor or its machine. As with KeyboardInterrupt, no library that catches
    every Exception holds it up.
    """


class Stop(NamedTuple):
    """What is special about a signal."""

    name: str
    exit_code: int
    line: str  # on standard error, where it ends the command
    raised: type[BaseException]


STOPS: dict[int, Stop] = {
    signal.SIGINT: Stop("Ctrl-C", 130, "interrupted", KeyboardInterrupt),
    signal.SIGTERM: Stop("SIGTERM", os.EX_TEMPFAIL, "told to end", Terminated),
}
RAISED = tuple(stop.raised for stop in STOPS.values())


def stop_of(error: BaseException) -> Stop | None:
    """The signal behind an exception; None where it is of another kind."""
    return next((stop for stop in STOPS.values() if isinstance(error, stop.raised)), None)


def end_at_once(exit_code: int | None = None) -> None:
    """From now on a signal ends the process: with this exit code, or else with its own and its line."""

    def end(number: int, frame: object) -> None:
        if exit_code is not None:
            os._exit(exit_code)
        end_now(number)

    for number in STOPS:
        signal.signal(number, end)
    atexit.register(_ignore)  # the last moments of Python: the exit code stands


def end_now(number: int) -> NoReturn:
    """Ends the process as this signal does where nothing is at stake."""
    with suppress(OSError):
        os.write(STDERR, f"{STOPS[number].line}\n".encode())
    os._exit(STOPS[number].exit_code)


def _ignore() -> None:
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)


class RaisedInMain:
    """Within: Ctrl-C raises KeyboardInterrupt in the main thread and SIGTERM Terminated, also where a script's `&`, or
    a supervisor, started the process with one of them ignored. `stop` is the last one that came.

    One that is lost, in a callback that can only drop it or in code that catches everything, is raised again. After
    `over` a signal ends the process at once.
    """

    def __init__(self) -> None:
        self.stop: Stop | None = None
        self._again = False  # what comes next is no second signal
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
        """The command is over and will end with this code, also where a signal comes now."""
        self._end()
        end_at_once(exit_code)

    def _end(self) -> None:
        with self._turn:
            self._over = True

    def _hear(self, number: int, frame: object) -> None:
        again, self._again = self._again, False
        if again and _unwinding():
            return
        if self.stop is None:  # not a threading.Thread, whose locks the main thread may hold just now
            _thread.start_new_thread(self._see_to_it, (number,))
        self.stop = STOPS[number]
        raise self.stop.raised

    def _see_to_it(self, number: int) -> None:
        ours = True
        while ours:  # then a StopFlag has it
            time.sleep(AGAIN_SECONDS)
            with self._turn:
                if self._over:
                    return
                self._again = ours = signal.getsignal(number) == self._hear
                signal.pthread_kill(MAIN_THREAD, number)  # which wakes it where it waits

    def _drop(self, unraisable: Any) -> None:
        if not isinstance(unraisable.exc_value, RAISED):
            self._hook_before(unraisable)


def _unwinding() -> bool:
    """Whether the main thread is closing what is open, on its way out by one of our exceptions."""
    error = sys.exception()
    while error is not None and not isinstance(error, RAISED):
        error = error.__context__
    return error is not None


class Told:
    """Within: calls `tell` with the number of each of our signals, at once and in a thread of its own, also where a
    compiled call keeps Python from handling it for minutes.
    """

    def __init__(self, tell: Callable[[int], None]) -> None:
        self._tell = tell

    def __enter__(self) -> Told:
        # the interpreter writes a signal's number here when it comes; its handlers run when Python code does again
        self._heard, self._told = os.pipe()
        os.set_blocking(self._told, False)
        self._fd_before = signal.set_wakeup_fd(self._told, warn_on_full_buffer=False)
        self._teller = threading.Thread(target=self._listen, daemon=True)
        self._teller.start()
        return self

    def __exit__(self, *exc: object) -> None:
        signal.set_wakeup_fd(self._fd_before)
        os.write(self._told, END)  # closing it is not enough where a forked process has it too
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
    """Within: the first Ctrl-C or SIGTERM only sets `asked`, so a step ends in order; a second interrupts.

    That it was heard is printed to standard error at once, also within a compiled call, with what is waited for:
    `waits_for`, which may be set anew at any time. What nobody has checked by the end is raised there.
    """

    def __init__(self, waits_for: str = "what is under way") -> None:
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
        """Raises once asked, KeyboardInterrupt or Terminated: Python's own can get lost inside a compiled call."""
        if self.asked:
            raise self._raised

    def ask(self) -> None:
        """Ask for a stop, as SIGTERM does."""
        self.asked = True

    def _say(self, number: int) -> None:
        if not self._said:
            self._said = True
            with suppress(OSError):  # a log on a full disk
                say(f"{STOPS[number].name} received; waiting for {self.waits_for}", file=sys.stderr, flush=True)

    def _ask(self, number: int, frame: object) -> None:
        if self.asked:
            raise STOPS[number].raised
        self.asked, self._raised = True, STOPS[number].raised
