"""Prefill: prompts are read a block at a time and chunk by chunk, so that memory is bounded and decoding continues.

A block has a cache of its own beside the slots. All runs of one prompt (samples, ignore strings) are filled from the
prompt's one row there.

Letters: P prompts, T tokens of the longest (bucketed), C tokens of a chunk, V vocabulary, K likeliest tokens.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from s1_jax.config import ModelConfig
from s1_jax.decoding.core.scores import token_scores
from s1_jax.model import cached, transformer
from s1_jax.model.kv_cache import KVCache, gather_pages, init_cache, resize
from s1_jax.sharding import constrain

SCORED = 16  # tokens whose [V] logits exist at one time while prompts are scored


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PromptBlock:
    """The prompts of a block, as far as the model has read them."""

    cache: KVCache  # P rows of T positions
    logits: Array  # float32 [P, V], after the last token of each prompt that was read to its end


def empty_block(config: ModelConfig, cache_dtype: Any, P: int, T: int) -> PromptBlock:
    """Make room for P prompts of T tokens."""
    logits = constrain(jnp.zeros((P, config.vocab_size), jnp.float32), "batch", None)
    return PromptBlock(init_cache(config, P, T, cache_dtype), logits)


def block_of_pages(config: ModelConfig, T: int, pool: KVCache, table: Array) -> PromptBlock:
    """Make a block of one prompt of T tokens, whose beginning lies in the pages `table` [1, pages] of a pool."""
    logits = constrain(jnp.zeros((1, config.vocab_size), jnp.float32), "batch", None)
    return PromptBlock(resize(gather_pages(pool, table), T), logits)


def prefill_chunk(
    config: ModelConfig,
    dtype: Any,
    params: transformer.Params,
    block: PromptBlock,
    token_ids: Array,
    start: Array,
    lengths: Array,
) -> PromptBlock:
    """Read tokens [P, C] of right-padded prompts of `lengths` [P], beginning at their position `start` []."""
    return _read(config, dtype, params, block, token_ids, start, lengths)[0]


def score_chunk(
    config: ModelConfig,
    dtype: Any,
    params: transformer.Params,
    block: PromptBlock,
    token_ids: Array,
    start: Array,
    lengths: Array,
    following: Array,
) -> tuple[PromptBlock, tuple[Array, Array, Array]]:
    """Do as `prefill_chunk`, and score the tokens `following` [P, C] each of the chunk's.

    The scores are log-probabilities [P, C], and the likeliest tokens [P, C, K] with theirs. Logits exist for SCORED
    tokens of each prompt at a time.
    """
    block, hidden = _read(config, dtype, params, block, token_ids, start, lengths)
    P, C, D = hidden.shape
    size = math.gcd(SCORED, C)
    pieces = hidden.reshape(P, C // size, size, D).swapaxes(0, 1), following.reshape(P, C // size, size).swapaxes(0, 1)

    def piece(of_piece: tuple[Array, Array]) -> tuple[Array, Array, Array]:
        states, tokens = of_piece
        logits = constrain(transformer.logits(config, params, states.reshape(P * size, D)), "batch", None)
        scores = token_scores(logits, tokens.ravel(), jnp.array(True))
        own, ids, top = (x.reshape(P, size, *x.shape[1:]) for x in scores)
        return own, ids, top

    scores = jax.lax.map(piece, pieces)
    own, ids, top = (x.swapaxes(0, 1).reshape(P, C, *x.shape[3:]) for x in scores)
    return block, (own, ids, top)


def _read(
    config: ModelConfig,
    dtype: Any,
    params: transformer.Params,
    block: PromptBlock,
    token_ids: Array,
    start: Array,
    lengths: Array,
) -> tuple[PromptBlock, Array]:
    """Read a chunk into the block, and give its hidden states [P, C, D] too."""
    P, C = token_ids.shape
    positions = jnp.broadcast_to(start + jnp.arange(C), (P, C))
    hidden, cache = cached.hidden_states(config, params, token_ids, positions, block.cache, compute_dtype=dtype)
    last = lengths - 1 - start
    at_last = jnp.take_along_axis(hidden, jnp.clip(last, 0, C - 1)[:, None, None], axis=1)[:, 0]
    scores = constrain(transformer.logits(config, params, at_last), "batch", None)
    here = (last >= 0) & (last < C)
    return PromptBlock(cache, jnp.where(here[:, None], scores, block.logits)), hidden
