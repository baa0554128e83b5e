"""What decoding runs on the devices: a model's compiled functions over a batch of slots.

All that differs from one batch to the next (budgets, settings, which rows) is an array argument and recompiles nothing;
sizes (rows, capacities) are few, see `bucket`. Letters: B slots, P prompts, V vocabulary, R branches of a row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from s1_jax.config import ModelConfig
from s1_jax.decoding import budget as control
from s1_jax.decoding.branches import decode_branches, start_branches
from s1_jax.decoding.decode import Controller, DecodeState, decode, start
from s1_jax.decoding.prefill import PromptBlock, empty_block, prefill_chunk
from s1_jax.decoding.sampling import Sampling, sample
from s1_jax.model import cached, qwen2
from s1_jax.model.kv_cache import KVCache, copy_rows, init_cache, resize, take_rows
from s1_jax.sharding import Layout, constrain

SHORTEST_BUCKET = 64  # prompts and caches are padded to this times a power of two, so that little is compiled


def bucket(length: int, most: int) -> int:
    """The size that holds `length` tokens: a power of two from SHORTEST_BUCKET on, or `most`."""
    size = SHORTEST_BUCKET
    while size < length:
        size *= 2
    return min(size, most)


class Programs:
    """The functions of one model under one type of arithmetic, compiled when they first meet a size.

    Products are made in `dtype`, the cache is kept in `cache_dtype`. Every call takes what changes; parameters and
    markers are bound. States and blocks are used up by the call that takes them.
    """

    def __init__(
        self,
        config: ModelConfig,
        params: qwen2.Params,
        markers: control.Markers,
        max_model_len: int,
        dtype: Any,
        cache_dtype: Any,
        layout: Layout | None,
    ) -> None:
        self._layout = layout
        self._jitted: list[Any] = []
        self.empty_block = self._compiled(partial(empty_block, config, cache_dtype), static_argnums=(0, 1))
        self.prefill = self._compiled(partial(prefill_chunk, config, dtype), params, donate_argnums=1)
        slots = partial(empty_slots, config, max_model_len, cache_dtype)
        self.empty_slots = self._compiled(slots, static_argnums=(0, 1))
        self.fill = self._compiled(fill_slots, markers, donate_argnums=1)
        self.resize = self._compiled(_resize, static_argnums=1)
        self.take = self._compiled(_take)
        self.decode = self._compiled(partial(decode_slots, config, dtype), params, markers, donate_argnums=2)
        self.prefix = self._compiled(_prefix, static_argnums=2)
        self.start_branches = self._compiled(partial(start_branches, config, dtype), params, markers, static_argnums=2)
        self.decode_branches = self._compiled(
            partial(decode_branches, config, dtype), params, markers, donate_argnums=2
        )

    def count(self) -> int:
        """How many programs have been compiled."""
        return sum(function._cache_size() for function in self._jitted)

    def _compiled(self, function: Callable[..., Any], *bound: Any, **options: Any) -> Callable[..., Any]:
        compiled = jax.jit(function, **options)
        self._jitted.append(compiled)

        def call(*arguments: Any) -> Any:
            if self._layout is None:
                return compiled(*bound, *arguments)
            with self._layout.use():  # only here: the caller's own arrays are none of this mesh's business
                return compiled(*bound, *arguments)

        return call


def empty_slots(config: ModelConfig, max_model_len: int, cache_dtype: Any, B: int, capacity: int) -> DecodeState:
    """B slots with nothing in them; their cache holds `capacity` tokens for now."""
    logits = constrain(jnp.zeros((B, config.vocab_size), jnp.float32), "batch", None)
    cache = init_cache(config, B, capacity, cache_dtype)
    return start(control.empty_state(B), cache, logits, jnp.zeros((B,), jnp.int32), max_model_len)


def fill_slots(
    markers: control.Markers,
    state: DecodeState,
    block: PromptBlock,
    lengths: Array,
    budget: control.Budget,
    new: Array,
    slots: Array,
    sources: Array,
) -> DecodeState:
    """Puts prompts into slots: row `sources` [M] of the block into slot `slots` [M]; slots out of range are dropped.

    `lengths` [P] are the prompts', `budget` [B] the slots' as they will be, `new` [B] says which of them are filled.
    """
    fresh = control.initial_state(budget, markers, new)
    return dataclasses.replace(
        state,
        control=jax.tree.map(lambda new_row, row: jnp.where(new, new_row, row), fresh, state.control),
        cache=copy_rows(block.cache, sources, state.cache, slots),
        logits=state.logits.at[slots].set(block.logits[sources], mode="drop"),
        position=state.position.at[slots].set(lengths[sources], mode="drop"),
        kinds=jnp.where(new[:, None], 0, state.kinds),
        num_tokens=jnp.where(new, 0, state.num_tokens),
    )


def decode_slots(
    config: ModelConfig,
    dtype: Any,
    params: qwen2.Params,
    markers: control.Markers,
    state: DecodeState,
    budget: control.Budget,
    settings: Sampling,
    stop_step: Array,
    stop_done: Array,
) -> DecodeState:
    """The loop with this model, the budget controller and sampling put in."""

    def forward(token_ids: Array, positions: Array, cache: KVCache) -> tuple[Array, KVCache]:
        hidden, cache = cached.hidden_states(config, params, token_ids, positions, cache, compute_dtype=dtype)
        # Whole rows on one device: sampling needs all of a row's logits.
        return constrain(qwen2.logits(config, params, hidden[:, 0]), "batch", None), cache

    def draw(logits: Array, allowed: Array, index: Array) -> Array:
        return sample(logits, allowed, index, settings)

    controller = Controller(
        propose=lambda state: control.propose(budget, markers, state),
        advance=lambda state, token: control.advance(budget, markers, state, token),
    )
    return decode(forward, draw, controller, state, stop_step, stop_done)


def _resize(state: DecodeState, capacity: int) -> DecodeState:
    return dataclasses.replace(state, cache=resize(state.cache, capacity))


def _take(state: DecodeState, slots: Array) -> DecodeState:
    """The state of these `slots` [M] alone."""
    cache = take_rows(state.cache, slots)
    rows = dataclasses.replace(state, cache=())
    return dataclasses.replace(jax.tree.map(lambda x: x[slots] if x.ndim else x, rows), cache=cache)


def _prefix(cache: KVCache, slots: Array, capacity: int) -> KVCache:
    """The first `capacity` tokens of these `slots` [M]."""
    return take_rows(resize(cache, capacity), slots)
