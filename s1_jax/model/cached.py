"""The transformer over a KV cache: what decoding runs.

Parameters are those of `transformer.unstack`, a layer at a time. A scan over stacked layers would copy each layer's
weights and cache out of their stacks in every step.
Letters: B batch, T length, R branches, D hidden_size, S and C slots of cache and tails.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from s1_jax.config import ModelConfig
from s1_jax.model import decode_attention
from s1_jax.model.attention import attend, attend_branches, rope_angles
from s1_jax.model.decode_attention import attend_cache, plan_visits
from s1_jax.model.kv_cache import KVCache, LayerCache, as_stored, write, write_tails
from s1_jax.model.transformer import DecoderLayer, Params, bind
from s1_jax.sharding import platform

KERNEL_TOKENS = 16  # of a row, that the kernel attends for at a time at most: those of a draft

Mixer = Callable[..., tuple[jax.Array, LayerCache]]  # (what there is of a layer, q, k, v) -> attended, its new cache


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

    A query at position p sees slots up to p, so slots beyond a row's length may hold anything. A position behind the
    last slot is that of a row that has ended: its cache is left alone, and its hidden states mean nothing.
    """
    by_kernel = platform() == "tpu" and token_ids.shape[1] <= KERNEL_TOKENS
    mix = (_mix_by_kernel if by_kernel else _mix)(positions, cache[0])
    return _through_layers(config, params, token_ids, positions, cache, mix, compute_dtype)


def _mix(positions: jax.Array, first: LayerCache) -> Mixer:
    mask = jnp.arange(first.capacity)[None, None] <= positions[:, :, None]

    def mix(of_layer: LayerCache, q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, LayerCache]:
        new = write(of_layer, positions, k, v)
        return attend(q, new, mask), new

    return mix


def _mix_by_kernel(positions: jax.Array, first: LayerCache) -> Mixer:
    """Do as `_mix` with the kernel, for few tokens per row on TPU; the kernel also stores a single token."""
    visits = plan_visits(_seen(positions, first), first)

    def mix(of_layer: LayerCache, q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, LayerCache]:
        if positions.shape[1] == 1:
            return attend_cache(q, of_layer, visits, as_stored(of_layer, k, v))
        return attend_cache(q, write(of_layer, positions, k, v), visits)

    return mix


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
    ([B, K, R, C, H] a layer) up to `slots` [B, R, T], where its tokens go. A slot behind the last is that of a branch
    that has ended, as in `hidden_states`.
    """
    B, R, T = token_ids.shape
    by_kernel = platform() == "tpu" and T == 1
    mix = (_mix_branches_by_kernel if by_kernel else _mix_branches)(prefix_lengths, slots, prefix[0], tails[0])

    def mix_flat(
        of_layer: tuple[LayerCache, LayerCache], q: jax.Array, k: jax.Array, v: jax.Array
    ) -> tuple[jax.Array, LayerCache]:
        out, new = mix(of_layer, *(x.reshape(B, R, T, *x.shape[2:]) for x in (q, k, v)))
        return out.reshape(B, R * T, -1), new

    positions = (prefix_lengths[:, :, None] + slots).reshape(B, R * T)
    both = tuple(zip(prefix, tails, strict=True))
    flat = token_ids.reshape(B, R * T)
    hidden, tails = _through_layers(config, params, flat, positions, both, mix_flat, compute_dtype)
    return hidden.reshape(B, R, T, -1), tails


def _mix_branches(lengths: jax.Array, slots: jax.Array, prefix: LayerCache, tails: LayerCache) -> Mixer:
    seen_of_prefix = jnp.broadcast_to(lengths[:, :, None], slots.shape)
    masks = tuple(
        jnp.arange(cache.capacity)[None, None, None] < seen[..., None]
        for cache, seen in ((prefix, seen_of_prefix), (tails, slots + 1))
    )

    def mix(
        of_layer: tuple[LayerCache, LayerCache], q: jax.Array, k: jax.Array, v: jax.Array
    ) -> tuple[jax.Array, LayerCache]:
        shared, own = of_layer[0], write_tails(of_layer[1], slots, k, v)
        return attend_branches(q, shared, own, masks), own

    return mix


def _mix_branches_by_kernel(lengths: jax.Array, slots: jax.Array, prefix: LayerCache, tails: LayerCache) -> Mixer:
    of_tails = _seen(slots, tails)
    visits = (
        plan_visits(jnp.where(of_tails[:, :, 0] > 0, lengths, 0), prefix),
        plan_visits(of_tails.reshape(-1, 1), tails),
    )

    def mix(
        of_layer: tuple[LayerCache, LayerCache], q: jax.Array, k: jax.Array, v: jax.Array
    ) -> tuple[jax.Array, LayerCache]:
        shared, own = of_layer
        return decode_attention.attend_branches(q, shared, own, visits, (k, v))

    return mix


def _seen(positions: jax.Array, cache: LayerCache) -> jax.Array:
    """How many slots each query sees; none where its row has ended."""
    return jnp.where(positions < cache.capacity, positions + 1, 0)


def _through_layers(
    config: ModelConfig,
    params: Params,
    token_ids: jax.Array,
    positions: jax.Array,
    caches: tuple,
    mix: Mixer,
    compute_dtype: jnp.dtype,
) -> tuple[jax.Array, KVCache]:
    """Tokens [B, T] through all layers; `mix` attends with what `caches` has of a layer, and gives its new cache."""
    model = bind(config, params)
    cos, sin = rope_angles(config, positions)
    x, written = model.embed(token_ids, compute_dtype), []
    assert not isinstance(model.layers, DecoderLayer), "parameters are stacked: see transformer.unstack"
    for layer, of_layer in zip(model.layers, caches, strict=True):
        x, new = layer(x, cos, sin, partial(mix, of_layer))
        written.append(new)
    return model.norm(x), tuple(written)
