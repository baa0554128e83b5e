"""The decoding loop: one `lax.while_loop` that asks a controller, for each row, "forced token or sampled token?".

It knows neither token ids nor a model nor a budget: `forward`, `sample` and the controller are arguments.

Letters: B rows, V vocabulary, C tokens that a row can hold (prompt included, the capacity of the cache).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from s1_jax.decoding.core.scores import Scores, add_scores
from s1_jax.sharding import constrain


class Proposal(NamedTuple):
    """The next token of each row: `token` where `forced`, else one that is sampled."""

    forced: Array  # bool [B]
    token: Array  # int32 [B]
    bias: Array  # float32 [B, V], added to the logits; -inf: never sampled


class Outcome(NamedTuple):
    """The effect of one step: the token is recorded unless its kind is 0, and fed to the model if `feeds`.

    Before that, the last `dropped` tokens are taken back, out of the record and the cache. A token that is fed and not
    recorded repeats the last token that stays, for the sake of the logits after it; where none stays it is `token`.
    """

    token: Array  # int32 [B]
    kind: Array  # int32 [B]
    feeds: Array  # bool [B]
    dropped: Array  # int32 [B]


class Controller(NamedTuple):
    """Two functions over a state of the controller's own, which decide what enters each row.

    Every array of that state is [B, ...], and its `done` [B] tells which rows have ended. `advance` takes the tokens
    [B] that were forced or sampled.
    """

    propose: Callable[[Any], Proposal]
    advance: Callable[[Any, Array], tuple[Any, Outcome]]


Sample = Callable[[Array, Array, Array, Any], Array]  # see `decode`
ALL_FINITE = -1  # value of `DecodeState.lost_at`


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DecodeState:
    """Everything that a decoding loop carries; it can stop at any step and be resumed later."""

    step: Array  # int32 []
    controller_state: Any  # with `done` bool [B]
    cache: Any  # the model's state
    logits: Array  # float32 [B, V], after the last token fed
    position: Array  # int32 [B], cache position of the next token
    tokens: Array  # int32 [B, C], recorded
    kinds: Array  # int32 [B, C], 0: nothing recorded
    num_tokens: Array  # int32 [B], tokens recorded
    num_accepted: Array  # int32 [B], tokens recorded because a draft had them right; taken back ones count too
    lost_at: Array  # int32 [B], num_tokens when the logits were first not finite; ALL_FINITE: never
    context: Array | None = None  # int32 [B, C], the token at each cache position, where drafts are looked up
    scores: Scores | None = None  # None: no log-probabilities are kept


def start(controller_state: Any, cache: Any, logits: Array, position: Array, capacity: int) -> DecodeState:
    """Make the state after prefill: `logits` [B, V] follow the prompt, and the next token goes to `position` [B]."""
    nothing = jnp.zeros((position.shape[0], capacity), jnp.int32)
    zero, zeros = jnp.zeros((), jnp.int32), jnp.zeros_like(position)
    return shard_rows(
        DecodeState(zero, controller_state, cache, logits, position, nothing, nothing, zeros, zeros, zeros + ALL_FINITE)
    )


def shard_rows(state: DecodeState) -> DecodeState:
    """Lay each row on the devices that hold its cache, which the model shards.

    Every function that gives a state calls this, so a state is always sharded alike and nothing that takes one is
    compiled twice.
    """
    rows = dataclasses.replace(state, cache=None)
    rows = jax.tree.map(lambda x: constrain(x, "batch", *[None] * (x.ndim - 1)) if x.ndim else x, rows)
    return dataclasses.replace(rows, cache=state.cache)


def decode(
    forward: Callable[[Array, Array, Any], tuple[Array, Any]],
    sample: Sample,
    controller: Controller,
    state: DecodeState,
    stop_step: Array,
    stop_done: Array,
) -> DecodeState:
    """Run until `stop_done` [] rows are done or `stop_step` [] is reached.

    `forward(token_ids [B, 1], positions [B, 1], cache)` gives logits [B, V] and the cache. `sample(logits [B, V],
    bias [B, V], index [B], controller_state)` gives tokens [B], where index counts the tokens after the prompt. A row
    that feeds nothing keeps its logits: the model writes to a cache position that its next token overwrites. A row
    that is done, and has fed its last token, is fed at position C, after the cache, which must leave it as it is.
    """

    def step(state: DecodeState) -> DecodeState:
        controller_state, outcome = next_token(sample, controller, state)
        position = jnp.where(controller_state.done & ~outcome.feeds, state.tokens.shape[1], position_of(state, outcome))
        logits, cache = forward(outcome.token[:, None], position[:, None], state.cache)
        state = dataclasses.replace(state, step=state.step + 1, cache=cache)
        return record(state, controller_state, outcome, logits)

    return loop(step, state, stop_step, stop_done)


def loop(
    step: Callable[[DecodeState], DecodeState], state: DecodeState, stop_step: Array, stop_done: Array
) -> DecodeState:
    """Take steps until `stop_done` [] rows are done or `stop_step` [] is reached."""

    def unfinished(state: DecodeState) -> Array:
        return (state.step < stop_step) & (jnp.sum(state.controller_state.done) < stop_done)

    return jax.lax.while_loop(unfinished, lambda state: shard_rows(step(state)), shard_rows(state))


def choose(condition: Array, one: Any, other: Any) -> Any:
    """Take the rows of `one` where the `condition` [B] holds, else those of `other`; both are trees of [B, ...]."""

    def rows(x: Array, y: Array) -> Array:
        return jnp.where(condition.reshape(-1, *(1,) * (x.ndim - 1)), x, y)

    return jax.tree.map(rows, one, other)


def next_token(sample: Sample, controller: Controller, state: DecodeState) -> tuple[Any, Outcome]:
    """Decide what follows the logits at hand: the controller's next state and the outcome."""
    forced, forced_token, bias = controller.propose(state.controller_state)
    sampled = sample(state.logits, bias, state.num_tokens, state.controller_state)
    token = jnp.where(forced, forced_token, sampled)
    controller_state, (token, kind, feeds, dropped) = controller.advance(state.controller_state, token)
    stays = state.num_tokens - dropped
    last = jnp.take_along_axis(state.tokens, jnp.maximum(stays - 1, 0)[:, None], axis=1)[:, 0]
    token = jnp.where(feeds & (kind == 0) & (stays > 0), last, token)
    return controller_state, Outcome(token, kind, feeds, dropped)


