"""The KV cache: an argument and a result, never hidden state. Slot s of a row holds the token at position s.

Each layer has arrays of its own, so that a step reads and writes them in place. Letters: B rows, K kv heads, S slots,
H head_dim, R branches of a row, C slots of a branch's tail.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from s1_jax.config import ModelConfig
from s1_jax.sharding import constrain

AXES = ("batch", "act_kv_heads", "cache", "head_dim")
TAIL_AXES = ("batch", "act_kv_heads", None, "cache", "head_dim")


class LayerCache(NamedTuple):
    """One layer's keys and values."""

    keys: jax.Array  # [B, K, S, H], of tails [B, K, R, C, H]
    values: jax.Array  # likewise

    @property
    def capacity(self) -> int:
        """S, or C."""
        return self.keys.shape[-2]

    def read(self, dtype: jnp.dtype) -> tuple[jax.Array, jax.Array]:
        """Keys and values as attention takes them."""
        return self.keys.astype(dtype), self.values.astype(dtype)


KVCache = tuple[LayerCache, ...]  # of all layers


def init_cache(config: ModelConfig, batch: int, capacity: int, dtype: jnp.dtype) -> KVCache:
    """An empty cache for `batch` rows of `capacity` tokens."""
    return _empty(config, (batch, config.num_key_value_heads, capacity, config.head_dim), dtype, AXES)


def init_tails(config: ModelConfig, batch: int, branches: int, capacity: int, dtype: jnp.dtype) -> KVCache:
    """Empty tails of `capacity` tokens: what each of R `branches` of a row adds to the cache they share."""
    shape = (batch, config.num_key_value_heads, branches, capacity, config.head_dim)
    return _empty(config, shape, dtype, TAIL_AXES)


def _empty(config: ModelConfig, shape: tuple[int, ...], dtype: jnp.dtype, axes: tuple[str | None, ...]) -> KVCache:
    def zeros() -> jax.Array:
        return constrain(jnp.zeros(shape, dtype), *axes)

    return tuple(LayerCache(zeros(), zeros()) for _ in range(config.num_hidden_layers))


def resize(cache: KVCache, capacity: int) -> KVCache:
    """The same rows in a cache of `capacity` tokens; slots beyond are cut off."""

    def resized(x: jax.Array) -> jax.Array:
        x = x[:, :, :capacity]
        wider = jnp.pad(x, [(0, 0)] * 2 + [(0, capacity - x.shape[2]), (0, 0)])
        return constrain(wider, *AXES)

    return jax.tree.map(resized, cache)


def take_rows(cache: KVCache, rows: jax.Array) -> KVCache:
    """A cache of these `rows` [M] alone."""
    return jax.tree.map(lambda x: constrain(x[rows], *AXES), cache)


def copy_rows(source: KVCache, rows: jax.Array, target: KVCache, slots: jax.Array) -> KVCache:
    """`target` with `rows` [M] of `source`, which has no more capacity, in its rows `slots` [M].

    Slots out of range are dropped.
    """

    def copied(new: jax.Array, old: jax.Array) -> jax.Array:
        return constrain(old.at[slots, :, : new.shape[2]].set(new[rows], mode="drop"), *AXES)

    return jax.tree.map(copied, source, target)


def write(cache: LayerCache, positions: jax.Array, keys: jax.Array, values: jax.Array) -> LayerCache:
    """`keys` and `values` [B, T, K, H] put into slots `positions` [B, T] of their rows."""
    rows = jnp.arange(positions.shape[0])[:, None]
    return LayerCache(
        *(
            old.at[rows, :, positions].set(new.astype(old.dtype), mode="promise_in_bounds", unique_indices=False)
            for old, new in zip(cache, (keys, values), strict=True)
        )
    )


def write_tails(tails: LayerCache, slots: jax.Array, keys: jax.Array, values: jax.Array) -> LayerCache:
    """`keys` and `values` [B, R, T, K, H] put into `slots` [B, R, T] of their branches' tails."""
    rows, branches = (jnp.arange(size) for size in slots.shape[:2])
    return LayerCache(
        *(
            old.at[rows[:, None, None], :, branches[:, None], slots].set(
                new.astype(old.dtype), mode="promise_in_bounds", unique_indices=True
            )
            for old, new in zip(tails, (keys, values), strict=True)
        )
    )
