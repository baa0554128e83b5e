"""Rotary positions and grouped-query attention.

Letters: B batch, T query length, S key length, N query heads, K kv heads, G = N // K, H head_dim.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from s1_jax.config import Llama3Scaling, ModelConfig, YarnScaling
from s1_jax.model.kv_cache import LayerCache
from s1_jax.sharding import constrain


def rope_frequencies(config: ModelConfig) -> tuple[np.ndarray, float]:
    """Return the inverse frequencies [H // 2] float32 and the factor on cos and sin.

    YaRN (arXiv 2309.00071) and Llama 3's scaling are computed as in transformers.
    """
    periods = config.rope_theta ** (np.arange(0, config.head_dim, 2, dtype=np.float32) / config.head_dim)
    scaling, factor = config.rope_scaling, 1.0
    if isinstance(scaling, YarnScaling):
        kept = _kept_by_yarn(scaling, config.head_dim, config.rope_theta)
        frequencies = (1 - kept) / (scaling.factor * periods) + kept / periods
        if scaling.attention_factor is not None:
            factor = scaling.attention_factor
        elif scaling.factor > 1:
            factor = 0.1 * math.log(scaling.factor) + 1.0
    elif isinstance(scaling, Llama3Scaling):
        low, high = scaling.low_freq_factor, scaling.high_freq_factor
        rotations = scaling.original_max_position_embeddings / (2 * math.pi * periods)
        kept = np.clip((rotations - low) / (high - low), 0, 1)
        frequencies = (1 - kept) / (scaling.factor * periods) + kept / periods
    else:
        frequencies = 1.0 / periods
    return frequencies.astype(np.float32), factor


def _kept_by_yarn(scaling: YarnScaling, head_dim: int, theta: float) -> np.ndarray:
    """Return the share [H // 2] of each frequency that YaRN leaves undivided."""

    def dimension_turning(rotations: float) -> float:
        return (
            head_dim
            * math.log(scaling.original_max_position_embeddings / (rotations * 2 * math.pi))
            / (2 * math.log(theta))
        )

    low, high = dimension_turning(scaling.beta_fast), dimension_turning(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    # a ramp that falls, where beta_fast is below beta_slow, is transformers' too
    return 1 - np.clip((np.arange(head_dim // 2, dtype=np.float32) - low) / (high - low or 0.001), 0, 1)


def rope_angles(config: ModelConfig, positions: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Compute cos and sin [B, T, H // 2] float32 of `positions` [B, T] int32.

    Always float32: bfloat16 rounds position 257 to 256, and sin(257) is nothing like sin(256).
    """
    frequencies, factor = rope_frequencies(config)
    angles = positions[..., None].astype(jnp.float32) * jnp.expand_dims(frequencies, range(positions.ndim))
    return jnp.cos(angles) * factor, jnp.sin(angles) * factor


def apply_rope(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Rotate `x` [B, T, heads, H] by `cos`, `sin` [B, T, H // 2]; halves, not pairs, as in Hugging Face."""
    cos, sin = cos[:, :, None, :], sin[:, :, None, :]
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)


def attend(queries: jax.Array, cache: LayerCache, mask: jax.Array) -> jax.Array:
    """Compute softmax attention to a cache: queries [B, T, N, H], cache [B, K, S, H], mask [B, T, S] -> [B, T, N * H].

    The G queries of a kv head are stacked along T, so K and V are never repeated and every product is one plain batched
    matmul: einsums over separate `k` and `g` axes run ten times slower in XLA on CPU.
    """
    B, T, N, H = queries.shape
    K, S = cache.keys.shape[1], cache.capacity
    grouped = queries.reshape(B, T, K, N // K, H).transpose(0, 2, 3, 1, 4).reshape(B, K, -1, H)
    scores = (_scores(grouped, cache) * (H**-0.5)).reshape(B, K, N // K, T, S)
    scores = jnp.where(mask[:, None, None], scores, jnp.finfo(jnp.float32).min)
    out = _mixed(jax.nn.softmax(scores, axis=-1).reshape(B, K, -1, S), cache, queries.dtype)
    out = out.reshape(B, K, N // K, T, H).transpose(0, 3, 1, 2, 4).reshape(B, T, N * H)
    return constrain(out, "batch", "length", "act_heads")


def attend_branches(queries: jax.Array, prefix: LayerCache, tails: LayerCache, masks: tuple) -> jax.Array:
    """Compute softmax attention of R branches a row, each to the prefix they share and to a tail of its own.

    queries [B, R, T, N, H]; prefix [B, K, S, H]; tails [B, K, R, C, H]; masks [B, R, T, S] and [B, R, T, C] ->
    [B, R, T, N * H]. The prefix is read once for all branches, and never copied.
    """
    B, R, T, N, H = queries.shape
    K, S = prefix.keys.shape[1], prefix.capacity
    by_head = queries.reshape(B, R, T, K, N // K, H).transpose(0, 3, 1, 4, 2, 5)  # [B, K, R, G, T, H]
    together, by_branch = by_head.reshape(B, K, -1, H), by_head.reshape(B, K, R, -1, H)

    parts = [x.reshape(*by_head.shape[:-1], -1) for x in (_scores(together, prefix), _scores(by_branch, tails))]
    mask = jnp.concatenate(masks, axis=-1)[:, None, :, None]
    scores = jnp.where(mask, jnp.concatenate(parts, axis=-1) * (H**-0.5), jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1)

    out = _mixed(weights[..., :S].reshape(B, K, -1, S), prefix, queries.dtype).reshape(by_head.shape)
    own_weights = weights[..., S:].reshape(*by_branch.shape[:-1], -1)
    out += _mixed(own_weights, tails, queries.dtype).reshape(by_head.shape)
    out = out.transpose(0, 2, 4, 1, 3, 5).reshape(B, R, T, N * H)
    return constrain(out, "batch", None, "length", "act_heads")


def _scores(queries: jax.Array, cache: LayerCache) -> jax.Array:
    """Multiply queries [..., Q, H] by the keys [..., S, H]: float32 [..., Q, S]."""
    keys = cache.keys.astype(queries.dtype)
    scores = jnp.einsum("...qh,...sh->...qs", queries, keys, preferred_element_type=jnp.float32)
    return scores if cache.key_scales is None else scores * cache.key_scales[..., None, :]


def _mixed(weights: jax.Array, cache: LayerCache, dtype: jnp.dtype) -> jax.Array:
    """Sum the values [..., S, H] by weights, float32 [..., Q, S]: [..., Q, H] in `dtype`."""
    if cache.value_scales is not None:
        weights *= cache.value_scales[..., None, :]
    return jnp.einsum("...qs,...sh->...qh", weights.astype(dtype), cache.values.astype(dtype))