def position_of(state: DecodeState, outcome: Outcome) -> Array:
    """Find the cache position of an outcome's token, int32 [B]."""
    return state.position - outcome.dropped - (outcome.feeds & (outcome.kind == 0))


def record(state: DecodeState, controller_state: Any, outcome: Outcome, logits: Array) -> DecodeState:
    """Put an outcome into the state; `logits` [B, V] follow its token where that was fed."""
    token, kind, feeds, dropped = outcome
    rows = jnp.arange(token.shape[0])
    num_tokens = state.num_tokens - dropped
    index = jnp.where(kind > 0, num_tokens, state.tokens.shape[1])  # out of range: dropped
    scores = state.scores
    if scores is not None:
        scores = add_scores(scores, state.logits, token, num_tokens, kind > 0)
    return dataclasses.replace(
        state,
        controller_state=controller_state,
        logits=jnp.where(feeds[:, None], logits, state.logits),
        position=position_of(state, outcome) + feeds,
        tokens=state.tokens.at[rows, index].set(token, mode="drop"),
        kinds=state.kinds.at[rows, index].set(kind, mode="drop"),
        num_tokens=num_tokens + (kind > 0),
        lost_at=_lost_at(state),
        scores=scores,
    )


def _lost_at(state: DecodeState) -> Array:
    """Give `lost_at` after the step that reads the logits at hand, which are the model's own, without a bias."""
    # the maximum is NaN where any is, infinite where any is +inf, and -inf where no token can be sampled
    lost = ~jnp.isfinite(jnp.max(state.logits, axis=-1)) & ~state.controller_state.done
    return jnp.where(lost & (state.lost_at == ALL_FINITE), state.num_tokens, state.lost_at)
