"""From logits to a token: greedy, or by temperature, then top-k, top-p and min-p. Settings are arrays, one a row.

Letters: B rows, V vocabulary.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from s1_jax.config import SamplingConfig


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sampling:
    """The sampling settings of each row."""

    temperature: Array  # float32 [B], 0: greedy
    top_k: Array  # int32 [B], 0: all
    top_p: Array  # float32 [B]
    min_p: Array  # float32 [B]
    key: Array  # uint32 [B, 2], see `row_key`


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PhaseSampling:
    """The sampling settings of each row, for its thinking and for its answer."""

    thinking: Sampling
    answer: Sampling

    def of(self, answering: Array) -> Sampling:
        """Choose the settings of the answer where `answering` [B], and those of thinking elsewhere."""

        def pick(thinking: Array, answer: Array) -> Array:
            return jnp.where(jnp.expand_dims(answering, tuple(range(1, answer.ndim))), answer, thinking)

        return jax.tree.map(pick, self.thinking, self.answer)


def make_sampling(configs: Sequence[SamplingConfig], keys: Sequence[np.ndarray]) -> Sampling:
    """Put the settings and keys of rows into arrays on the host."""
    columns: dict[str, Any] = dict(
        temperature=np.asarray([c.temperature for c in configs], np.float32),
        top_k=np.asarray([c.top_k for c in configs], np.int32),
        top_p=np.asarray([c.top_p for c in configs], np.float32),
        min_p=np.asarray([c.min_p for c in configs], np.float32),
        key=np.asarray(keys, np.uint32).reshape(-1, 2),  # also where there are no rows
    )
    return Sampling(**columns)


def row_key(seed: int, problem_id: str | int | None, prompt_token_ids: Sequence[int], sample: int) -> np.ndarray:
    """Make the random key of a row, uint32 [2], from what the row is and not from where it stands in the batch.

    The prompt's ids count only where there is no `problem_id`. The key is made by SHA-256, because Python's `hash`
    differs from one process to the next.
    """
    name = str(problem_id) if problem_id is not None else [int(i) for i in prompt_token_ids]
    digest = hashlib.sha256(json.dumps([seed, name, sample]).encode()).digest()
    return np.frombuffer(digest[:8], ">u4").astype(np.uint32)


def sample(logits: Array, bias: Array, index: Array, settings: Sampling) -> Array:
    """Sample a token [B] from logits + bias [B, V], where -inf means never.

    `index` [B], the token's position after the prompt, is folded into the row's key. Sorting and random numbers cost
    nothing while no row asks for them.
    """
    logits = logits.astype(jnp.float32) + bias
    greedy = jnp.argmax(logits, axis=-1).astype(jnp.int32)

    def sampled() -> Array:
        scaled = logits / jnp.where(settings.temperature > 0, settings.temperature, 1.0)[:, None]
        kept = filter_logits(scaled, settings.top_k, settings.top_p, settings.min_p)
        keys = jax.vmap(jax.random.fold_in)(jax.random.wrap_key_data(settings.key, impl="threefry2x32"), index)
        random = jax.vmap(jax.random.categorical)(keys, kept).astype(jnp.int32)
        return jnp.where(settings.temperature > 0, random, greedy)

    return jax.lax.cond(jnp.any(settings.temperature > 0), sampled, lambda: greedy)


def filter_logits(logits: Array, top_k: Array, top_p: Array, min_p: Array) -> Array:
    """Set the logits [B, V] of tokens to -inf that top-k, then top-p, then min-p [B] rule out.

    top-p keeps the smallest set of the likeliest tokens whose probability reaches p, among those that top-k left.
    min-p keeps the tokens that are at least min_p times as likely as the likeliest. Tokens as likely as the last one
    kept are kept too.
    """

    def by_rank() -> Array:
        vocab = logits.shape[-1]
        descending = -jnp.sort(-logits, axis=-1)
        within_k = jnp.arange(vocab)[None] < jnp.where(top_k > 0, top_k, vocab)[:, None]
        descending = jnp.where(within_k, descending, -jnp.inf)
        probabilities = jax.nn.softmax(descending, axis=-1)
        before = jnp.cumsum(probabilities, axis=-1) - probabilities
        within_p = (before < top_p[:, None]) | (top_p >= 1)[:, None]
        within_p = within_p.at[:, 0].set(True) & within_k
        last_kept = jnp.min(jnp.where(within_p, descending, jnp.inf), axis=-1, keepdims=True)
        return jnp.where(logits >= last_kept, logits, -jnp.inf)

    kept = jax.lax.cond(jnp.any((top_k > 0) | (top_p < 1)), by_rank, lambda: logits)
    floor = jnp.max(kept, axis=-1, keepdims=True) + jnp.log(min_p)[:, None]
    return jnp.where(kept >= floor, kept, -jnp.inf)
