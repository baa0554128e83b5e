"""The device side of a tree: steps of rows whose past lies in pages of a pool, which they share.

The pool holds the cache of everything that is not being decoded, and the logits after it. A row that is being decoded
has a cache of its own, as the engine's slots have. Its past is gathered into that cache when its step begins, and the
tokens of the step are put into pages when the step has ended.

Letters: B rows, P pages, E ends of rows whose logits are kept, V vocabulary, n rows that one call fills or keeps.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from s1_jax.config import ModelConfig
from s1_jax.decoding.core.budget import Budget, BudgetState, Phase, empty_state
from s1_jax.decoding.core.end_markers import Markers
from s1_jax.decoding.core.loop import ALL_FINITE, DecodeState, decode, shard_rows, start
from s1_jax.decoding.core.sampling import PhaseSampling, sample
from s1_jax.decoding.device.steps import StepEnds, step_controller, step_state
from s1_jax.model import cached, transformer
from s1_jax.model.kv_cache import KVCache, copy_rows, gather_pages, init_cache, put_pages, resize
from s1_jax.sharding import constrain

NOWHERE = 2**30  # out of every pool's range


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Origin:
    """The ends of earlier rows, from which new rows continue."""

    budget: BudgetState  # [n]
    num_tokens: Array  # int32 [n], recorded so far
    last_token: Array  # int32 [n], the last of these
    position: Array  # int32 [n], after that token
    end: Array  # int32 [n], index of the logits that follow it


def empty_rows(config: ModelConfig, cache_dtype: Any, B: int, capacity: int, C: int) -> DecodeState:
    """Make B empty rows of at most C tokens, whose cache holds `capacity` tokens for now."""
    nothing = jnp.zeros((B,), jnp.int32)
    logits = constrain(jnp.zeros((B, config.vocab_size), jnp.float32), "batch", None)
    cache = init_cache(config, B, capacity, cache_dtype)
    return start(step_state(empty_state(B)), cache, logits, nothing, C)


def empty_logits(config: ModelConfig, E: int) -> Array:
    """Make room for the logits after E rows: float32 [E, V]."""
    return _kept(jnp.zeros((E, config.vocab_size), jnp.float32))


def more_logits(logits: Array, E: int) -> Array:
    """Enlarge the room for logits to E rows."""
    return _kept(jnp.pad(logits, [(0, E - len(logits)), (0, 0)]))


def fill_rows(
    state: DecodeState, pool: KVCache, logits: Array, origin: Origin, rows: Array, table: Array
) -> DecodeState:
    """Let `rows` [n] begin a step at `origin`; rows out of range are dropped.

    Their past lies in the pages `table` [n, pages of a row], which fill the cache's capacity and are out of range
    after it. The logits that follow are in `logits` [E, V].
    """

    def put(fresh: Array, old: Array) -> Array:
        return old.at[rows].set(fresh, mode="drop")

    past = resize(gather_pages(pool, table), state.cache[0].capacity)
    last = jnp.where(origin.num_tokens > 0, origin.num_tokens - 1, state.tokens.shape[1])  # none: dropped
    filled = dataclasses.replace(
        state,
        controller_state=jax.tree.map(put, step_state(origin.budget), state.controller_state),
        cache=copy_rows(past, jnp.arange(len(rows)), state.cache, rows),
        logits=put(constrain(logits[origin.end], "batch", None), state.logits),
        position=put(origin.position, state.position),
        kinds=put(jnp.zeros((len(rows), state.kinds.shape[1]), jnp.int32), state.kinds),
        tokens=state.tokens.at[rows, last].set(origin.last_token, mode="drop"),
        num_tokens=put(origin.num_tokens, state.num_tokens),
        lost_at=put(jnp.full((len(rows),), ALL_FINITE), state.lost_at),
    )
    return shard_rows(filled)


def put_rows(pool: KVCache, cache: KVCache, rows: Array, indices: Array, targets: Array) -> KVCache:
    """Copy pages out of rows of a cache into the pool, as `put_pages` does; the pool comes first, as it is used up."""
    return put_pages(cache, rows, indices, pool, targets)


def put_logits(kept: Array, logits: Array, rows: Array, targets: Array) -> Array:
    """Copy the `logits` [B, V] of `rows` into `kept` [E, V] at `targets`; targets out of range are dropped."""
    return _kept(kept.at[targets].set(_kept(logits[rows]), mode="drop"))


def decode_rows(
    config: ModelConfig,
    dtype: Any,
    params: transformer.Params,
    markers: Markers,
    ends: StepEnds,
    state: DecodeState,
    budget: Budget,
    settings: PhaseSampling,
    stop_step: Array,
    stop_done: Array,
) -> DecodeState:
    """Run the loop up to step `stop_step` [], or until `stop_done` [] rows have ended or pause."""

    def forward(token_ids: Array, positions: Array, cache: KVCache) -> tuple[Array, KVCache]:
        hidden, cache = cached.hidden_states(config, params, token_ids, positions, cache, compute_dtype=dtype)
        return constrain(transformer.logits(config, params, hidden[:, 0]), "batch", None), cache

    def sample_token(logits: Array, bias: Array, index: Array, state: Any) -> Array:
        return sample(logits, bias, index, settings.of(state.budget.phase == Phase.ANSWER))

    return decode(forward, sample_token, step_controller(ends, budget, markers), state, stop_step, stop_done)


def _kept(logits: Array) -> Array:
    return constrain(logits, None, "act_vocab")  # any row may continue from any of them
