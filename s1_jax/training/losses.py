"""Next-token cross-entropy over packed rows, without ever holding all the logits.

The gradients of the hidden states and of the output head are made in the forward pass, chunk by chunk, while the
chunk's logits are at hand: nothing waits for the backward pass, and no logit is computed twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from s1_jax.chips import LANES
from s1_jax.config import ModelConfig
from s1_jax.model.transformer import Params, bind, hidden_states
from s1_jax.sharding import (
    RESIDUAL,
    Layout,
    current_layout,
    is_sharded,
    platform,
    shard_over,
    sum_scatter,
)
from s1_jax.training import loss_on_cpu

HEAD = ("head_embed", "vocab")  # logical axes of the output head [D, V]
LOGITS_CHUNK = 1024  # tokens whose [V] float32 logits exist at one time, for each device

Chunk = tuple[jax.Array, ...]  # of tokens: hidden [c, D], targets [c], weights [c]
Batch = dict[str, jax.Array]  # token_ids, positions, segment_ids, targets [B, T] int32; weights [B, T] float32


def weighted_nll(
    config: ModelConfig, params: Params, batch: Batch, *, compute_dtype: jnp.dtype, remat: str
) -> jax.Array:
    """Sum weights * -log p(target) over the batch, a float32 scalar.

    The loader's weights make the sum over all micro-batches of a step its mean loss, by example or by token. The rows
    are as `sharding.place_rows` puts them on the mesh.
    """
    hidden = hidden_states(
        config,
        params,
        batch["token_ids"],
        batch["positions"],
        batch["segment_ids"],
        compute_dtype=compute_dtype,
        remat=remat,
    )
    return head_nll(hidden, bind(config, params).head, batch["targets"], batch["weights"])


@jax.custom_vjp
def head_nll(hidden: jax.Array, head: jax.Array, targets: jax.Array, weights: jax.Array) -> jax.Array:
    """Sum weights * -log softmax(hidden @ head)[targets], a float32 scalar.

    hidden [B, T, D], head [D, V], targets and weights [B, T].
    The gradient of `head` is summed, over tokens and over devices, in float32; `weights` are constants.
    """
    return _on_mesh(_loss, ())(hidden, head, targets, weights)


def _forward(hidden: jax.Array, head: jax.Array, targets: jax.Array, weights: jax.Array) -> tuple[jax.Array, Any]:
    if not is_sharded() and platform() == "cpu" and hidden.dtype == head.dtype == jnp.float32:
        loss, *grads = loss_on_cpu.loss_and_grads(hidden, head, targets, weights)
    else:
        loss, *grads = _on_mesh(_loss_and_grads, ((), RESIDUAL, HEAD))(hidden, head, targets, weights)
    return loss, grads


def _backward(grads: list[jax.Array], grad: jax.Array) -> tuple[jax.Array, jax.Array, None, None]:
    to_hidden, to_head = grads
    return (to_hidden * grad).astype(to_hidden.dtype), to_head * grad, None, None


head_nll.defvjp(_forward, _backward)


def _on_mesh(function: Callable, outputs: Any) -> Callable:
    """Let every device of the mesh in use run `function` on its tokens and its columns of the head."""
    layout = current_layout()
    if layout is None or not is_sharded():
        return partial(function, None)
    return shard_over(layout, partial(function, layout), (RESIDUAL, HEAD, RESIDUAL[:2], RESIDUAL[:2]), outputs)


def _loss(
    layout: Layout | None, hidden: jax.Array, head: jax.Array, targets: jax.Array, weights: jax.Array
) -> jax.Array:
    columns = _columns(layout, head, hidden.dtype)

    def add(total: jax.Array, chunk: Chunk) -> tuple[jax.Array, None]:
        h, target, weight = _everyones(layout, chunk)
        nll, _ = _nll(layout, h, columns, target)
        return total + jnp.sum(weight * nll), None

    total, _ = jax.lax.scan(add, jnp.zeros((), jnp.float32), _chunks(hidden, targets, weights))
    return _sum(total, layout, "batch")


def _loss_and_grads(
    layout: Layout | None, hidden: jax.Array, head: jax.Array, targets: jax.Array, weights: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    columns = _columns(layout, head, hidden.dtype)

    def add(carry: tuple[jax.Array, jax.Array], chunk: Chunk) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        total, to_head = carry
        h, target, weight = _everyones(layout, chunk)
        nll, to_scores = _nll(layout, h, columns, target)
        to_scores = (to_scores * weight[:, None]).astype(h.dtype)
        to_head += jnp.matmul(h.T, to_scores, preferred_element_type=jnp.float32)
        to_h = jnp.matmul(to_scores, columns.T, preferred_element_type=jnp.float32)
        if layout is not None:
            to_h = sum_scatter(layout, to_h, layout.axes("vocab"), 0)
        return (total + jnp.sum(weight * nll), to_head), to_h.astype(hidden.dtype)

    zero = (jnp.zeros((), jnp.float32), jnp.zeros(columns.shape, jnp.float32))
    (total, to_head), to_hidden = jax.lax.scan(add, zero, _chunks(hidden, targets, weights))
    to_hidden = to_hidden.reshape(-1, hidden.shape[-1])[: targets.size].reshape(hidden.shape)
    if layout is not None:
        to_head = sum_scatter(layout, to_head, layout.axes("head_embed"), 0)
        to_head = jax.lax.psum(to_head, [a for a in layout.axes("batch") if a not in layout.axes("head_embed")])
    return _sum(total, layout, "batch"), to_hidden, to_head.astype(head.dtype)


def _columns(layout: Layout | None, head: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Return the columns of the whole head that this device has, [D, v], in the compute type."""
    head = head.astype(dtype)
    return head if layout is None else jax.lax.all_gather(head, layout.axes("head_embed"), axis=0, tiled=True)


