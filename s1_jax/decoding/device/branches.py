"""The answers of R branches for each row, decoded together from the cache of their trunk, which is not copied.

Letters: B rows, R branches of each, X tokens of the longest suffix, C tokens of a tail (suffix and answer), V
vocabulary.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from s1_jax.config import ModelConfig
from s1_jax.decoding.core.budget import Budget, BudgetState
from s1_jax.decoding.core.controller import branch_state, budget_controller, feed_suffix
from s1_jax.decoding.core.end_markers import Markers
from s1_jax.decoding.core.loop import DecodeState, decode, start
from s1_jax.decoding.core.sampling import PhaseSampling, sample
from s1_jax.model import cached, transformer
from s1_jax.model.kv_cache import KVCache, init_tails
from s1_jax.sharding import constrain


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BranchPoints:
    """The points at which the branches of each row leave their trunk."""

    position: Array  # int32 [B, R], thinking tokens
    end: Array  # int32 [B, R], End
    after_newline: Array  # bool [B, R], the text of the last thinking token ends in a newline
    active: Array  # bool [B, R], False: the row has fewer branches


def start_branches(
    config: ModelConfig,
    dtype: Any,
    params: transformer.Params,
    markers: Markers,
    C: int,
    prefix: KVCache,
    prompt_lengths: Array,
    at: BranchPoints,
    budget: Budget,
) -> DecodeState:
    """Make the state of B * R rows, branch after branch, whose suffixes the model has read in one pass.

    `prefix` is the cache of the trunks, and `prompt_lengths` [B] (start marker included) and `budget` [B] are theirs.
    """
    B, R = at.position.shape
    flat, budget = jax.tree.map(jnp.ravel, at), _repeated(budget, R)
    begun = branch_state(budget, markers, flat.position, flat.end, flat.after_newline, flat.active)
    begun, suffixes, kinds = feed_suffix(budget, markers, begun)
    lengths = (kinds > 0).sum(axis=1)
    X = suffixes.shape[1]
    hidden, tails = cached.branch_hidden_states(
        config,
        params,
        suffixes.reshape(B, R, X),
        prompt_lengths[:, None] + at.position,
        jnp.broadcast_to(jnp.arange(X), (B, R, X)),
        prefix,
        init_tails(config, B, R, C, dtype),
        compute_dtype=dtype,
    )
    last = jnp.maximum(lengths - 1, 0)[:, None, None]
    at_last = jnp.take_along_axis(hidden.reshape(B * R, X, -1), last, axis=1)[:, 0]
    state = start(begun, tails, constrain(transformer.logits(config, params, at_last), "batch", None), lengths, C)
    return dataclasses.replace(
        state,
        tokens=state.tokens.at[:, :X].set(suffixes),
        kinds=state.kinds.at[:, :X].set(kinds),
        num_tokens=lengths,
    )


def decode_branches(
    config: ModelConfig,
    dtype: Any,
    params: transformer.Params,
    markers: Markers,
    state: DecodeState,
    prefix: KVCache,
    prompt_lengths: Array,
    at: BranchPoints,
    budget: Budget,
    settings: PhaseSampling,
    stop_step: Array,
) -> DecodeState:
    """Decode until all answers have ended or `stop_step` [] is reached; `settings` [B] are those of the trunks.

    A token is sampled as the branch's own run would sample it: only its position after the prompt counts.
    """
    B, R = at.position.shape
    budget, settings = _repeated(budget, R), _repeated(settings, R)
    before = at.position.ravel()

    def forward(token_ids: Array, positions: Array, tails: KVCache) -> tuple[Array, KVCache]:
        hidden, tails = cached.branch_hidden_states(
            config,
            params,
            token_ids.reshape(B, R, 1),
            prompt_lengths[:, None] + at.position,
            positions.reshape(B, R, 1),
            prefix,
            tails,
            compute_dtype=dtype,
        )
        flat = hidden.reshape(B * R, -1)
        return constrain(transformer.logits(config, params, flat), "batch", None), tails

    def sample_token(logits: Array, bias: Array, index: Array, state: BudgetState) -> Array:
        return sample(logits, bias, before + index, settings.answer)

    return decode(forward, sample_token, budget_controller(budget, markers), state, stop_step, jnp.int32(B * R))


def _repeated(rows: Any, R: int) -> Any:
    """Repeat arrays of B rows for each of their R branches."""
    return jax.tree.map(lambda x: jnp.repeat(x, R, axis=0), rows)
