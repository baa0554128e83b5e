"""What decoding runs on the devices: a model's compiled functions over a batch of slots.

All that differs from one batch to the next (budgets, settings, which rows) is an array argument and recompiles nothing;
sizes (rows, capacities) are few, see `bucket`. Letters: B slots, P prompts, V vocabulary, R branches of a row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from s1_jax.config import ModelConfig
from s1_jax.decoding.core.budget import AnswerEnd, Budget, BudgetState, Phase, empty_state
from s1_jax.decoding.core.controller import advance, initial_state, propose
from s1_jax.decoding.core.end_markers import Markers
from s1_jax.decoding.core.loop import SOUND, Controller, DecodeState, decode, placed, start
from s1_jax.decoding.core.sampling import PhaseSampling, sample
from s1_jax.decoding.core.speculate import decode_speculatively
from s1_jax.decoding.device.branches import decode_branches, start_branches
from s1_jax.decoding.device.paged import (
    decode_rows,
    empty_logits,
    empty_rows,
    fill_rows,
    more_logits,
    put_logits,
    put_rows,
)
from s1_jax.decoding.device.prefill import PromptBlock, empty_block, prefill_chunk
from s1_jax.model import cached, qwen2
from s1_jax.model.kv_cache import KVCache, LayerCache, copy_rows, init_cache, init_pages, more_pages, resize, take_rows
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
    markers are bound. States and blocks are used up by the call that takes them. A step of `decode` drafts
    `draft_tokens` tokens of each slot.
    """

    def __init__(
        self,
        config: ModelConfig,
        params: qwen2.Params,
        markers: Markers,
        max_model_len: int,
        dtype: Any,
        cache_dtype: Any,
        layout: Layout | None,
        draft_tokens: int = 0,
    ) -> None:
        self._layout, self.draft_tokens = layout, draft_tokens
        if layout is not None and layout.spans_processes:
            markers = layout.everywhere(markers)
        self._programs: list[Program] = []
        self.empty_block = self._program(partial(empty_block, config, cache_dtype), static_argnums=(0, 1))
        self.prefill = self._program(partial(prefill_chunk, config, dtype), params, donate_argnums=1)
        slots = partial(empty_slots, config, max_model_len, cache_dtype, draft_tokens)
        self.empty_slots = self._program(slots, static_argnums=(0, 1))
        self.fill = self._program(fill_slots, markers, donate_argnums=1)
        self.end = self._program(_end_slots, donate_argnums=0)
        self.resize_layer = self._program(resize_layer, static_argnums=1)
        self.take_layer = self._program(take_layer)
        self.take_others = self._program(_take_others)
        decode = partial(decode_slots, config, dtype, draft_tokens)
        self.decode = self._program(decode, params, markers, donate_argnums=2)
        self.prefix_layer = self._program(_prefix_layer, static_argnums=2)
        self.start_branches = self._program(partial(start_branches, config, dtype), params, markers, static_argnums=2)
        self.decode_branches = self._program(partial(decode_branches, config, dtype), params, markers, donate_argnums=2)
        self.empty_pool = self._program(partial(_empty_pool, config, cache_dtype), static_argnums=(0, 1))
        self.more_pages_layer = self._program(_more_pages_layer, static_argnums=1)
        self.empty_logits = self._program(partial(empty_logits, config), static_argnums=0)
        self.more_logits = self._program(more_logits, static_argnums=1)
        self.first_states = self._program(_first_states, markers)
        self.empty_rows = self._program(partial(empty_rows, config, cache_dtype), static_argnums=(0, 1, 2))
        self.fill_rows = self._program(fill_rows, donate_argnums=0)
        self.end_rows = self._program(_end_rows, donate_argnums=0)
        self.put_rows = self._program(put_rows, donate_argnums=0)
        self.put_logits = self._program(put_logits, donate_argnums=0)
        self.decode_rows = self._program(partial(decode_rows, config, dtype), params, markers, donate_argnums=3)

    # Whole caches are copied one layer at a time: what that takes for itself, on a mesh several times the copy, is then
    # one layer's, and where the old cache is used up no two whole ones are there at once.

    def resize(self, state: DecodeState, capacity: int) -> DecodeState:
        """The state with a cache of `capacity` tokens."""
        return dataclasses.replace(state, cache=each_layer(self.resize_layer, state.cache, capacity, used_up=True))

    def take(self, state: DecodeState, slots: ArrayLike) -> DecodeState:
        """The state of these `slots` [M] alone."""
        others = self.take_others(dataclasses.replace(state, cache=()), slots)
        return dataclasses.replace(others, cache=each_layer(self.take_layer, state.cache, slots, used_up=True))

    def prefix(self, cache: KVCache, slots: ArrayLike, capacity: int) -> KVCache:
        """A copy of the first `capacity` tokens of these `slots` [M]."""
        return each_layer(self.prefix_layer, cache, slots, capacity, used_up=False)

    def more_pages(self, pool: KVCache, pages: int) -> KVCache:
        """The pool with so many `pages`."""
        return each_layer(self.more_pages_layer, pool, pages, used_up=True)

    @property
    def spans_processes(self) -> bool:
        """Whether other processes have devices of the mesh."""
        return self._layout is not None and self._layout.spans_processes

    def count(self) -> int:
        """How many programs have been compiled."""
        return sum(program.jitted._cache_size() for program in self._programs)

    def _program(self, function: Callable[..., Any], *bound: Any, **options: Any) -> Program:
        self._programs.append(Program(function, bound, self._layout, **options))
        return self._programs[-1]


