"""Log-likelihoods of continuations, in batches of similar lengths, so that few programs are compiled.

Letters: B rows, T tokens of the longest (bucketed), K scored positions of a batch, D hidden_size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from s1_jax.config import ModelConfig
from s1_jax.decoding.device.programs import Program, bucket
from s1_jax.decoding.host.results import NOT_FINITE
from s1_jax.decoding.loaded_model import LoadedModel
from s1_jax.errors import RunError, UserError
from s1_jax.model import transformer
from s1_jax.sharding import to_host

BATCH_TOKENS = 16384  # B x T, or one row
CHUNK = 64  # positions whose [V] float32 logits exist at one time; T is a multiple of it, or below it


class Pair(NamedTuple):
    """Token ids of a context and of its continuation, neither of them empty."""

    context: Sequence[int]
    continuation: Sequence[int]


class Score(NamedTuple):
    """How likely the model finds a continuation."""

    log_likelihood: float  # natural logarithm, summed over its tokens
    is_greedy: bool  # whether each token is the most likely one


class _Row(NamedTuple):
    inputs: tuple[int, ...]
    pairs: list[int]  # indices of the pairs that are scored on this row


class Scorer:
    """Scorer of pairs under one model; short ones are computed `batch_size` rows at a time."""

    def __init__(self, model: LoadedModel, batch_size: int, max_length: int) -> None:
        self._model, self._batch_size, self._max_length = model, batch_size, max_length
        self._program = Program(partial(score_positions, model.config, model.dtype), (model.params,), model.layout)

    @property
    def num_compiled(self) -> int:
        """Number of programs that have been compiled."""
        return self._program.num_compiled

    def score(self, pairs: Sequence[Pair]) -> Iterator[tuple[int, Score]]:
        """Yield the index and the score of each pair, longest first.

        A context that is too long loses its beginning. Raises UserError on a continuation longer than `max_length`, and
        RunError naming the first pair of a batch whose log-likelihood is not finite.
        """
        for pair in pairs:
            if len(pair.continuation) > self._max_length:
                raise UserError(
                    f"a continuation of {len(pair.continuation)} tokens is longer than max_length {self._max_length}"
                )
        for rows in self._batches(pairs):
            yield from self._score(rows, pairs)

    def _batches(self, pairs: Sequence[Pair]) -> Iterator[list[_Row]]:
        """Yield the rows of each batch, longest first; pairs that differ only in their last token share a row."""
        inputs = [(*p.context, *p.continuation)[:-1][-self._max_length :] for p in pairs]
        rows: list[_Row] = []
        positions = size = T = 0
        for i in sorted(range(len(pairs)), key=lambda i: (-len(inputs[i]), inputs[i])):
            shares = bool(rows) and rows[-1].inputs == inputs[i]
            if rows and ((len(rows) == size and not shares) or positions + len(pairs[i].continuation) > size * T):
                yield rows
                rows, positions, shares = [], 0, False
            if not rows:
                T = bucket(len(inputs[i]), self._max_length)
                size = self._rows(T)
            if shares:
                rows[-1].pairs.append(i)
            else:
                rows.append(_Row(inputs[i], [i]))
            positions += len(pairs[i].continuation)
        if rows:
            yield rows

    def _rows(self, T: int) -> int:
        return self._model.rows(max(1, min(self._batch_size, BATCH_TOKENS // T)))

    def _score(self, rows: Sequence[_Row], pairs: Sequence[Pair]) -> Iterator[tuple[int, Score]]:
        T = bucket(len(rows[0].inputs), self._max_length)
        B = self._rows(T)
        token_ids, lengths = np.zeros((B, T), np.int32), np.zeros(B, np.int32)
        scored: list[tuple[int, int, int]] = []  # row, position, next token
        for b, row in enumerate(rows):
            token_ids[b, : len(row.inputs)], lengths[b] = row.inputs, len(row.inputs)
            for i in row.pairs:
                continuation = pairs[i].continuation
                first = len(row.inputs) - len(continuation)
                scored += [(b, first + n, token) for n, token in enumerate(continuation)]
        K = -(-B * T // CHUNK) * CHUNK
        where = np.zeros((3, K), np.int32)
        where[:, : len(scored)] = np.asarray(scored).T
        log_probs, is_best = to_host(self._program(token_ids, lengths, *where, np.int32(len(scored))))
        at = 0
        for row in rows:
            for i in row.pairs:
                here = slice(at, at := at + len(pairs[i].continuation))
                if len(lost := np.flatnonzero(~np.isfinite(log_probs[here]))):
                    said = f"the model's log-likelihood is not finite at step {lost[0] + 1}"
                    raise RunError(f"request {i}: {said}; {NOT_FINITE}")
                yield i, Score(float(log_probs[here].sum(dtype=np.float64)), bool(is_best[here].all()))


def score_positions(
    config: ModelConfig,
    dtype: Any,
    params: transformer.Params,
    token_ids: jax.Array,
    lengths: jax.Array,
    rows: jax.Array,
    positions: jax.Array,
    targets: jax.Array,
    count: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Return log-probabilities float32 [K] of the `targets` [K] that follow `positions` [K] in `rows` [K].

    The second result [K] says whether each target is the most likely token there. `token_ids` [B, T] are right-padded
    rows of `lengths` [B]. Only the first `count` [] of the K are computed.
    """
    B, T = token_ids.shape
    all_positions = jnp.broadcast_to(jnp.arange(T), (B, T))
    real = (all_positions < lengths[:, None]).astype(jnp.int32)
    hidden = transformer.hidden_states(config, params, token_ids, all_positions, real, compute_dtype=dtype)

    def chunk(i: jax.Array, found: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        some = i * CHUNK + jnp.arange(CHUNK)
        logits = transformer.logits(config, params, hidden[rows[some], positions[some]])
        at_target = jnp.take_along_axis(logits, targets[some, None], axis=1)[:, 0]
        log_prob = at_target - jax.nn.logsumexp(logits, axis=1)
        best = jnp.argmax(logits, axis=1) == targets[some]
        return found[0].at[some].set(log_prob), found[1].at[some].set(best)

    nothing = jnp.zeros(rows.shape, jnp.float32), jnp.zeros(rows.shape, bool)
    return jax.lax.fori_loop(0, -(-count // CHUNK), chunk, nothing)
