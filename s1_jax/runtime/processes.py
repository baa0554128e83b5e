"""Several processes as one run: who takes part, what all must see alike, and an end where one of them is lost.

A pod has a process a host. All run the same program and meet in every step; the first one writes what there is one of.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import re
import signal
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from s1_jax.config import HostsConfig
from s1_jax.errors import RunError, UserError
from s1_jax.runtime import cli
from s1_jax.runtime.clocks import AwakeTime
from s1_jax.runtime.platforms import has_tpu_device
from s1_jax.runtime.signals import Told, end_now
from s1_jax.runtime.terminal import say

FORM = "HOST:PORT,COUNT,INDEX, for instance 10.0.0.2:8476,4,0"
LAST_PORT = 2**16 - 1
LOST = 70  # exit code: another process is lost, or nothing has moved for too long
STDERR = 2  # its file descriptor
KEPT = "What was saved is kept, the same command goes on from there"
NOTICE = "http://{}/computeMetadata/v1/instance/preempted?wait_for_change=true&timeout_sec=60"
METADATA_HOST = "GCE_METADATA_HOST"  # Google's own variable for another place of the metadata server


def start_processes(config: HostsConfig) -> None:
    """Makes this process one of several, before JAX is used for anything else.

    Raises UserError where `config.processes` is of no form it may have, RunError where the others are not there.
    """
    who, patience = config.processes, config.lost_after_seconds
    if who == "none" or (who == "auto" and not _on_tpu()):
        return
    options: dict[str, Any] = {"initialization_timeout": config.start_seconds}
    # the second: one that ends by an error waits for the others, which wait for it
    options |= {"heartbeat_timeout_seconds": patience, "shutdown_timeout_seconds": patience}
    if who != "auto":
        address, count, index = _parse(who)
        options |= {"coordinator_address": address, "num_processes": count, "process_id": index}
    _own_end_of_aborts()
    cli.before_exit.append(lambda code: _leave(code, patience))
    if _platforms() == "cpu":
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        with Told(end_now):  # the call waits where Python cannot interrupt it, and nothing is begun yet
            jax.distributed.initialize(**options)
    except Exception as error:  # jaxlib's own, and its transport's
        raise RunError(f"hosts.processes {who}: the others were not found: {str(error).splitlines()[0]}") from None


def is_first() -> bool:
    """Whether this is the process that writes what there is one of."""
    return jax.process_index() == 0


def any_of(flag: bool) -> bool:
    """Whether any process says so: the same answer in all of them. Each must ask."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))


def alike(digest: str) -> bool:
    """Whether all processes have the same digest, in hexadecimal: the same answer in all of them. Each must ask."""
    if jax.process_count() == 1:
        return True
    all_of_them = multihost_utils.process_allgather(np.frombuffer(bytes.fromhex(digest), np.uint8))
    return bool((all_of_them == all_of_them[0]).all())


def meet(name: str) -> None:
    """Waits for all processes at a point of this name."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def finish_together() -> None:
    """Waits for all processes to have done what they began on their devices, so that none is left alone in it."""
    jax.block_until_ready(jax.live_arrays())
    meet("all is done that was begun")


def watch_for_preemption(tell: Callable[[], None]) -> None:
    """Calls `tell` once when Google's metadata server says that this VM is being preempted; nowhere but on a TPU VM."""
    host = os.environ.get(METADATA_HOST) or ("metadata.google.internal" if _on_tpu() else None)
    if host is None:
        return
    request = urllib.request.Request(NOTICE.format(host), headers={"Metadata-Flavor": "Google"})

    def wait() -> None:
        while True:
            try:
                with urllib.request.urlopen(request, timeout=90) as answer:
                    if answer.read().strip() == b"TRUE":
                        return tell()
            except OSError:
                time.sleep(5)

    threading.Thread(target=wait, daemon=True).start()


class Watchdog:
    """Within: ends the process where `tick` is not called for `seconds`, and says so on standard error.

    A lost host or an input pipeline that gives nothing leaves no trace but silence. The exit code is LOST; where
    each thread stood is printed too. `seconds` of 0: never. Time in which the process itself was stopped, by Ctrl-Z or
    a suspended machine, is nobody's silence and does not count.
    """

    def __init__(self, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._now = seconds, now
        self._doing, self._ticks = "starting", 0
        self._left = threading.Event()

    def __enter__(self) -> Watchdog:
        if self._seconds:
            threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._left.set()

    def tick(self, doing: str) -> None:
        """Something has moved; what comes now is called so in the message."""
        self._doing, self._ticks = doing, self._ticks + 1

    def _watch(self) -> None:
        pause = min(1.0, self._seconds / 4)
        clock, moved, ticks = AwakeTime(2 * pause, self._now), 0.0, self._ticks
        while not self._left.wait(pause):
            passed = clock.look()
            if self._ticks != ticks:
                ticks, moved = self._ticks, passed
            if (silent := passed - moved) > self._seconds:
                try:
                    say(
                        f"error: {self._doing}: nothing has moved for {silent:.0f} s (--hosts.stall-seconds); a host "
                        f"or the input may be lost. {KEPT}",
                        file=sys.stderr,
                        flush=True,
                    )
                    faulthandler.dump_traceback(all_threads=True)
                finally:  # where the disk of a log is full, too
                    os._exit(LOST)


_ending_with: int | None = None


def _leave(code: int, patience: float) -> None:
    """Once `run_main` knows its exit code: it stands, whatever becomes of the others that JAX waits for at the end."""
    global _ending_with
    _ending_with = code
    if code:
        timer = threading.Timer(patience, os._exit, [code])
        timer.daemon = True
        timer.start()


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _aborted(_: int) -> None:
    """What follows abort(), by which JAX ends a process whose others are gone: a line of ours, and an exit code."""
    try:
        if _ending_with is None:
            os.write(STDERR, f"error: another process is lost, or this one crashed: see above. {KEPT}\n".encode())
    finally:
        os._exit(LOST if _ending_with is None else _ending_with)


def _own_end_of_aborts() -> None:
    """Through the C library: what is given to Python's `signal` runs later, and after abort() there is no later."""
    library = ctypes.CDLL(None)
    library.signal.argtypes = (ctypes.c_int, type(_aborted))
    library.signal(signal.SIGABRT, _aborted)


def _parse(who: str) -> tuple[str, int, int]:
    """Address, count and index of HOST:PORT,COUNT,INDEX. Raises UserError."""
    found = re.fullmatch(r"(.*\S):([0-9]{1,9}),([0-9]{1,9}),([0-9]{1,9})", who)
    if found is None:
        raise UserError(f"hosts.processes {who!r} is neither auto nor none nor {FORM}")
    port, count, index = map(int, found.groups()[1:])
    if not 0 < port <= LAST_PORT:
        raise UserError(f"hosts.processes {who!r}: the port {port} is not between 1 and {LAST_PORT}")
    if index >= count:
        raise UserError(f"hosts.processes {who!r}: of {count} processes the last is {count - 1}")
    return f"{found[1]}:{port}", count, index


def _on_tpu() -> bool:
    # JAX itself chooses "tpu,cpu" when it is imported on a TPU VM
    return _platforms().split(",")[0] in ("", "tpu") and has_tpu_device()


def _platforms() -> str:
    """What JAX was told to run on; empty: what it finds."""
    return jax.config.jax_platforms or ""  # type: ignore[attr-defined]
