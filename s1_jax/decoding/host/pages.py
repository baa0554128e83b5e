"""What the nodes of a tree keep on the devices, and the host's count of who holds what of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from s1_jax.decoding.device.paged import NOWHERE
from s1_jax.decoding.device.programs import Programs
from s1_jax.errors import RunError


class Places:
    """`size` numbered places; one that nobody holds is free. Where too few are free, `more(size)` makes more."""

    def __init__(self, size: int, more: Callable[[int], None]) -> None:
        self._more = more
        self._holders = [0] * size
        self._free = list(range(size))

    @property
    def size(self) -> int:
        """Places there are."""
        return len(self._holders)

    @property
    def held(self) -> int:
        """Places that somebody holds, each counted once."""
        return self.size - len(self._free)

    def take(self, count: int) -> list[int]:
        """So many free places, each held once now. Raises what `more` does."""
        if count > len(self._free):
            self._grow(self.held + count)
        taken = [self._free.pop() for _ in range(count)]
        for place in taken:
            self._holders[place] = 1
        return taken

    def share(self, places: Sequence[int]) -> list[int]:
        """The same places, each held by one more."""
        for place in places:
            self._holders[place] += 1
        return list(places)

    def let_go(self, places: Sequence[int]) -> None:
        """Each of these places is held by one less, and free where that was the last."""
        for place in places:
            assert self._holders[place] > 0, "a place is let go that nobody holds"
            self._holders[place] -= 1
            if not self._holders[place]:
                self._free.append(place)

    def _grow(self, needed: int) -> None:
        """To a power of two times as many: what reads them is compiled for their number."""
        size = self.size
        while size < needed:
            size *= 2
        self._more(size)
        self._free += range(self.size, size)
        self._holders += [0] * (size - self.size)


class Pool:
    """Pages of `page` slots of the cache, and the logits that follow rows; there will be more where there are too few.

    Both raise RunError where the device has no room for more.
    """

    def __init__(self, programs: Programs, pages: int, page: int, ends: int) -> None:
        self._programs, self.page = programs, page
        self.cache: Any = programs.empty_pool(pages, page)  # KVCache
        self.logits: Any = programs.empty_logits(ends)  # float32 [E, V]
        self.pages = Places(pages, self._more_pages)
        self.ends = Places(ends, self._more_ends)

    def pages_of(self, tokens: int) -> int:
        """Pages that so many tokens of a row take."""
        return -(-tokens // self.page)

    def put_pages(self, cache: Any, pieces: Sequence[tuple[int, int, int]], most: int) -> None:
        """Keeps pieces of a cache: of a row, at a place counted in pages, in a page; `most` by one call."""
        for some in _in_parts(pieces, (0, 0, NOWHERE), most):
            self.cache = self._programs.put_rows(self.cache, cache, *some)

    def put_logits(self, logits: Any, rows: Sequence[tuple[int, int]], most: int) -> None:
        """Keeps logits [B, V]: of a row, as an end; `most` by one call."""
        for some in _in_parts(rows, (0, NOWHERE), most):
            self.logits = self._programs.put_logits(self.logits, logits, *some)

    def _more_pages(self, pages: int) -> None:
        self.cache = self._made(f"a cache of {pages * self.page} tokens", self._programs.more_pages, self.cache, pages)

    def _more_ends(self, ends: int) -> None:
        self.logits = self._made(f"the ends of {ends} nodes", self._programs.more_logits, self.logits, ends)

    @staticmethod
    def _made(what: str, make: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return make(*arguments)
        except jax.errors.JaxRuntimeError as error:
            raise RunError(
                f"no room on the device for {what}, which the nodes that can still grow need: prune more of them, or "
                f"search fewer problems at a time ({error})"
            ) from error


def _in_parts(rows: Sequence[tuple[int, ...]], filler: tuple[int, ...], most: int) -> list[np.ndarray]:
    """The columns int32 [n, most] of these rows, so many at a time, the last filled up."""
    rows = [*rows, *[filler] * (-len(rows) % most)] if rows else []
    return [np.asarray(rows[first : first + most], np.int32).T for first in range(0, len(rows), most)]
