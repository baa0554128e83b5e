"""Packed causal attention by plain matmuls, for CPU and GPU: in blocks of queries, with no scores kept.

Letters: B batch, T length, N query heads, K kv heads, G = N // K, H head_dim.
"""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from s1_jax.sharding import constrain

# Each block has scores of its own: with 8, causality saves 7/16 of them; more, or smaller ones, only compile longer.
QUERY_BLOCKS = 8
SMALLEST_BLOCK = 64


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def attend_packed(
    queries: jax.Array, keys: jax.Array, values: jax.Array, segment_ids: jax.Array, order: tuple[int, ...]
) -> jax.Array:
    """Compute causal attention within documents, [B, T, N * H].

    queries are [B, T, N, H], keys and values [B, T, K, H], segment_ids [B, T].

    Block by block of the queries, with the keys up to its last token; the backward pass makes the scores anew, so none
    is kept. The G queries of a kv head lie behind each other, as in `attend`. Slot t holds token `order[t]` of its row.
    """
    return _attend_forward(queries, keys, values, segment_ids, order)[0]


def _attend_forward(
    queries: jax.Array, keys: jax.Array, values: jax.Array, segment_ids: jax.Array, order: tuple[int, ...]
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    K = keys.shape[2]
    by_head = _by_kv_head(queries, K)
    k, v = (x.transpose(0, 2, 1, 3) for x in (keys, values))
    out, log_sums = [], []
    for rows, end, mask in _query_blocks(segment_ids, np.array(order), queries.shape[2] // K):
        scores = _scores(by_head[:, :, rows], k[:, :, :end], mask)
        largest = scores.max(axis=-1, keepdims=True)
        weights = jnp.exp(scores - largest)
        sums = weights.sum(axis=-1, keepdims=True)
        mixed = jnp.einsum("bkqs,bksh->bkqh", weights.astype(v.dtype), v[:, :, :end])
        out.append((mixed / sums).astype(v.dtype))
        log_sums.append(largest + jnp.log(sums))
    flat = _by_token(jnp.concatenate(out, axis=2), queries.shape).reshape(*queries.shape[:2], -1)
    flat = constrain(flat, "batch", "length", "act_heads")
    return flat, (queries, keys, values, segment_ids, flat, jnp.concatenate(log_sums, axis=2))


def _attend_backward(order: tuple[int, ...], kept: tuple[jax.Array, ...], grad: jax.Array) -> tuple:
    queries, keys, values, segment_ids, out, log_sums = kept
    K, scale = keys.shape[2], queries.shape[3] ** -0.5
    grad, out = grad.reshape(queries.shape), out.reshape(queries.shape)
    by_head, to_out = _by_kv_head(queries, K), _by_kv_head(grad, K)
    own = _by_kv_head(jnp.sum((grad * out).astype(jnp.float32), axis=-1, keepdims=True), K)
    k, v = (x.transpose(0, 2, 1, 3) for x in (keys, values))
    to_q, to_k, to_v = [], jnp.zeros(k.shape, jnp.float32), jnp.zeros(v.shape, jnp.float32)
    for rows, end, mask in _query_blocks(segment_ids, np.array(order), queries.shape[2] // K):
        q, to_mixed = by_head[:, :, rows], to_out[:, :, rows]
        weights = jnp.exp(_scores(q, k[:, :, :end], mask) - log_sums[:, :, rows])
        to_weights = jnp.einsum("bkqh,bksh->bkqs", to_mixed, v[:, :, :end], preferred_element_type=jnp.float32)
        to_scores = (weights * (to_weights - own[:, :, rows]) * scale).astype(q.dtype)
        to_q.append(jnp.einsum("bkqs,bksh->bkqh", to_scores, k[:, :, :end]))
        to_k = to_k.at[:, :, :end].add(jnp.einsum("bkqs,bkqh->bksh", to_scores, q))
        to_v = to_v.at[:, :, :end].add(jnp.einsum("bkqs,bkqh->bksh", weights.astype(v.dtype), to_mixed))
    to_k, to_v = (x.transpose(0, 2, 1, 3).astype(keys.dtype) for x in (to_k, to_v))
    return _by_token(jnp.concatenate(to_q, axis=2), queries.shape), to_k, to_v, None


attend_packed.defvjp(_attend_forward, _attend_backward)


def _query_blocks(segment_ids: jax.Array, order: np.ndarray, G: int) -> list[tuple[slice, int, jax.Array]]:
    """Of each block its rows in [T * G], the slot behind the last key it may see, and its mask [B, 1, rows, end]."""
    T = len(order)
    size = max(SMALLEST_BLOCK, math.ceil(T / QUERY_BLOCKS))
    blocks = []
    for start in range(0, T, size):
        slots = slice(start, min(start + size, T))
        end = int(np.flatnonzero(order <= order[slots].max()).max()) + 1
        same = segment_ids[:, slots, None] == segment_ids[:, None, :end]
        mask = jnp.repeat(same & (order[None, slots, None] >= order[None, None, :end]), G, axis=1)[:, None]
        blocks.append((slice(slots.start * G, slots.stop * G), end, mask))
    return blocks


def _scores(queries: jax.Array, keys: jax.Array, mask: jax.Array) -> jax.Array:
    scores = jnp.einsum("bkqh,bksh->bkqs", queries, keys, preferred_element_type=jnp.float32)
    return jnp.where(mask, scores * (queries.shape[-1] ** -0.5), jnp.finfo(jnp.float32).min)


def _by_kv_head(x: jax.Array, K: int) -> jax.Array:
    """[B, T, N, H] -> [B, K, T * G, H]."""
    B, T, N, H = x.shape
    return x.reshape(B, T, K, N // K, H).transpose(0, 2, 1, 3, 4).reshape(B, K, -1, H)


def _by_token(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """[B, K, T * G, H] -> [B, T, N, H]."""
    return x.reshape(*x.shape[:2], shape[1], -1, shape[3]).transpose(0, 2, 1, 3, 4).reshape(shape)
