"""Prefill: prompts are read a block at a time and chunk by chunk, so that memory is bounded and decoding continues.

A block has a cache of its own beside the slots. All runs of one prompt (samples, ignore strings) are filled from the
prompt's one row there.

Letters: P prompts, T tokens of the longest (bucketed), C tokens of a chunk, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from s1_jax.config import ModelConfig
from s1_jax.model import cached, transformer
from s1_jax.model.kv_cache import KVCache, init_cache
from s1_jax.sharding import constrain


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
    P, C = token_ids.shape
    positions = jnp.broadcast_to(start + jnp.arange(C), (P, C))
    hidden, cache = cached.hidden_states(config, params, token_ids, positions, block.cache, compute_dtype=dtype)
    last = lengths - 1 - start
    at_last = jnp.take_along_axis(hidden, jnp.clip(last, 0, C - 1)[:, None, None], axis=1)[:, 0]
    scores = constrain(transformer.logits(config, params, at_last), "batch", None)
    here = (last >= 0) & (last < C)
    return PromptBlock(cache, jnp.where(here[:, None], scores, block.logits))
