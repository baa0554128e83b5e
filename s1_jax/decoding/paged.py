"""What a tree runs on the devices: steps of rows whose past lies in pages of a pool, which they share.

The pool holds what stands still. A row that is being decoded has a cache of its own, as the engine's slots have: its
past is gathered into it when its step begins, and what the step has added is put into pages when it has ended. Letters:
B rows, F rows that are filled at a time, M pages of a row, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from s1_jax.config import ModelConfig
from s1_jax.decoding import budget as control
from s1_jax.decoding.decode import DecodeState, decode, placed, start
from s1_jax.decoding.sampling import PhaseSampling, sample
from s1_jax.decoding.steps import StepEnds, step_controller, step_state
from s1_jax.model import cached, qwen2
from s1_jax.model.kv_cache import KVCache, copy_rows, gather_pages, init_cache, put_pages, resize
from s1_jax.sharding import constrain

NO_PAGE = 2**30  # out of every pool's range


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Origin:
    """Where rows go on from: the ends of other rows, whose last token is not in the cache yet."""

    budget: control.BudgetState  # [B]
    num_tokens: Array  # int32 [B], recorded so far
    last_token: Array  # int32 [B]
    position: Array  # int32 [B], behind that token


def empty_rows(config: ModelConfig, cache_dtype: Any, B: int, capacity: int, C: int) -> DecodeState:
    """B rows of at most C tokens with nothing in them; their cache holds `capacity` tokens for now."""
    nothing = jnp.zeros((B,), jnp.int32)
    logits = constrain(jnp.zeros((B, config.vocab_size), jnp.float32), "batch", None)
    cache = init_cache(config, B, capacity, cache_dtype)
    return start(step_state(control.empty_state(B), nothing), cache, logits, nothing, C)


def fill_rows(state: DecodeState, pool: KVCache, new: Array, origin: Origin, rows: Array, table: Array) -> DecodeState:
    """The state whose rows `new` [B] begin a step where `origin` says.

    They are `rows` [F], out of range where there are fewer; their past lies in the pages `table` [F, M], which fill the
    cache's capacity and are out of range behind it.
    """
    fresh = step_state(origin.budget, origin.last_token)
    last = jnp.where(new & (origin.num_tokens > 0), origin.num_tokens - 1, state.tokens.shape[1])  # none: dropped

    def put(fresh: Array, old: Array) -> Array:
        return jnp.where(jnp.expand_dims(new, tuple(range(1, old.ndim))), fresh, old)

    past = resize(gather_pages(pool, table), state.cache[0].capacity)
    filled = dataclasses.replace(
        state,
        control=jax.tree.map(put, fresh, state.control),
        cache=copy_rows(past, jnp.arange(len(rows)), state.cache, rows),
        position=put(origin.position, state.position),
        kinds=put(jnp.zeros_like(state.kinds), state.kinds),
        tokens=state.tokens.at[jnp.arange(len(new)), last].set(origin.last_token, mode="drop"),
        num_tokens=put(origin.num_tokens, state.num_tokens),
    )
    return placed(filled)


def put_rows(pool: KVCache, cache: KVCache, rows: Array, places: Array, targets: Array) -> KVCache:
    """`put_pages`, the pool first: it is used up."""
    return put_pages(cache, rows, places, pool, targets)


def decode_rows(
    config: ModelConfig,
    dtype: Any,
    params: qwen2.Params,
    markers: control.Markers,
    ends: StepEnds,
    state: DecodeState,
    budget: control.Budget,
    settings: PhaseSampling,
    stop_step: Array,
    stop_done: Array,
) -> DecodeState:
    """The loop up to step `stop_step` [], or until `stop_done` [] rows have ended or pause."""

    def forward(token_ids: Array, positions: Array, cache: KVCache) -> tuple[Array, KVCache]:
        hidden, cache = cached.hidden_states(config, params, token_ids, positions, cache, compute_dtype=dtype)
        return constrain(qwen2.logits(config, params, hidden[:, 0]), "batch", None), cache

    def draw(logits: Array, bias: Array, index: Array, state: Any) -> Array:
        return sample(logits, bias, index, settings.of(state.budget.phase == control.Phase.ANSWER))

    return decode(forward, draw, step_controller(ends, budget, markers), state, stop_step, stop_done)