def _chunks(hidden: jax.Array, targets: jax.Array, weights: jax.Array) -> Chunk:
    """Cut the tokens of this device into even chunks, [chunks, c, ...]; padding in the last one has weight 0."""
    tokens = targets.size
    even = math.ceil(tokens / math.ceil(tokens / LOGITS_CHUNK))
    size = min(LOGITS_CHUNK, tokens, even + -even % LANES)

    def cut(x: jax.Array) -> jax.Array:
        x = x.reshape(tokens, *x.shape[2:])
        return jnp.pad(x, [(0, -tokens % size)] + [(0, 0)] * (x.ndim - 1)).reshape(-1, size, *x.shape[1:])

    return cut(hidden), cut(targets), cut(weights)


def _everyones(layout: Layout | None, chunk: Chunk) -> Chunk:
    """Gather the chunks of all devices among which the vocabulary is sharded: they hold other tokens and columns."""
    if layout is None:
        return chunk
    return tuple(jax.lax.all_gather(x, layout.axes("vocab"), axis=0, tiled=True) for x in chunk)


def _nll(layout: Layout | None, h: jax.Array, columns: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return -log p(target) [c] of h [c, D], and its gradient by the scores [c, v] of this device."""
    scores = jnp.matmul(h, columns, preferred_element_type=jnp.float32)
    largest = scores.max(axis=-1)
    first = jnp.int32(0)
    if layout is not None:
        largest = jax.lax.pmax(largest, layout.axes("vocab"))
        first = jax.lax.axis_index(layout.axes("vocab")) * columns.shape[1]
    exps = jnp.exp(scores - largest[:, None])
    total = _sum(exps.sum(axis=-1), layout, "vocab")
    # a masked sum, not a gather: the target may be another device's
    is_target = jax.lax.broadcasted_iota(jnp.int32, scores.shape, 1) + first == targets[:, None]
    target = _sum(jnp.sum(jnp.where(is_target, scores, 0.0), axis=-1), layout, "vocab")
    return largest + jnp.log(total) - target, exps / total[:, None] - is_target


def _sum(x: jax.Array, layout: Layout | None, name: str) -> jax.Array:
    return x if layout is None else jax.lax.psum(x, layout.axes(name))