class Program:
    """A jitted function under a layout, whose first arguments are `bound`."""

    def __init__(
        self, function: Callable[..., Any], bound: tuple[Any, ...], layout: Layout | None, **options: Any
    ) -> None:
        # a partial of its own: programs of one function would share one cache, and `count` those of other models
        self.jitted: Any = jax.jit(partial(function), **options)
        self._bound = bound
        self._layout = layout

    def __call__(self, *arguments: Any) -> Any:
        """Runs it."""
        with self._use():
            return self.jitted(*self._bound, *arguments)

    def lower(self, *arguments: Any) -> jax.stages.Lowered:
        """What a call would compile; arrays may be jax.ShapeDtypeStruct."""
        with self._use():
            return self.jitted.lower(*self._bound, *arguments)

    def _use(self) -> AbstractContextManager[Any]:
        # only within a call: the caller's own arrays are none of this mesh's business
        return nullcontext() if self._layout is None else self._layout.use()


def empty_slots(
    config: ModelConfig, max_model_len: int, cache_dtype: Any, draft_tokens: int, B: int, capacity: int
) -> DecodeState:
    """B slots with nothing in them; their cache holds `capacity` tokens for now."""
    logits = constrain(jnp.zeros((B, config.vocab_size), jnp.float32), "batch", None)
    cache = init_cache(config, B, capacity, cache_dtype)
    state = start(empty_state(B), cache, logits, jnp.zeros((B,), jnp.int32), max_model_len)
    return dataclasses.replace(state, context=jnp.zeros_like(state.tokens) if draft_tokens else None)


def fill_slots(
    markers: Markers,
    state: DecodeState,
    block: PromptBlock,
    token_ids: Array,
    lengths: Array,
    budget: Budget,
    new: Array,
    slots: Array,
    sources: Array,
) -> DecodeState:
    """Puts prompts into slots: row `sources` [M] of the block into slot `slots` [M]; slots out of range are dropped.

    `token_ids` [P, T] and `lengths` [P] are the prompts', `budget` [B] the slots' as they will be, `new` [B] says which
    of them are filled.
    """
    fresh = initial_state(budget, markers, new)
    context = state.context
    if context is not None:
        context = context.at[slots, : token_ids.shape[1]].set(token_ids[sources], mode="drop")
    filled = dataclasses.replace(
        state,
        control=jax.tree.map(lambda new_row, row: jnp.where(new, new_row, row), fresh, state.control),
        cache=copy_rows(block.cache, sources, state.cache, slots),
        logits=state.logits.at[slots].set(block.logits[sources], mode="drop"),
        position=state.position.at[slots].set(lengths[sources], mode="drop"),
        kinds=jnp.where(new[:, None], 0, state.kinds),
        num_tokens=jnp.where(new, 0, state.num_tokens),
        num_accepted=jnp.where(new, 0, state.num_accepted),
        lost_at=jnp.where(new, SOUND, state.lost_at),
        context=context,
    )
    return placed(filled)


