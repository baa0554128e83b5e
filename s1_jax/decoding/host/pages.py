"""The memory of a tree on the devices, and the host's counts of who holds which part of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from s1_jax.decoding.device.paged import NOWHERE
from s1_jax.decoding.device.programs import Programs
from s1_jax.errors import RunError


class Allocator:
    """A number of entries, each of which is free or has a count of its holders.

    Where too few entries are free, `enlarge(size)` makes more of them.
    """

    def __init__(self, size: int, enlarge: Callable[[int], None]) -> None:
        self._enlarge = enlarge
        self._holders = [0] * size
        self._free = list(range(size))

    @property
    def size(self) -> int:
        """The number of entries, free ones included."""
        return len(self._holders)

    @property
    def held(self) -> int:
        """The number of entries that somebody holds, each counted once."""
        return self.size - len(self._free)

    def allocate(self, count: int) -> list[int]:
        """Take this many free entries, each of which has one holder now. Raises what `enlarge` does."""
        if count > len(self._free):
            self._grow(self.held + count)
        taken = [self._free.pop() for _ in range(count)]
        for entry in taken:
            self._holders[entry] = 1
        return taken

    def share(self, entries: Sequence[int]) -> list[int]:
        """Give each of these entries one more holder."""
        for entry in entries:
            self._holders[entry] += 1
        return list(entries)

    def release(self, entries: Sequence[int]) -> None:
        """Take one holder from each of these entries, which is free where that was the last."""
        for entry in entries:
            assert self._holders[entry] > 0, "an entry is released that nobody holds"
            self._holders[entry] -= 1
            if not self._holders[entry]:
                self._free.append(entry)

    def _grow(self, needed: int) -> None:
        """Multiply the size by a power of two: programs that read the entries are compiled for their number."""
        size = self.size
        while size < needed:
            size *= 2
        self._enlarge(size)
        self._free += range(self.size, size)
        self._holders += [0] * (size - self.size)


class Pool:
    """Pages of the cache, of `page_size` tokens each, and the logits that follow the ends of rows.

    Both are enlarged where they are too few. That raises RunError where the device has no room for more.
    """

    def __init__(self, programs: Programs, pages: int, page_size: int, ends: int) -> None:
        self._programs, self.page_size = programs, page_size
        self.cache: Any = programs.empty_pool(pages, page_size)  # KVCache
        self.logits: Any = programs.empty_logits(ends)  # float32 [E, V]
        self.pages = Allocator(pages, self._more_pages)
        self.ends = Allocator(ends, self._more_ends)

    def pages_of(self, tokens: int) -> int:
        """Count the pages that this many tokens of a row take."""
        return -(-tokens // self.page_size)

    def put_pages(self, cache: Any, pieces: Sequence[tuple[int, int, int]], most: int) -> None:
        """Copy pieces (row, index of the page within the row, page of the pool) of a cache; `most` in one call."""
        for some in _in_parts(pieces, (0, 0, NOWHERE), most):
            self.cache = self._programs.put_rows(self.cache, cache, *some)

    def put_logits(self, logits: Any, rows: Sequence[tuple[int, int]], most: int) -> None:
        """Copy logits [B, V] of pairs (row, end of the pool); `most` in one call."""
        for some in _in_parts(rows, (0, NOWHERE), most):
            self.logits = self._programs.put_logits(self.logits, logits, *some)

    def _more_pages(self, pages: int) -> None:
        self.cache = self._made(
            f"a cache of {pages * self.page_size} tokens", self._programs.more_pages, self.cache, pages
        )

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
    """Split rows into arrays int32 [columns, most], the last of which is filled up."""
    rows = [*rows, *[filler] * (-len(rows) % most)] if rows else []
    return [np.asarray(rows[first : first + most], np.int32).T for first in range(0, len(rows), most)]
