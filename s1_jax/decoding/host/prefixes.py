"""The beginnings of past prompts and replies, kept in pages of the cache so that they need not be read again.

A page is found by its own tokens and all tokens before it. Where the pool is full, the page that was used longest ago
goes. A page counts as used whenever one that follows it is, and later than that one, so no page goes before those
that follow it.

Letters: T tokens of a prompt (bucketed).
"""

from __future__ import annotations

import collections
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from s1_jax.decoding.device.paged import NOWHERE
from s1_jax.decoding.device.prefill import PromptBlock
from s1_jax.decoding.device.programs import Programs
from s1_jax.model.kv_cache import KVCache

PAGE_SIZE = {"tpu": 128}  # tokens, elsewhere 32
PIECES = 16  # pages that one call copies into the pool

_Key = tuple[int, tuple[int, ...]]  # the serial number of the page before, and the tokens of this one


class _Page(NamedTuple):
    serial: int  # never given twice, unlike the entry
    entry: int  # of the pool


class Prefixes:
    """A pool of at most `tokens` tokens' keys and values."""

    def __init__(self, programs: Programs, tokens: int) -> None:
        self._programs = programs
        self.page_size = PAGE_SIZE.get(jax.default_backend(), 32)
        self._free = list(range(tokens // self.page_size))
        self._pages: collections.OrderedDict[_Key, _Page] = collections.OrderedDict()  # used longest ago first
        self._serials = itertools.count(1)
        self._pool: Any = programs.empty_pool(max(len(self._free), 1), self.page_size)

    def find(self, tokens: Sequence[int]) -> list[int]:
        """Find the entries of the pages that hold the beginning of `tokens`; at least one token is left to read."""
        keys = self._walk(tokens[:-1])
        found = [self._pages[key].entry for key in keys]
        self._use(keys)
        return found

    def block(self, entries: Sequence[int], T: int) -> PromptBlock:
        """Make a block of one prompt of T tokens, which begins with these pages."""
        table = np.zeros((1, -(-T // self.page_size)), np.int32)
        table[0, : len(entries)] = entries
        return self._programs.block_of_pages(T, self._pool, table)

    def keep(self, cache: KVCache, row: int, tokens: Sequence[int]) -> None:
        """Keep the full pages of a row of a cache, which holds the keys and values of these `tokens`."""
        keys = self._walk(tokens)
        self._use(keys)
        new: list[tuple[int, int]] = []  # index within the row, entry of the pool
        parent = self._pages[keys[-1]].serial if keys else 0
        for index in range(len(keys), len(tokens) // self.page_size):
            if not self._free and not self._drop_oldest(keys):
                break
            page = _Page(next(self._serials), self._free.pop())
            key = parent, tuple(tokens[index * self.page_size : (index + 1) * self.page_size])
            self._pages[key], parent = page, page.serial
            keys.append(key)
            new.append((index, page.entry))
        self._use(keys)
        for first in range(0, len(new), PIECES):
            self.put(cache, row, [*new[first : first + PIECES], *[(0, NOWHERE)] * PIECES][:PIECES])

    def put(self, cache: KVCache, row: int, pieces: Sequence[tuple[int, int]]) -> None:
        """Copy PIECES pages of a row of a cache, each given by its index within the row and its entry of the pool."""
        indices, targets = np.asarray(pieces, np.int32).T
        self._pool = self._programs.put_rows(self._pool, cache, np.full(PIECES, row, np.int32), indices, targets)

    def _walk(self, tokens: Sequence[int]) -> list[_Key]:
        """List the keys of the kept pages that hold the beginning of `tokens`, in their order."""
        keys: list[_Key] = []
        parent, size = 0, self.page_size
        for first in range(0, len(tokens) - size + 1, size):
            key = parent, tuple(tokens[first : first + size])
            if key not in self._pages:
                break
            keys.append(key)
            parent = self._pages[key].serial
        return keys

    def _use(self, keys: Sequence[_Key]) -> None:
        for key in reversed(keys):
            self._pages.move_to_end(key)

    def _drop_oldest(self, kept: Sequence[_Key]) -> bool:
        """Free the page that was used longest ago, unless it is one of those `kept`, which then is all there is."""
        key = next(iter(self._pages), None)
        if key is None or key in kept:
            return False
        self._free.append(self._pages.pop(key).entry)
        return True