def decode_slots(
    config: ModelConfig,
    dtype: Any,
    draft_tokens: int,
    params: qwen2.Params,
    markers: Markers,
    state: DecodeState,
    budget: Budget,
    settings: PhaseSampling,
    stop_step: Array,
    stop_done: Array,
) -> DecodeState:
    """The loop, that with drafts if there are any, with this model, the budget controller and sampling put in."""

    def forward(token_ids: Array, positions: Array, cache: KVCache) -> tuple[Array, KVCache]:
        hidden, cache = cached.hidden_states(config, params, token_ids, positions, cache, compute_dtype=dtype)
        hidden = hidden if draft_tokens else hidden[:, 0]
        # Whole rows on one device: sampling needs all of a row's logits.
        return constrain(qwen2.logits(config, params, hidden), "batch", *[None] * (hidden.ndim - 1)), cache

    def draw(logits: Array, bias: Array, index: Array, state: BudgetState) -> Array:
        return sample(logits, bias, index, settings.of(state.phase == Phase.ANSWER))

    controller = Controller(
        propose=lambda state: propose(budget, markers, state),
        advance=lambda state, token: advance(budget, markers, state, token),
    )
    if draft_tokens:
        return decode_speculatively(forward, draw, controller, draft_tokens, state, stop_step, stop_done)
    return decode(forward, draw, controller, state, stop_step, stop_done)


def _end_slots(state: DecodeState, ended: Array) -> DecodeState:
    """The state with the answers of slots `ended` [B] at their end."""
    return placed(dataclasses.replace(state, control=_ended(state.control, ended)))


def _end_rows(state: DecodeState, ended: Array) -> DecodeState:
    """The same for rows of a tree."""
    rows = dataclasses.replace(state.control, budget=_ended(state.control.budget, ended))
    return placed(dataclasses.replace(state, control=rows))


def _ended(rows: BudgetState, ended: Array) -> BudgetState:
    return dataclasses.replace(
        rows,
        phase=jnp.where(ended, Phase.DONE, rows.phase),
        answer_end=jnp.where(ended, AnswerEnd.STOP, rows.answer_end),
    )


def each_layer(program: Program, cache: KVCache, *arguments: Any, used_up: bool) -> KVCache:
    """What `program` makes of each layer, which is let go before the next if it is `used_up`."""
    layers = []
    for layer in cache:
        layers.append(program(layer, *arguments))
        if used_up:
            for array in jax.tree.leaves(layer):
                array.delete()
    return tuple(layers)


def resize_layer(layer: LayerCache, capacity: int) -> LayerCache:
    """The layer with room for `capacity` tokens."""
    return resize((layer,), capacity)[0]


def take_layer(layer: LayerCache, slots: Array) -> LayerCache:
    """The layer of these `slots` [M] alone."""
    return take_rows((layer,), slots)[0]


def _take_others(state: DecodeState, slots: Array) -> DecodeState:
    return placed(jax.tree.map(lambda x: x[slots] if x.ndim else x, state))


def _prefix_layer(layer: LayerCache, slots: Array, capacity: int) -> LayerCache:
    return take_layer(resize_layer(layer, capacity), slots)


def _first_states(markers: Markers, budget: Budget) -> BudgetState:
    """States after prompt and start marker, whole on every device."""
    return initial_state(budget, markers, jnp.ones_like(budget.thinking))


def _empty_pool(config: ModelConfig, cache_dtype: Any, pages: int, slots: int) -> KVCache:
    return init_pages(config, pages, slots, cache_dtype)


def _more_pages_layer(layer: LayerCache, pages: int) -> LayerCache:
    return more_pages((layer,), pages)[0]
