"""The answers of R branches a row, decoded together from the cache of the trunk they leave, which is not copied.

Letters: B rows, R branches of each, C tokens of a tail (suffix and answer), V vocabulary.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from s1_jax.config import ModelConfig
from s1_jax.decoding import budget as control
from s1_jax.decoding.decode import Controller, DecodeState, decode, start
from s1_jax.decoding.sampling import Sampling, sample
from s1_jax.model import cached, qwen2
from s1_jax.model.kv_cache import KVCache, init_tails
from s1_jax.sharding import constrain


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BranchPoints:
    """Where the branches of each row leave their trunk."""

    position: Array  # int32 [B, R], thinking tokens
    end: Array  # int32 [B, R], budget.End
    after_newline: Array  # bool [B, R], the text of the last thinking token ends in a newline
    active: Array  # bool [B, R], False: the row has fewer branches


def start_branches(
    config: ModelConfig, dtype: Any, C: int, budget: control.Budget, markers: control.Markers, at: BranchPoints
) -> DecodeState:
    """State of B * R rows, branch after branch, with empty tails of C tokens; `budget` is the trunks' [B]."""
    B, R = at.position.shape
    at = jax.tree.map(jnp.ravel, at)
    begun = control.branch_state(_each(budget, R), markers, at.position, at.end, at.after_newline, at.active)
    tails = init_tails(config, B, R, C, dtype)
    # never drawn from: the suffix is put in first, and the model's answer to its last token is
    logits = constrain(jnp.zeros((B * R, config.vocab_size), jnp.float32), "batch", None)
    return start(begun, tails, logits, jnp.zeros((B * R,), jnp.int32), C)


def decode_branches(
    config: ModelConfig,
    dtype: Any,
    params: qwen2.Params,
    prefix: KVCache,
    prompt_lengths: Array,
    state: DecodeState,
    at: BranchPoints,
    budget: control.Budget,
    markers: control.Markers,
    settings: Sampling,
    stop_step: Array,
) -> DecodeState:
    """Goes on until all answers have ended or `stop_step` [] is reached.

    `prefix` is the trunks' cache, `prompt_lengths` [B] (start marker included), `budget` and `settings` [B] are theirs.
    A token is drawn as the trunk's own run would draw it: what counts is its place behind the prompt.
    """
    R = at.position.shape[1]
    budget, settings = _each(budget, R), _each(settings, R)
    before = at.position.ravel()

    def forward(token_ids: Array, slots: Array, tails: Any) -> tuple[Array, Any]:
        hidden, tails = cached.branch_hidden_states(
            config,
            params,
            token_ids.reshape(at.position.shape),
            prompt_lengths[:, None] + at.position,
            slots.reshape(at.position.shape),
            prefix,
            tails,
            compute_dtype=dtype,
        )
        flat = hidden.reshape(-1, hidden.shape[-1])
        return constrain(qwen2.logits(config, params, flat), "batch", None), tails

    controller = Controller(
        propose=lambda state: control.propose(budget, markers, state),
        advance=lambda state, token: control.advance(budget, markers, state, token),
    )

    def draw(logits: Array, allowed: Array, index: Array) -> Array:
        return sample(logits, allowed, before + index, settings)

    return decode(forward, draw, controller, state, stop_step)


def _each(rows: Any, R: int) -> Any:
    """What is known of B rows, for each of their R branches."""
    return jax.tree.map(lambda x: jnp.repeat(x, R, axis=0), rows)
