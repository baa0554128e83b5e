"""The KV cache: an argument and a result, never hidden state. Slot s of a row holds the token at position s.

Each layer has arrays of its own, so that a step reads and writes them in place. Letters: B rows, K kv heads, S slots,
H head_dim, R branches of a row, C slots of a branch's tail; of a pool P pages, M of which make up a row.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from s1_jax.config import ModelConfig
from s1_jax.sharding import constrain

AXES = ("batch", "act_kv_heads", "cache", "head_dim")
TAIL_AXES = ("batch", "act_kv_heads", None, "cache", "head_dim")
PAGE_AXES = (None, "act_kv_heads", "cache", "head_dim")  # any row may hold any page


class LayerCache(NamedTuple):
    """One layer's keys and values, in int8 each token's of each head with a scale of their own."""

    keys: jax.Array  # [B, K, S, H], of tails [B, K, R, C, H]
    values: jax.Array  # likewise
    key_scales: jax.Array | None = None  # float32 [B, K, S]
    value_scales: jax.Array | None = None  # likewise

    @property
    def capacity(self) -> int:
        """Number of tokens that a row holds: S, or C in tails."""
        return self.keys.shape[-2]


KVCache = tuple[LayerCache, ...]  # of all layers


def init_cache(config: ModelConfig, batch: int, capacity: int, dtype: jnp.dtype) -> KVCache:
    """Make an empty cache for `batch` rows of `capacity` tokens."""
    return _empty(config, batch, capacity, dtype, AXES)


def init_pages(config: ModelConfig, pages: int, slots: int, dtype: jnp.dtype) -> KVCache:
    """Make a pool of `pages` empty pages of `slots` tokens each: keys and values [P, K, slots, H] a layer."""
    return _empty(config, pages, slots, dtype, PAGE_AXES)


def _empty(config: ModelConfig, rows: int, slots: int, dtype: jnp.dtype, axes: tuple[str | None, ...]) -> KVCache:
    shape = (rows, config.num_key_value_heads, slots, config.head_dim)

    def layer() -> LayerCache:
        keys, values = (_zeros(shape, dtype, axes) for _ in range(2))
        if jnp.dtype(dtype) != jnp.int8:
            return LayerCache(keys, values)
        return LayerCache(keys, values, *(_zeros(shape[:-1], jnp.float32, axes[:-1]) for _ in range(2)))

    return tuple(layer() for _ in range(config.num_hidden_layers))


def init_tails(config: ModelConfig, batch: int, branches: int, capacity: int, dtype: jnp.dtype) -> KVCache:
    """Make empty tails of `capacity` tokens, one for each of R `branches` that share a row's cache; not in int8."""
    shape = (batch, config.num_key_value_heads, branches, capacity, config.head_dim)
    return tuple(
        LayerCache(*(_zeros(shape, dtype, TAIL_AXES) for _ in range(2))) for _ in range(config.num_hidden_layers)
    )


def _zeros(shape: tuple[int, ...], dtype: jnp.dtype, axes: tuple[str | None, ...]) -> jax.Array:
    return constrain(jnp.zeros(shape, dtype), *axes)


def resize(cache: KVCache, capacity: int) -> KVCache:
    """Move the rows into a cache of `capacity` tokens; slots beyond are cut off."""

    def resized(x: jax.Array) -> jax.Array:
        x = x[:, :, :capacity]
        wider = jnp.pad(x, [(0, capacity - x.shape[2]) if axis == 2 else (0, 0) for axis in range(x.ndim)])
        return constrain(wider, *AXES[: x.ndim])

    return jax.tree.map(resized, cache)


def take_rows(cache: KVCache, rows: jax.Array) -> KVCache:
    """Make a cache of these `rows` [M] alone."""
    return jax.tree.map(lambda x: constrain(x[rows], *AXES[: x.ndim]), cache)


def copy_rows(source: KVCache, rows: jax.Array, target: KVCache, slots: jax.Array) -> KVCache:
    """Copy `rows` [M] of `source`, which has no more capacity, into rows `slots` [M] of `target`.

    Slots out of range are dropped.
    """
    if len(slots) == 1:  # XLA makes a dynamic-update-slice of one row, for which a mesh gathers the whole cache
        nowhere = jnp.full_like(slots, len(target[0].keys))
        rows, slots = jnp.concatenate([rows, rows]), jnp.concatenate([slots, nowhere])

    def copied(new: jax.Array, old: jax.Array) -> jax.Array:
        return constrain(old.at[slots, :, : new.shape[2]].set(new[rows], mode="drop"), *AXES[: old.ndim])

    return jax.tree.map(copied, source, target)


