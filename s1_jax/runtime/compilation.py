"""Compiled programs: kept on disk for the next process, and watched while they are made."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SHORTEST_KEPT = 0.3  # seconds of compilation: reading a program back takes a few hundredths
PAUSE = 1.0  # seconds between two phases, or programs, that are told as one compilation
CACHE_BYTES = 10 * 2**30  # then what was not used for longest goes
PHASES = (  # JAX tells of the beginning of each as a scalar, and of its end as a duration
    "/jax/core/compile/jaxpr_trace_duration",
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
    COMPILED := "/jax/core/compile/backend_compile_duration",
)


def keep_compiled_programs() -> None:
    """Has JAX keep what it compiles in the user's cache folder, `~/.cache/s1_jax/compiled`, for later processes.

    What the user has set, in JAX's environment variables or in `jax.config`, stays as it is: a folder of their own, or
    no cache. Nothing is kept, and nothing fails, where the folder cannot be written.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    import jax  # slow to import: not before an option of JAX's is to be set

    options: Any = jax.config
    chosen = options.jax_compilation_cache_dir is not None or not options.jax_enable_compilation_cache
    if chosen or (folder := _cache_folder()) is None:
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    wanted = {
        "jax_persistent_cache_min_compile_time_secs": (1.0, SHORTEST_KEPT),  # JAX's own value, and ours
        "jax_compilation_cache_max_size": (-1, CACHE_BYTES),
    }
    for name, (default, value) in wanted.items():
        if getattr(options, name) == default and name.upper() not in os.environ:
            jax.config.update(name, value)


def _cache_folder() -> Path | None:
    """The folder, made where it is not there; None where it cannot be written."""
    try:
        caches = os.environ.get("XDG_CACHE_HOME")
        folder = (Path(caches) if caches else Path.home() / ".cache") / "s1_jax" / "compiled"
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):  # permissions alone do not tell: the file system may be read-only
            return folder
    except (OSError, RuntimeError):  # RuntimeError: nobody knows where home is
        return None


def power_of_two(size: int) -> int:
    """The smallest power of two that is not below `size`: padded to it, arrays of all sizes need few programs."""
    return 1 << (size - 1).bit_length()


class CompilationWatch:
    """Within: whether a program is being compiled, since when, and how many have been, read from the cache or made.

    `spent` is the seconds that has taken. `begins` is called whenever a compilation begins.
    """

    def __init__(self, begins: Callable[[], None] = lambda: None) -> None:
        self.programs, self.spent = 0, 0.0
        self._begins = begins
        self._phases = 0  # under way, one in another
        self._since = self._until = self._began_at = 0.0  # _since: of all that are told as one

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
        """How long a program has been compiling; None: none is."""
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
            self.programs += event == COMPILED
