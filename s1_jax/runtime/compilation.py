"""Compiled programs: cached on disk for later processes, and observed while they compile."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SHORTEST_KEPT = 0.3  # seconds; programs that compile faster are not cached: reading one takes a few hundredths
PAUSE = 1.0  # seconds; compilations closer together than this are reported as one
CACHE_BYTES = 10 * 2**30  # above this, the programs that were not used for longest are deleted
PHASES = (  # JAX reports the beginning of each as a scalar event, and its end as a duration event
    "/jax/core/compile/jaxpr_trace_duration",
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
    COMPILED := "/jax/core/compile/backend_compile_duration",
)


def keep_compiled_programs() -> None:
    """Make JAX cache compiled programs in `~/.cache/s1_jax/compiled`, for later processes.

    Settings of the user, in JAX's environment variables or in `jax.config`, have precedence: another folder, or no
    cache. If the folder cannot be written, nothing is cached and nothing fails.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    import jax  # slow to import: only once an option of JAX has to be set

    options: Any = jax.config
    chosen = options.jax_compilation_cache_dir is not None or not options.jax_enable_compilation_cache
    if chosen or (folder := _cache_folder()) is None:
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    wanted = {
        "jax_persistent_cache_min_compile_time_secs": (1.0, SHORTEST_KEPT),  # (JAX's default, ours)
        "jax_compilation_cache_max_size": (-1, CACHE_BYTES),
    }
    for name, (default, value) in wanted.items():
        if getattr(options, name) == default and name.upper() not in os.environ:
            jax.config.update(name, value)


def _cache_folder() -> Path | None:
    """Return the cache folder, created if needed; None if it cannot be written."""
    try:
        caches = os.environ.get("XDG_CACHE_HOME")
        folder = (Path(caches) if caches else Path.home() / ".cache") / "s1_jax" / "compiled"
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):  # a file system may be read-only whatever the permissions say
            return folder
    except (OSError, RuntimeError):  # RuntimeError: the home folder is unknown
        return None


def power_of_two(size: int) -> int:
    """Return the smallest power of two that is at least `size`; arrays padded to it need few programs."""
    return 1 << (size - 1).bit_length()


class CompilationWatch:
    """Context that observes whether a program is being compiled, for how long, and how many have been.

    `num_compiled` counts programs that were compiled or read from the cache, `spent` the seconds this took. `begins` is
    called whenever a compilation begins.
    """

    def __init__(self, begins: Callable[[], None] = lambda: None) -> None:
        self.num_compiled, self.spent = 0, 0.0
        self._begins = begins
        self._phases = 0  # phases that have begun and not ended; they are nested
        self._since = self._until = self._began_at = (
            0.0  # _since: beginning of the compilations that are reported as one
        )

    def __enter__(self) -> CompilationWatch:
        import jax

        jax.monitoring.register_scalar_listener(self._began)
        jax.monitoring.register_event_duration_secs_listener(self._ended)
        return self

    def __exit__(self, *exc: object) -> None:
        import jax

        jax.monitoring.unregister_scalar_listener(self._began)
        jax.monitoring.unregister_event_duration_listener(self._ended)

    @property
    def seconds(self) -> float | None:
        """Seconds for which a program has been compiling; None while none is."""
        return time.monotonic() - self._since if self._phases else None

    def _began(self, event: str, value: float | int, **_: str | int) -> None:
        if event in PHASES:
            self._phases += 1
            if self._phases == 1:
                now = time.monotonic()
                self._since = now if now - self._until > PAUSE else self._since
                self._began_at = now
                self._begins()

    def _ended(self, event: str, duration_secs: float, **_: str | int) -> None:
        if event in PHASES:
            self._phases -= 1
            self._until = time.monotonic()
            self.spent += 0.0 if self._phases else self._until - self._began_at
            self.num_compiled += event == COMPILED