def more_pages(pool: KVCache, pages: int) -> KVCache:
    """Enlarge the pool to `pages` pages, the new ones empty."""

    def grown(x: jax.Array) -> jax.Array:
        return constrain(jnp.pad(x, [(0, pages - len(x)), *[(0, 0)] * (x.ndim - 1)]), *PAGE_AXES[: x.ndim])

    return jax.tree.map(grown, pool)


def gather_pages(pool: KVCache, table: jax.Array) -> KVCache:
    """Gather the rows of `table` [B, M] as a cache of M pages each; pages out of range may be any."""
    B, M = table.shape

    def gathered(x: jax.Array) -> jax.Array:
        P, K, slots, *rest = x.shape
        # page by page: of a gather over all axes XLA makes scalar loads on CPU, several times slower
        pages = x.reshape(P, -1).at[table.ravel()].get(mode="clip").reshape(B, M, K, slots, *rest)
        return constrain(pages.swapaxes(1, 2).reshape(B, K, M * slots, *rest), *AXES[: x.ndim])

    return jax.tree.map(gathered, pool)


def put_pages(cache: KVCache, rows: jax.Array, sources: jax.Array, pool: KVCache, targets: jax.Array) -> KVCache:
    """Copy the pages `sources` [E] of a cache's `rows` [E] into the pages `targets` [E] of the pool.

    Targets out of range are dropped.
    """

    def put(x: jax.Array, old: jax.Array) -> jax.Array:
        _, K, slots, *rest = old.shape
        x = jnp.pad(x, [(0, -x.shape[2] % slots) if axis == 2 else (0, 0) for axis in range(x.ndim)])
        pieces = x.reshape(len(x), K, -1, slots, *rest)[rows, :, sources]
        return constrain(old.at[targets].set(pieces, mode="drop"), *PAGE_AXES[: old.ndim])

    return jax.tree.map(put, cache, pool)


def write(cache: LayerCache, positions: jax.Array, keys: jax.Array, values: jax.Array) -> LayerCache:
    """Write `keys` and `values` [B, T, K, H] into slots `positions` [B, T] of their rows; none behind the last slot."""
    rows, heads = jnp.arange(positions.shape[0])[:, None, None], jnp.arange(keys.shape[2])
    return _put(cache, (rows, heads, positions[:, :, None]), (keys, values), AXES)


def write_tails(tails: LayerCache, slots: jax.Array, keys: jax.Array, values: jax.Array) -> LayerCache:
    """Write `keys` and `values` [B, R, T, K, H] into tails at `slots` [B, R, T]; slots past the end are dropped."""
    rows, branches = (jnp.arange(size) for size in slots.shape[:2])
    heads = jnp.arange(keys.shape[3])
    at = (rows[:, None, None, None], heads, branches[:, None, None], slots[..., None])
    return _put(tails, at, (keys, values), TAIL_AXES)


def _put(
    cache: LayerCache, at: tuple[jax.Array, ...], new: tuple[jax.Array, jax.Array], axes: tuple[str | None, ...]
) -> LayerCache:
    # with every axis but H indexed: a slice over the heads makes XLA on TPU change the layout of the whole cache
    return jax.tree.map(
        lambda old, x: constrain(old.at[at].set(x, mode="drop"), *axes[: old.ndim]), cache, as_stored(cache, *new)
    )


def as_stored(cache: LayerCache, keys: jax.Array, values: jax.Array) -> LayerCache:
    """Convert `keys` and `values` [..., H] to the type of `cache`, with their scales [...] where that is int8."""
    if cache.key_scales is None:
        return LayerCache(keys.astype(cache.keys.dtype), values.astype(cache.values.dtype))
    (keys, key_scales), (values, value_scales) = _to_int8(keys), _to_int8(values)
    return LayerCache(keys, values, key_scales, value_scales)


def _to_int8(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    wide = x.astype(jnp.float32)
    scales = jnp.maximum(jnp.abs(wide).max(axis=-1), jnp.finfo(jnp.float32).tiny) / 127
    return jnp.round(wide / scales[..., None]).astype(jnp.int8), scales
