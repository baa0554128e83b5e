"""The programs of decoding: a model's jitted functions over a batch of slots.

Everything that differs from one batch to the next (budgets, settings, which rows) is an array argument and recompiles
nothing. Sizes (rows, capacities) are few, see `bucket`.

Letters: B slots, P prompts, V vocabulary, R branches of a row, n slots that one call fills or copies.
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
from s1_jax.decoding.core.budget import IS_THOUGHT, AnswerEnd, Budget, BudgetState, Kind, Phase, empty_state
from s1_jax.decoding.core.controller import budget_controller, initial_state
from s1_jax.decoding.core.end_markers import Markers, begun
from s1_jax.decoding.core.loop import ALL_FINITE, DecodeState, choose, decode, shard_rows, start
from s1_jax.decoding.core.sampling import PhaseSampling, sample
from s1_jax.decoding.core.scores import empty_scores
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
from s1_jax.decoding.device.prefill import PromptBlock, block_of_pages, empty_block, prefill_chunk, score_chunk
from s1_jax.model import cached, transformer
from s1_jax.model.kv_cache import KVCache, LayerCache, copy_rows, init_cache, init_pages, more_pages, resize, take_rows
from s1_jax.sharding import Layout, constrain

SHORTEST_BUCKET = 64  # prompts and caches are padded to this times a power of two, so that few sizes are compiled


def bucket(length: int, most: int) -> int:
    """Round `length` up to SHORTEST_BUCKET times a power of two, but to no more than `most`."""
    size = SHORTEST_BUCKET
    while size < length:
        size *= 2
    return min(size, most)


class Programs:
    """The jitted functions of one model, each of which is compiled when it first meets a size.

    Products are computed in `dtype`, and the cache is stored in `cache_dtype`. Parameters and markers are bound, and
    every call takes the rest. A call uses up (donates) the states and blocks that it takes. A step of `decode` drafts
    `draft_tokens` tokens of each slot. With `scores` slots keep the log-probabilities of their last tokens.
    """

    def __init__(
        self,
        config: ModelConfig,
        params: transformer.Params,
        markers: Markers,
        max_model_len: int,
        dtype: Any,
        cache_dtype: Any,
        layout: Layout | None,
        draft_tokens: int = 0,
        scores: bool = False,
    ) -> None:
        self._layout, self._markers, self.draft_tokens = layout, markers, draft_tokens
        self._programs: list[Program] = []
        self.empty_block = self._program(partial(empty_block, config, cache_dtype), static_argnums=(0, 1))
        self.block_of_pages = self._program(partial(block_of_pages, config), static_argnums=0)
        self.prefill = self._program(partial(prefill_chunk, config, dtype), params, donate_argnums=1)
        self.score = self._program(partial(score_chunk, config, dtype), params, donate_argnums=1)
        slots = partial(empty_slots, config, max_model_len, cache_dtype, draft_tokens, scores)
        self.empty_slots = self._program(slots, static_argnums=(0, 1))
        self.fill = self._program(fill_slots, markers, donate_argnums=1)
        self.recent = self._program(_recent, markers, static_argnums=1)
        self.end_others = self._program(_end_slots)
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

    # Whole caches are copied one layer at a time. The temporaries of a copy, on a mesh several times its size, are then
    # those of one layer, and where the old cache is used up there are never two whole ones.

    def resize(self, state: DecodeState, capacity: int) -> DecodeState:
        """Give the state a cache of `capacity` tokens."""
        return dataclasses.replace(state, cache=each_layer(self.resize_layer, state.cache, capacity, used_up=True))

    def take(self, state: DecodeState, slots: ArrayLike) -> DecodeState:
        """Keep these `slots` [n] of the state alone."""
        others = self.take_others(dataclasses.replace(state, cache=()), slots)
        return dataclasses.replace(others, cache=each_layer(self.take_layer, state.cache, slots, used_up=True))

    def end(self, state: DecodeState, ended: ArrayLike) -> DecodeState:
        """End the answers of the slots that have `ended` [B]."""
        rows = self.end_others(state.controller_state, ended)
        return dataclasses.replace(state, controller_state=rows)

    def prefix(self, cache: KVCache, slots: ArrayLike, capacity: int) -> KVCache:
        """Copy the first `capacity` tokens of these `slots` [n]."""
        return each_layer(self.prefix_layer, cache, slots, capacity, used_up=False)

    def more_pages(self, pool: KVCache, pages: int) -> KVCache:
        """Enlarge the pool to this many `pages`."""
        return each_layer(self.more_pages_layer, pool, pages, used_up=True)

    def rebind(self, markers: Markers) -> None:
        """Use other markers of the same sizes from now on; nothing is compiled anew."""
        for program in self._programs:
            program.rebind(self._markers, markers)
        self._markers = markers

    def everywhere(self, tree: Any) -> Any:
        """Put arrays of the host where every program reads them without a copy."""
        return jax.tree.map(jnp.asarray, tree) if self._layout is None else self._layout.everywhere(tree)

    @property
    def spans_processes(self) -> bool:
        """Whether the mesh has devices of other processes."""
        return self._layout is not None and self._layout.spans_processes

    @property
    def num_compiled(self) -> int:
        """Number of programs that have been compiled."""
        return sum(program.num_compiled for program in self._programs)

    def _program(self, function: Callable[..., Any], *bound: Any, **options: Any) -> Program:
        self._programs.append(Program(function, bound, self._layout, **options))
        return self._programs[-1]


class Program:
    """A jitted function that runs under a layout, with its first arguments `bound`."""

    def __init__(
        self, function: Callable[..., Any], bound: tuple[Any, ...], layout: Layout | None, **options: Any
    ) -> None:
        # a partial of its own: programs of one function share a cache, and `num_compiled` would count other models'
        self.jitted: Any = jax.jit(partial(function), **options)
        self._bound = bound
        self._layout = layout

    def __call__(self, *arguments: Any) -> Any:
        """Run the function, after compiling it where the sizes are new.

        Arrays of the host may be arguments, and arrays on the devices must lie where the function needs them: a copy
        from device to device would be made in every call, unnoticed.
        """
        with self._use(), jax.transfer_guard_device_to_device("disallow"):
            return self.jitted(*self._bound, *arguments)

    def rebind(self, old: Any, new: Any) -> None:
        """Bind `new` in place of the argument `old`, if that is bound."""
        self._bound = tuple(new if argument is old else argument for argument in self._bound)

    @property
    def num_compiled(self) -> int:
        """Number of programs that have been compiled: one for each combination of sizes."""
        return self.jitted._cache_size()

    def lower(self, *arguments: Any) -> jax.stages.Lowered:
        """Lower what a call would compile; arrays may be jax.ShapeDtypeStruct."""
        with self._use():
            return self.jitted.lower(*self._bound, *arguments)

    def _use(self) -> AbstractContextManager[Any]:
        # only within a call: the caller's own arrays do not belong to this mesh
        return nullcontext() if self._layout is None else self._layout.use()


def empty_slots(
    config: ModelConfig, max_model_len: int, cache_dtype: Any, draft_tokens: int, scores: bool, B: int, capacity: int
) -> DecodeState:
    """Make B empty slots, whose cache holds `capacity` tokens for now."""
    logits = constrain(jnp.zeros((B, config.vocab_size), jnp.float32), "batch", None)
    cache = init_cache(config, B, capacity, cache_dtype)
    state = start(empty_state(B), cache, logits, jnp.zeros((B,), jnp.int32), max_model_len)
    context = jnp.zeros_like(state.tokens) if draft_tokens else None
    kept = empty_scores(B, config.vocab_size) if scores else None
    return shard_rows(dataclasses.replace(state, context=context, scores=kept))


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
    scored: Array | None = None,
) -> DecodeState:
    """Copy prompts into slots: row `sources` [n] of the block into slot `slots` [n]; slots out of range are dropped.

    `token_ids` [P, T] and `lengths` [P] are those of the prompts. `budget` [B] holds the budgets of all slots after
    this call, and `new` [B] tells which slots it fills. A prompt ends in the thinking that is given, which is recorded.
    `scored` [B] is `Scores.wanted` after this call, where scores are kept.
    """
    fresh = initial_state(budget, markers, new)
    context = state.context
    if context is not None:
        context = context.at[slots, : token_ids.shape[1]].set(token_ids[sources], mode="drop")
    given, T = budget.given_tokens, token_ids.shape[1]
    before = lengths[sources] - given.at[slots].get(mode="clip")
    indices = jnp.minimum(before[:, None] + jnp.arange(T)[None], T - 1)
    thinking = jnp.take_along_axis(token_ids[sources], indices, axis=1)  # after the given tokens it means nothing
    kinds = jnp.where(jnp.arange(state.kinds.shape[1])[None] < given[:, None], Kind.THINKING, Kind.NONE)
    scores = state.scores
    if scores is not None and scored is not None:
        scores = dataclasses.replace(scores, wanted=scored)
    filled = dataclasses.replace(
        state,
        controller_state=choose(new, fresh, state.controller_state),
        cache=copy_rows(block.cache, sources, state.cache, slots),
        logits=state.logits.at[slots].set(block.logits[sources], mode="drop"),
        position=state.position.at[slots].set(lengths[sources], mode="drop"),
        tokens=state.tokens.at[slots, :T].set(thinking, mode="drop"),
        kinds=jnp.where(new[:, None], kinds, state.kinds),
        num_tokens=jnp.where(new, given, state.num_tokens),
        num_accepted=jnp.where(new, 0, state.num_accepted),
        lost_at=jnp.where(new, ALL_FINITE, state.lost_at),
        context=context,
        scores=scores,
    )
    return shard_rows(filled)


def decode_slots(
    config: ModelConfig,
    dtype: Any,
    draft_tokens: int,
    params: transformer.Params,
    markers: Markers,
    state: DecodeState,
    budget: Budget,
    settings: PhaseSampling,
    stop_step: Array,
    stop_done: Array,
) -> DecodeState:
    """Run the loop with this model, the budget controller and sampling, speculatively where there are drafts."""

    def forward(token_ids: Array, positions: Array, cache: KVCache) -> tuple[Array, KVCache]:
        hidden, cache = cached.hidden_states(config, params, token_ids, positions, cache, compute_dtype=dtype)
        hidden = hidden if draft_tokens else hidden[:, 0]
        # whole rows on one device: sampling needs all of a row's logits
        return constrain(transformer.logits(config, params, hidden), "batch", *[None] * (hidden.ndim - 1)), cache

    def sample_token(logits: Array, bias: Array, index: Array, state: BudgetState) -> Array:
        return sample(logits, bias, index, settings.of(state.phase == Phase.ANSWER))

    controller = budget_controller(budget, markers)
    if draft_tokens:
        return decode_speculatively(forward, sample_token, controller, draft_tokens, state, stop_step, stop_done)
    return decode(forward, sample_token, controller, state, stop_step, stop_done)


def _recent(
    markers: Markers, count: int, tokens: Array, kinds: Array, num_tokens: Array, rows: BudgetState, budget: Budget
) -> tuple[Array, Array, Array]:
    """Give the last `count` tokens of each slot and their kinds [B, count], right-aligned, and how many may go again.

    The latter [B] are the last tokens of a slot that may turn out to begin an end marker.
    """
    indices = num_tokens[:, None] - count + jnp.arange(count)[None]
    own = indices - rows.num_thinking[:, None]  # a marker that the model wrote by itself, of a row without forcing
    last_tokens, last_kinds = (jnp.take_along_axis(x, jnp.maximum(indices, 0), axis=1) for x in (tokens, kinds))
    last_kinds = jnp.where((own >= 0) & (own < rows.own_marker[:, None]), Kind.SUFFIX, last_kinds)
    last_kind = jnp.take_along_axis(kinds, jnp.maximum(num_tokens - 1, 0)[:, None], axis=1)[:, 0]
    undecided = (rows.phase == Phase.THINKING) & jnp.asarray(IS_THOUGHT)[last_kind]
    return last_tokens, last_kinds, jnp.where(undecided, begun(budget, markers, rows.marker_bits), 0)


def _end_slots(rows: BudgetState, ended: Array) -> BudgetState:
    """End the answers of the slots that have `ended` [B]."""
    return jax.tree.map(lambda x: constrain(x, "batch", *[None] * (x.ndim - 1)), _ended(rows, ended))


def _end_rows(state: DecodeState, ended: Array) -> DecodeState:
    """End the answers of the rows of a tree that have `ended` [B]."""
    rows = dataclasses.replace(state.controller_state, budget=_ended(state.controller_state.budget, ended))
    return shard_rows(dataclasses.replace(state, controller_state=rows))


def _ended(rows: BudgetState, ended: Array) -> BudgetState:
    return dataclasses.replace(
        rows,
        phase=jnp.where(ended, Phase.DONE, rows.phase),
        answer_end=jnp.where(ended, AnswerEnd.STOP, rows.answer_end),
    )


def each_layer(program: Program, cache: KVCache, *arguments: Any, used_up: bool) -> KVCache:
    """Apply `program` to each layer of a cache, and free the layer before the next one if it is `used_up`."""
    layers = []
    for layer in cache:
        layers.append(program(layer, *arguments))
        if used_up:
            for array in jax.tree.leaves(layer):
                array.delete()
    return tuple(layers)


def resize_layer(layer: LayerCache, capacity: int) -> LayerCache:
    """Give a layer of the cache room for `capacity` tokens."""
    return resize((layer,), capacity)[0]


def take_layer(layer: LayerCache, slots: Array) -> LayerCache:
    """Keep these `slots` [n] of a layer alone."""
    return take_rows((layer,), slots)[0]


def _take_others(state: DecodeState, slots: Array) -> DecodeState:
    return shard_rows(jax.tree.map(lambda x: x[slots] if x.ndim else x, state))


def _prefix_layer(layer: LayerCache, slots: Array, capacity: int) -> LayerCache:
    return take_layer(resize_layer(layer, capacity), slots)


def _first_states(markers: Markers, budget: Budget) -> BudgetState:
    """Make the states after prompt and start marker, whole on every device."""
    return initial_state(budget, markers, jnp.ones_like(budget.thinking))


def _empty_pool(config: ModelConfig, cache_dtype: Any, pages: int, slots: int) -> KVCache:
    return init_pages(config, pages, slots, cache_dtype)


def _more_pages_layer(layer: LayerCache, pages: int) -> LayerCache:
    return more_pages((layer,), pages)[0]
