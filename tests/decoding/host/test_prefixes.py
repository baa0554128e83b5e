"""Kept prefixes: a page is found by all tokens up to its end, and the one that was used longest ago goes first."""

from __future__ import annotations

import numpy as np
import pytest

from s1_jax.decoding.device.paged import NOWHERE
from s1_jax.decoding.host.prefixes import Prefixes


class Programs:
    """Stand-ins of the device's programs: a pool is an array with the tokens of each page."""

    def empty_pool(self, pages, page_size):
        self.page_size = page_size
        return np.full((pages, page_size), -1)

    def put_rows(self, pool, cache, rows, indices, targets):
        pool = pool.copy()
        for row, index, target in zip(rows, indices, targets, strict=True):
            if target != NOWHERE:
                pool[target] = cache[row, index * self.page_size : (index + 1) * self.page_size]
        return pool

    def block_of_pages(self, T, pool, table):
        return pool[table[0]].ravel()[:T]


@pytest.fixture
def prefixes():
    """Room for four pages."""
    return Prefixes(Programs(), 4 * 32 + 5)


def text(seed, count=160):
    return np.random.default_rng(seed).integers(0, 50, count).tolist()


def keep(prefixes, tokens):
    prefixes.keep(np.asarray([tokens]), 0, tokens)


def found(prefixes, tokens):
    """The tokens of the pages that are found, which must be those that `tokens` begin with."""
    entries = prefixes.find(tokens)
    count = len(entries) * prefixes.page_size
    assert prefixes.block(entries, 512)[:count].tolist() == tokens[:count]
    return count


def test_full_pages_of_a_beginning_are_found(prefixes):
    tokens = text(0, 100)
    assert found(prefixes, tokens) == 0
    keep(prefixes, tokens)
    assert found(prefixes, tokens) == 96
    assert found(prefixes, tokens[:70]) == 64
    assert found(prefixes, [*tokens[:40], *text(1, 60)]) == 32
    assert found(prefixes, text(1, 100)) == 0
    assert found(prefixes, [*text(1, 32), *tokens[32:]]) == 0, "the same page after another beginning is another page"


def test_one_token_is_always_left_to_read(prefixes):
    tokens = text(0, 64)
    keep(prefixes, tokens)
    assert found(prefixes, tokens) == 32


def test_texts_share_their_common_pages(prefixes):
    common = text(0, 64)
    keep(prefixes, [*common, *text(1, 32)])
    keep(prefixes, [*common, *text(2, 32)])
    assert found(prefixes, [*common, *text(1, 32), 0]) == 96
    assert found(prefixes, [*common, *text(2, 32), 0]) == 96


def test_the_page_used_longest_ago_goes_first_and_never_before_those_after_it(prefixes):
    one, other, third = text(1, 65), text(2, 65), text(3, 33)
    keep(prefixes, one)
    keep(prefixes, other)
    assert found(prefixes, one) == 64
    keep(prefixes, third)
    assert found(prefixes, other) == 32, "its last page has gone"
    assert found(prefixes, one) == 64
    assert found(prefixes, third) == 32


def test_a_text_longer_than_the_pool_keeps_its_beginning(prefixes):
    tokens = text(0, 400)
    keep(prefixes, tokens)
    assert found(prefixes, tokens) == 128
    keep(prefixes, tokens)
    assert found(prefixes, tokens) == 128


@pytest.mark.parametrize("seed", range(3))
def test_random_texts_find_what_was_kept(prefixes, seed):
    """Against plain Python: whatever is found begins the text, and what was kept last is there."""
    rng = np.random.default_rng(seed)
    beginnings = [text(i, int(rng.integers(0, 90))) for i in range(4)]
    for i in range(200):
        tokens = [*beginnings[rng.integers(4)], *text(100 + int(rng.integers(6)), int(rng.integers(1, 90)))]
        if rng.random() < 0.5:
            found(prefixes, tokens)
        else:
            keep(prefixes, tokens)
            assert found(prefixes, [*tokens, 0]) == min(len(tokens) // 32, 4) * 32, i
