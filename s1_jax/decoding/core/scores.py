"""Log-probabilities of recorded tokens in the model's raw distribution: before temperature, masks and biases.

A row keeps those of its last W tokens, which the host reads between two calls of the loop.

Letters: B rows, V vocabulary, W tokens that are kept, K likeliest tokens.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

KEPT = 64  # W: more than one call records, and than the tokens that wait until they are no end marker
LIKELIEST = 20  # K
NOTHING, OWN, WITH_LIKELIEST = range(3)  # values of `Scores.wanted`


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Scores:
    """The log-probabilities of each row's last W recorded tokens; that of token i is at i mod W."""

    wanted: Array  # int32 [B], NOTHING, OWN or WITH_LIKELIEST; what is not wanted means nothing
    own: Array  # float32 [B, W], of the token itself
    top_ids: Array  # int32 [B, W, K], the likeliest tokens, the likeliest first
    top: Array  # float32 [B, W, K], of these


def empty_scores(B: int, V: int) -> Scores:
    """Make the scores of B rows of which none are wanted, for a vocabulary of V tokens."""
    top = jnp.zeros((B, KEPT, min(LIKELIEST, V)), jnp.float32)
    return Scores(jnp.zeros((B,), jnp.int32), top[..., 0], top.astype(jnp.int32), top)


def add_scores(scores: Scores, logits: Array, token: Array, index: Array, recorded: Array) -> Scores:
    """Put in the scores of a token [B] that follows `logits` [B, V] and is recorded as token `index` [B] of its row.

    Rows where nothing is `recorded` [B] stay as they are. It costs nothing while no row wants any.
    """

    def of_token() -> Scores:
        rows, at = jnp.arange(len(token)), jnp.where(recorded, index % KEPT, KEPT)  # out of range: dropped
        own, top_ids, top = token_scores(logits, token, jnp.any(scores.wanted == WITH_LIKELIEST))
        return dataclasses.replace(
            scores,
            own=scores.own.at[rows, at].set(own, mode="drop"),
            top_ids=scores.top_ids.at[rows, at].set(top_ids, mode="drop"),
            top=scores.top.at[rows, at].set(top, mode="drop"),
        )

    return jax.lax.cond(jnp.any(recorded & (scores.wanted > NOTHING)), of_token, lambda: scores)


def token_scores(logits: Array, token: Array, likeliest: Array) -> tuple[Array, Array, Array]:
    """Give the log-probability [B] of each token [B], and the likeliest tokens [B, K] with theirs.

    Without `likeliest` [] the latter are zeros, as sorting a vocabulary takes long.
    """
    K = min(LIKELIEST, logits.shape[-1])
    logits = logits.astype(jnp.float32)
    total = jax.nn.logsumexp(logits, axis=-1)

    def highest() -> tuple[Array, Array]:
        values, ids = jax.lax.top_k(logits, K)
        return ids.astype(jnp.int32), values - total[:, None]

    def nothing() -> tuple[Array, Array]:
        return jnp.zeros((len(token), K), jnp.int32), jnp.zeros((len(token), K), jnp.float32)

    own = jnp.take_along_axis(logits, token[:, None], axis=1)[:, 0] - total
    return own, *jax.lax.cond(likeliest, highest, nothing)
