"""The loss and its gradients on one CPU, where reading and writing the scores costs most."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

CHUNK = 1024  # tokens whose [V] scores exist at one time


def loss_and_grads(
    hidden: jax.Array, head: jax.Array, targets: jax.Array, weights: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Sum weights * -log softmax(hidden @ head)[targets], with the gradients of hidden and head, all float32.

    hidden [B, T, D], head [D, V], targets and weights [B, T]. Scores lie [V, c], for Eigen's product with a
    transposed table of 150,000 rows is three times slower. The exponentials are never divided by their sum: that scales
    the tokens' h and gradients instead. What -log p takes from the target's own score touches one column of the head
    a token, beside all that; in bfloat16 that last difference would cancel.
    """
    D, V = head.shape
    table = head.T  # the embedding itself, where it is tied
    count = math.ceil(targets.size / CHUNK)
    size = math.ceil(targets.size / (8 * count)) * 8  # chunks as even as can be: what pads the last is computed too

    def chunks(x: jax.Array) -> jax.Array:
        x = x.reshape(targets.size, *x.shape[2:])
        x = jnp.pad(x, [(0, count * size - targets.size)] + [(0, 0)] * (x.ndim - 1))
        return x.reshape(count, size, *x.shape[1:])

    def add(
        carry: tuple[jax.Array, jax.Array], chunk: tuple[jax.Array, jax.Array, jax.Array]
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        total, to_table = carry
        h, target, weight = chunk
        scores = table @ h.T
        largest = scores.max(axis=0)
        exps = jnp.exp(scores - largest[None])
        sums = exps.sum(axis=0)
        own = table[target]
        nll = largest + jnp.log(sums) - jnp.sum(h * own, axis=-1)
        scale = weight / sums
        to_h = (table.T @ exps) * scale[None] - (weight[:, None] * own).T
        return (total + jnp.sum(weight * nll), to_table + exps @ (h * scale[:, None])), to_h

    zero = (jnp.zeros((), jnp.float32), jnp.zeros((V, D), jnp.float32))
    (total, to_table), to_hidden = jax.lax.scan(add, zero, (chunks(hidden), chunks(targets), chunks(weights)))
    to_hidden = to_hidden.transpose(0, 2, 1).reshape(-1, D)[: targets.size].reshape(hidden.shape)
    to_table = to_table.at[targets.reshape(-1)].add(-(hidden * weights[:, :, None]).reshape(-1, D))
    return total, to_hidden, to_table.T
