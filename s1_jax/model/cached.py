"""Qwen2 over a KV cache: what decoding runs. Parameters are those of `qwen2.unstack`, a layer at a time.

A scan over stacked layers would copy each layer's weights and cache out of their stacks in every step.
Letters: B batch, T length, R branches, D hidden_size, S and C slots of cache and tails.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from s1_jax.config import ModelConfig
from s1_jax.model.attention import attend, attend_branches, rope_angles
from s1_jax.model.kv_cache import KVCache, LayerCache, write, write_tails
from s1_jax.model.qwen2 import DecoderLayer, Params, bind


def hidden_states(
    config: ModelConfig,
    params: Params,
    token_ids: jax.Array,
    positions: jax.Array,
    cache: KVCache,
    *,
    compute_dtype: jnp.dtype = jnp.float32,
) -> tuple[jax.Array, KVCache]:
    """Hidden states [B, T, D] of tokens [B, T] at `positions` [B, T], and the cache with them written at those slots.

    A query at position p sees slots up to p, so slots beyond a row's length may hold anything.
    """
    mask = jnp.arange(cache[0].capacity) <= positions[:, :, None]

    def mix(of_layer: LayerCache, q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, LayerCache]:
        new = write(of_layer, positions, k, v)
        return attend(q, *new.read(q.dtype), mask), new

    return _through_layers(config, params, token_ids, positions, cache, mix, compute_dtype)


def branch_hidden_states(
    config: ModelConfig,
    params: Params,
    token_ids: jax.Array,
    prefix_lengths: jax.Array,
    slots: jax.Array,
    prefix: KVCache,
    tails: KVCache,
    *,
    compute_dtype: jnp.dtype = jnp.float32,
) -> tuple[jax.Array, KVCache]:
    """Hidden states [B, R, T, D] of tokens [B, R, T] of R branches a row, and the tails with them written.

    A branch sees the first `prefix_lengths` [B, R] slots of its row's `prefix`, and its own of `tails`
    ([B, K, R, C, H] a layer) up to `slots` [B, R, T], where its tokens go.
    """
    B, R, T = token_ids.shape
    seen_of_prefix = jnp.broadcast_to(prefix_lengths[:, :, None], slots.shape)
    masks = tuple(
        jnp.arange(capacity) < seen[..., None]
        for capacity, seen in ((prefix[0].capacity, seen_of_prefix), (tails[0].capacity, slots + 1))
    )

    def mix(
        layers: tuple[LayerCache, LayerCache], q: jax.Array, k: jax.Array, v: jax.Array
    ) -> tuple[jax.Array, LayerCache]:
        shared, own = layers
        q, k, v = (x.reshape(B, R, T, *x.shape[2:]) for x in (q, k, v))
        new = write_tails(own, slots, k, v)
        return attend_branches(q, shared.read(q.dtype), new.read(q.dtype), masks).reshape(B, R * T, -1), new

    positions = (seen_of_prefix + slots).reshape(B, R * T)
    both = tuple(zip(prefix, tails, strict=True))
    hidden, tails = _through_layers(config, params, token_ids.reshape(B, R * T), positions, both, mix, compute_dtype)
    return hidden.reshape(B, R, T, -1), tails


def _through_layers(
    config: ModelConfig,
    params: Params,
    token_ids: jax.Array,
    positions: jax.Array,
    caches: tuple,
    mix: Callable[..., tuple[jax.Array, LayerCache]],
    compute_dtype: jnp.dtype,
) -> tuple[jax.Array, KVCache]:
    """Tokens [B, T] through all layers; `mix` attends with what `caches` has of a layer, and gives its new cache."""
    model = bind(config, params)
    cos, sin = rope_angles(config, positions)
    x, written = model.embed(token_ids, compute_dtype), []
    assert not isinstance(model.layers, DecoderLayer), "parameters are stacked: see qwen2.unstack"
    for layer, of_layer in zip(model.layers, caches, strict=True):
        x, new = layer(x, cos, sin, partial(mix, of_layer))
        written.append(new)
    return model.norm(x), tuple(written)
