"""Several processes as one run: how they find each other, agree on a value, wait for each other, and end together.

A pod runs one process on each host. All run the same program and meet in every step. The first process writes the files
of which there is only one.
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
LOST = 70  # exit code: another process is lost, or there was no progress for too long
STDERR = 2  # its file descriptor
KEPT = "Saved work is kept. Run the same command on all hosts to resume."
NOTICE = "http://{}/computeMetadata/v1/instance/preempted?wait_for_change=true&timeout_sec=60"
METADATA_HOST = "GCE_METADATA_HOST"  # Google's own variable for another address of the metadata server


def start_processes(config: HostsConfig) -> None:
    """Join this process with the others of the run; call it before JAX is used for anything else.

    Raises UserError if `config.processes` has none of its forms, RunError if the other processes are not found.
    """
    who, patience = config.processes, config.lost_after_seconds
    if who == "none" or (who == "auto" and not _on_tpu()):
        return
    options: dict[str, Any] = {"initialization_timeout": config.start_seconds}
    # the second: a process that ends with an error waits for the others, which wait for it
    options |= {"heartbeat_timeout_seconds": patience, "shutdown_timeout_seconds": patience}
    if who != "auto":
        address, count, index = _parse(who)
        options |= {"coordinator_address": address, "num_processes": count, "process_id": index}
    _own_end_of_aborts()
    cli.before_exit.append(lambda code: _leave(code, patience))
    if _platforms() == "cpu":
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        with Told(end_now):  # the call cannot be interrupted from Python, and no work has begun
            jax.distributed.initialize(**options)
    except Exception as error:  # errors of jaxlib and of its transport
        raise RunError(
            f"hosts.processes {who}: the other processes were not found: {str(error).splitlines()[0]}"
        ) from None


def is_first() -> bool:
    """Whether this process is the first, which writes the files of which there is one."""
    return jax.process_index() == 0


def any_of(flag: bool) -> bool:
    """Whether `flag` is set in any process. All processes must call it, and all get the same answer."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))


def alike(digest: str) -> bool:
    """Whether all processes pass the same hexadecimal digest. All must call it, and all get the same answer."""
    if jax.process_count() == 1:
        return True
    all_of_them = multihost_utils.process_allgather(np.frombuffer(bytes.fromhex(digest), np.uint8))
    return bool((all_of_them == all_of_them[0]).all())


def meet(name: str) -> None:
    """Wait until all processes have reached the point of this name."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def finish_together() -> None:
    """Wait until all processes have finished the work on their devices, so that no collective waits for ever."""
    jax.block_until_ready(jax.live_arrays())
    meet("work on devices is finished")


def watch_for_preemption(tell: Callable[[], None]) -> None:
    """Call `tell` once Google's metadata server reports that this TPU VM is being preempted; does nothing elsewhere."""
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
    """Context that ends the process with exit code LOST if `tick` is not called for `seconds`; 0 turns it off.

    A lost host or a stalled input pipeline shows itself only by silence. A line on standard error says so, followed by
    the stack of each thread. Time in which the process itself was stopped, by Ctrl-Z or a suspended machine, does not
    count.
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
        """Note progress, and what the process does next, for the message."""
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
                        f"error: {self._doing}: no progress for {silent:.0f} s (--hosts.stall-seconds); a host "
                        f"or the input may be lost. {KEPT}",
                        file=sys.stderr,
                        flush=True,
                    )
                    faulthandler.dump_traceback(all_threads=True)
                finally:  # even if the disk of the log is full
                    os._exit(LOST)


_ending_with: int | None = None


def _leave(code: int, patience: float) -> None:
    """Make the exit code of `run_main` final, whatever happens to the other processes that JAX waits for at the end."""
    global _ending_with
    _ending_with = code
    if code:
        timer = threading.Timer(patience, os._exit, [code])
        timer.daemon = True
        timer.start()


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _aborted(_: int) -> None:
    """Print a line and exit with LOST after abort(), by which JAX ends a process that has lost the others."""
    try:
        if _ending_with is None:
            os.write(STDERR, f"error: another process is lost, or this one crashed: see above. {KEPT}\n".encode())
    finally:
        os._exit(LOST if _ending_with is None else _ending_with)


def _own_end_of_aborts() -> None:
    """Handle SIGABRT through the C library, because Python runs its own handlers too late for abort()."""
    library = ctypes.CDLL(None)
    library.signal.argtypes = (ctypes.c_int, type(_aborted))
    library.signal(signal.SIGABRT, _aborted)


def _parse(who: str) -> tuple[str, int, int]:
    """Parse HOST:PORT,COUNT,INDEX into address, count and index. Raises UserError."""
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
    """Return the platforms that JAX was told to use; empty if it chooses by itself."""
    return jax.config.jax_platforms or ""  # type: ignore[attr-defined]
