"""The sizes of a queue, and all its programs compiled before the first request; afterwards none is compiled.

Letters: B slots, S tokens of their cache, T tokens of a prompt (bucketed).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from s1_jax.decoding.core.loop import DecodeState
from s1_jax.decoding.core.scores import KEPT
from s1_jax.decoding.device.paged import NOWHERE
from s1_jax.decoding.device.programs import SHORTEST_BUCKET, Programs
from s1_jax.decoding.host.blocks import Reading, Runs
from s1_jax.decoding.host.prefixes import PIECES, Prefixes
from s1_jax.decoding.host.slots import SPARE_SLOTS

WIDTHS = {"tpu": (256, 1024)}  # tokens of a chunk of a prompt, elsewhere (64, 256)
NOW = np.int32(0)  # a loop that is to stop at this step takes none


def queue_reading(programs: Programs, max_model_len: int, prefix_tokens: int) -> Reading:
    """Say how a queue reads prompts, and keep up to `prefix_tokens` tokens of past ones and of replies."""
    on_tpu = jax.default_backend() == "tpu"
    widths = WIDTHS.get(jax.default_backend(), (64, 256))
    prefixes = Prefixes(programs, prefix_tokens) if prefix_tokens else None
    return Reading(1, widths, prefixes, queue_lengths(max_model_len, on_tpu))


def queue_sizes(most: int, parts: int) -> list[int]:
    """List the numbers of slots of a queue, descending: `most`, a quarter of them, and one for each of the `parts`."""
    quarter = -(-most // (4 * parts)) * parts
    return sorted({most, quarter, parts}, reverse=True)


def queue_lengths(max_model_len: int, by_kernel: bool) -> list[int]:
    """List the lengths of the caches of a queue, ascending, the last of which is `max_model_len`.

    Few are far apart where a kernel reads only the part of a cache that is filled. Elsewhere attention reads all of it,
    so lengths double up to 1,024 and are then four times as long each.
    """
    lengths = [512 if by_kernel else SHORTEST_BUCKET]
    while lengths[-1] < max_model_len:
        lengths.append(lengths[-1] * (8 if by_kernel else 2 if lengths[-1] < 1024 else 4))
    return [*lengths[:-1], max_model_len]


def warm_up(
    programs: Programs,
    sizes: list[int],
    reading: Reading,
    some: Runs,
    show: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Call every program for all numbers of slots in `sizes`, which descend, and all `reading.lengths`.

    `some` holds a run of any kind, and `show` is told how many of all calls are done.
    """
    lengths = [*reading.lengths]
    total, done = len(sizes) * len(lengths) + len(lengths), 0

    def tell() -> None:
        nonlocal done
        done += 1
        show(done, total)

    for T in lengths:
        _read(programs, T, reading)
        tell()
    for i, B in enumerate(sizes):
        state = programs.empty_slots(sizes[0], lengths[0])
        if i:
            state = programs.take(state, np.arange(B))
        rows_on_host = jax.tree.map(
            lambda x, B=B: np.repeat(x[:1], B, axis=0), (some.budget, some.settings, some.scored)
        )
        budget, settings, _ = programs.everywhere(rows_on_host)
        rows = np.zeros(B, bool)
        rows_of_state = state.controller_state
        programs.recent(KEPT, state.tokens, state.kinds, state.num_tokens, rows_of_state, budget)
        state = programs.end(state, rows)
        for S in lengths:
            state = programs.resize(state, S)
            state = programs.decode(state, budget, settings, NOW, np.int32(B))
            for T in (T for T in lengths if T <= S):
                block = programs.empty_block(1, T)
                ids = np.zeros((1, T), np.int32)
                nowhere = np.full(max(1, B // SPARE_SLOTS), B, np.int32)
                new = rows_on_host[0], rows, nowhere, nowhere * 0, rows_on_host[2]
                state = programs.fill(state, block, ids, np.ones(1, np.int32), *new)
            if reading.prefixes is not None:
                _keep(reading, state.cache)
            for other in sizes:
                if other != B:
                    _take(programs, state, other)
            tell()
        _resize(programs, state, lengths)


def _read(programs: Programs, T: int, reading: Reading) -> None:
    for width in {min(width, T) for width in reading.widths}:
        block, one = programs.empty_block(1, T), np.ones(1, np.int32)
        chunk = np.zeros((1, width), np.int32)
        block = programs.prefill(block, chunk, NOW, one)
        block, _ = programs.score(block, chunk, NOW, one, chunk)
        if reading.prefixes is not None:
            _keep(reading, block.cache)
            reading.prefixes.block([], T)


def _keep(reading: Reading, cache: Any) -> None:
    assert reading.prefixes is not None
    reading.prefixes.put(cache, 0, [(0, NOWHERE)] * PIECES)


def _take(programs: Programs, state: DecodeState, size: int) -> None:
    """Take `size` slots of copies of the state's arrays, which a real call uses up."""
    slots = np.arange(size) % len(state.position)
    programs.take_others(dataclasses.replace(state, cache=()), slots)
    programs.take_layer(state.cache[0], slots)


def _resize(programs: Programs, state: DecodeState, lengths: list[int]) -> None:
    """Resize one layer of the cache from each length to each other one."""
    for S in lengths:
        layer = programs.resize_layer(state.cache[0], S)
        for other in lengths:
            if other != S:
                programs.resize_layer(layer, other)
