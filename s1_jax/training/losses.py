"""Next-token cross-entropy over packed rows, without ever holding all the logits."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from s1_jax.config import ModelConfig
from s1_jax.model.qwen2 import Params, hidden_states, logits
from s1_jax.sharding import constrain

LOGITS_CHUNK = 512  # positions of a row whose [V] float32 logits exist at one time

Batch = dict[str, jax.Array]  # token_ids, positions, segment_ids, targets [B, T] int32; weights [B, T] float32


def weighted_nll(
    config: ModelConfig, params: Params, batch: Batch, *, compute_dtype: jnp.dtype, remat: str
) -> jax.Array:
    """Sum over the batch of weights * -log p(target), a float32 scalar.

    The loader's weights make the sum over all micro-batches of a step its mean loss, by example or by token.
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
    T = hidden.shape[1]
    if T <= LOGITS_CHUNK:
        return _nll(config, params, hidden, batch["targets"], batch["weights"])

    def chunks(x: jax.Array) -> jax.Array:  # [B, T, ...] -> [chunks, B, LOGITS_CHUNK, ...]
        x = jnp.pad(x, [(0, 0), (0, -T % LOGITS_CHUNK)] + [(0, 0)] * (x.ndim - 2))
        return jnp.moveaxis(x.reshape(x.shape[0], -1, LOGITS_CHUNK, *x.shape[2:]), 1, 0)

    @jax.checkpoint
    def step(total: jax.Array, chunk: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        return total + _nll(config, params, *chunk), None

    total, _ = jax.lax.scan(
        step, jnp.zeros((), jnp.float32), (chunks(hidden), chunks(batch["targets"]), chunks(batch["weights"]))
    )
    return total


def _nll(config: ModelConfig, params: Params, hidden: jax.Array, targets: jax.Array, weights: jax.Array) -> jax.Array:
    scores = constrain(logits(config, params, hidden), "batch", "length", "act_vocab")
    # a masked sum, not a gather: the vocabulary may be sharded
    is_target = jax.lax.broadcasted_iota(jnp.int32, scores.shape, 2) == targets[:, :, None]
    target_score = jnp.sum(jnp.where(is_target, scores, 0.0), axis=-1)
    return jnp.sum(weights * (jax.nn.logsumexp(scores, axis=-1) - target_score))
