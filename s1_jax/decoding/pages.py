"""A pool of pages of the cache, and the host's count of who holds which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from s1_jax.config import RunError
from s1_jax.decoding.paged import NO_PAGE
from s1_jax.decoding.programs import Programs


class Pool:
    """`size` pages of `page` slots each; one that nobody holds is free. Where too few are free, there will be more."""

    def __init__(self, programs: Programs, size: int, page: int) -> None:
        self._programs, self.page = programs, page
        self.arrays: Any = programs.empty_pool(size, page)  # the pages on the device, KVCache
        self._holders = np.zeros(size, np.int64)
        self._free = list(range(size))

    @property
    def size(self) -> int:
        """Pages there are."""
        return len(self._holders)

    @property
    def held(self) -> int:
        """Pages that somebody holds, each counted once."""
        return self.size - len(self._free)

    def pages_of(self, tokens: int) -> int:
        """Pages that so many tokens of a row take."""
        return -(-tokens // self.page)

    def take(self, count: int) -> list[int]:
        """So many free pages, each held once now. Raises RunError where the device has no room for them."""
        if count > len(self._free):
            self._grow(self.held + count)
        taken = [self._free.pop() for _ in range(count)]
        self._holders[taken] = 1
        return taken

    def share(self, pages: Sequence[int]) -> list[int]:
        """The same pages, each held by one more."""
        self._holders[list(pages)] += 1
        return list(pages)

    def let_go(self, pages: Sequence[int]) -> None:
        """Each of these different pages is held by one less, and free where that was the last."""
        pages = list(pages)
        assert (self._holders[pages] > 0).all(), "a page is let go that nobody holds"
        self._holders[pages] -= 1
        self._free += [page for page in pages if not self._holders[page]]

    def store(self, cache: Any, stored: Sequence[tuple[int, int, int]], most: int) -> None:
        """Puts pieces of a cache into pages: of a row, at a place counted in pages, into a page; `most` by one call."""
        for first in range(0, len(stored), most):
            some = np.full((most, 3), (0, 0, NO_PAGE), np.int32)
            some[: len(stored) - first] = stored[first : first + most]
            self.arrays = self._programs.put_rows(self.arrays, cache, *some.T)

    def _grow(self, needed: int) -> None:
        """Makes the pool a power of two times as large: what reads it is compiled for its size."""
        size = self.size
        while size < needed:
            size *= 2
        try:
            self.arrays = self._programs.more_pages(self.arrays, size)
        except jax.errors.JaxRuntimeError as error:
            raise RunError(
                f"no room on the device for a cache of {size * self.page} tokens, which the nodes that can still grow "
                f"need: prune more of them, or search fewer problems at a time ({error})"
            ) from error
        self._free += range(self.size, size)
        self._holders = np.pad(self._holders, (0, size - self.size))
