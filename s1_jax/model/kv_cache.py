"""The KV cache: an argument and a result, never hidden state. Slot s of a row holds the token at position s."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from s1_jax.config import ModelConfig
from s1_jax.sharding import constrain


class KVCache(NamedTuple):
    """Keys and values of all layers; S is the capacity."""

    keys: jax.Array  # [L, B, K, S, H]
    values: jax.Array  # [L, B, K, S, H]

    @property
    def capacity(self) -> int:
        """S."""
        return self.keys.shape[3]


def init_cache(config: ModelConfig, batch: int, capacity: int, dtype: jnp.dtype) -> KVCache:
    """An empty cache for `batch` rows of `capacity` tokens."""
    shape = (config.num_hidden_layers, batch, config.num_key_value_heads, capacity, config.head_dim)

    def empty() -> jax.Array:
        return constrain(jnp.zeros(shape, dtype), "layers", "batch", "act_kv_heads", "cache", "head_dim")

    return KVCache(empty(), empty())


def grow(cache: KVCache, capacity: int) -> KVCache:
    """The same rows in a cache of `capacity` S tokens, which is no smaller."""

    def grown(x: jax.Array) -> jax.Array:
        wider = jnp.pad(x, [(0, 0)] * 3 + [(0, capacity - x.shape[3]), (0, 0)])
        return constrain(wider, "layers", "batch", "act_kv_heads", "cache", "head_dim")

    return KVCache(*map(grown, cache))


def write(cache: jax.Array, layer: jax.Array, positions: jax.Array, new: jax.Array) -> jax.Array:
    """`new` [B, T, K, H] put into slots `positions` [B, T] of one layer of `cache` [L, B, K, S, H]."""
    rows = jnp.arange(positions.shape[0])[:, None]
    return cache.at[layer, rows, :, positions].set(
        new.astype(cache.dtype), mode="promise_in_bounds", unique_indices=False
    )


def init_tails(config: ModelConfig, batch: int, branches: int, capacity: int, dtype: jnp.dtype) -> KVCache:
    """Empty tails [L, B, K, R, C, H]: what R `branches` of each row add to the cache they share."""
    shape = (config.num_hidden_layers, batch, config.num_key_value_heads, branches, capacity, config.head_dim)

    def empty() -> jax.Array:
        return constrain(jnp.zeros(shape, dtype), "layers", "batch", "act_kv_heads", None, "cache", "head_dim")

    return KVCache(empty(), empty())


def write_tails(tails: jax.Array, layer: jax.Array, slots: jax.Array, new: jax.Array) -> jax.Array:
    """`new` [B, R, K, H] put into `slots` [B, R] of one layer of `tails` [L, B, K, R, C, H]."""
    rows, branches = (jnp.arange(size) for size in slots.shape)
    return tails.at[layer, rows[:, None], :, branches, slots].set(
        new.astype(tails.dtype), mode="promise_in_bounds", unique_indices=True
    )
