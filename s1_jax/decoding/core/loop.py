"""The decoding loop: one `lax.while_loop` that asks a controller, per row, "forced token or draw?" feeding it.

It knows no token ids, no model and no budget: `forward`, `draw` and the controller are arguments. Letters: B rows,
V vocabulary, C tokens a row can hold (prompt included, the capacity of the cache).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from s1_jax.sharding import constrain


class Controller(NamedTuple):
    """Decides what enters each row.

    `propose(control)` gives (forced bool [B], token [B], bias of the logits [B, V]); `advance(control, token [B])`
    gives the next control and an `Outcome`. `control.done` [B] tells which rows have ended; every array of `control` is
    [B].
    """

    propose: Callable[[Any], tuple[Array, Array, Array]]
    advance: Callable[[Any, Array], tuple[Any, Outcome]]


# (token [B], kind [B], feeds bool [B], dropped [B]): the last `dropped` tokens are taken back, out of the record and
# the cache; then the token is recorded unless its kind is 0, and fed to the model if `feeds`. What is fed and not
# recorded is the last token that stays, once more; this one where none stays.
Outcome = tuple[Array, Array, Array, Array]
SOUND = -1  # of `DecodeState.lost_at`
Draw = Callable[[Array, Array, Array, Any], Array]  # see `decode`


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DecodeState:
    """All that a decoding loop carries; it can stop at any step and go on later."""

    step: Array  # int32 []
    control: Any  # the controller's state, with `done` bool [B]
    cache: Any  # the model's state
    logits: Array  # float32 [B, V], after the last token fed
    position: Array  # int32 [B], where the next token goes in the cache
    tokens: Array  # int32 [B, C], recorded
    kinds: Array  # int32 [B, C], 0: nothing recorded
    num_tokens: Array  # int32 [B]
    num_accepted: Array  # int32 [B], of these, such as a draft had right; counted even where they were taken back
    lost_at: Array  # int32 [B], tokens recorded when the row went on from logits that are not finite; SOUND: never
    context: Array | None = None  # int32 [B, C], the token in each slot of the cache, where drafts are looked up


def start(control: Any, cache: Any, logits: Array, position: Array, capacity: int) -> DecodeState:
    """State after prefill: `logits` [B, V] follow the prompt, the next token goes to `position` [B]."""
    nothing = jnp.zeros((position.shape[0], capacity), jnp.int32)
    zero, zeros = jnp.zeros((), jnp.int32), jnp.zeros_like(position)
    return placed(DecodeState(zero, control, cache, logits, position, nothing, nothing, zeros, zeros, zeros + SOUND))


def placed(state: DecodeState) -> DecodeState:
    """The state with each row on the devices that hold its cache, which the model places.

    So whatever gives a state gives it in one and the same place, and nothing that takes it is compiled twice.
    """
    rows = dataclasses.replace(state, cache=None)
    rows = jax.tree.map(lambda x: constrain(x, "batch", *[None] * (x.ndim - 1)) if x.ndim else x, rows)
    return dataclasses.replace(rows, cache=state.cache)


def decode(
    forward: Callable[[Array, Array, Any], tuple[Array, Any]],
    draw: Draw,
    controller: Controller,
    state: DecodeState,
    stop_step: Array,
    stop_done: Array,
) -> DecodeState:
    """Runs until `stop_done` [] rows are done or `stop_step` [] is reached.

    `forward(token_ids [B, 1], positions [B, 1], cache)` gives logits [B, V] and the cache; `draw(logits [B, V],
    bias [B, V], index [B], control)` gives tokens [B], where index counts the tokens after the prompt. A row that
    feeds nothing keeps its logits: the model runs on a slot that its next token overwrites. Rows that are done, and
    have fed their last token, are fed at position C, behind the last slot, which must leave the cache as it is.
    """

    def step(state: DecodeState) -> DecodeState:
        control, outcome = next_token(draw, controller, state)
        token, _, feeds, _ = outcome
        position = jnp.where(control.done & ~feeds, state.tokens.shape[1], fed_at(state, outcome))
        logits, cache = forward(token[:, None], position[:, None], state.cache)
        state = dataclasses.replace(state, step=state.step + 1, cache=cache)
        return record(state, control, outcome, logits)

    return loop(step, state, stop_step, stop_done)


def loop(
    step: Callable[[DecodeState], DecodeState], state: DecodeState, stop_step: Array, stop_done: Array
) -> DecodeState:
    """Takes steps until `stop_done` [] rows are done or `stop_step` [] is reached."""

    def unfinished(state: DecodeState) -> Array:
        return (state.step < stop_step) & (jnp.sum(state.control.done) < stop_done)

    return jax.lax.while_loop(unfinished, lambda state: placed(step(state)), placed(state))


def next_token(draw: Draw, controller: Controller, state: DecodeState) -> tuple[Any, Outcome]:
    """What follows the logits at hand, as `advance` gives it."""
    forced, forced_token, bias = controller.propose(state.control)
    drawn = draw(state.logits, bias, state.num_tokens, state.control)
    control, (token, kind, feeds, dropped) = controller.advance(state.control, jnp.where(forced, forced_token, drawn))
    stays = state.num_tokens - dropped
    last = jnp.take_along_axis(state.tokens, jnp.maximum(stays - 1, 0)[:, None], axis=1)[:, 0]
    token = jnp.where(feeds & (kind == 0) & (stays > 0), last, token)
    return control, (token, kind, feeds, dropped)


def fed_at(state: DecodeState, outcome: Outcome) -> Array:
    """Where an outcome's token goes in the cache, int32 [B]."""
    _, kind, feeds, dropped = outcome
    return state.position - dropped - (feeds & (kind == 0))


def record(state: DecodeState, control: Any, outcome: Outcome, logits: Array) -> DecodeState:
    """The state after an outcome; `logits` [B, V] follow its token where that was fed."""
    token, kind, feeds, dropped = outcome
    rows = jnp.arange(token.shape[0])
    num_tokens = state.num_tokens - dropped
    slot = jnp.where(kind > 0, num_tokens, state.tokens.shape[1])  # out of range: dropped
    return dataclasses.replace(
        state,
        control=control,
        logits=jnp.where(feeds[:, None], logits, state.logits),
        position=fed_at(state, outcome) + feeds,
        tokens=state.tokens.at[rows, slot].set(token, mode="drop"),
        kinds=state.kinds.at[rows, slot].set(kind, mode="drop"),
        num_tokens=num_tokens + (kind > 0),
        lost_at=_lost_at(state),
    )


def _lost_at(state: DecodeState) -> Array:
    """`lost_at` after the step that the logits at hand decide. These are the model's own, without a bias that masks."""
    # the maximum is NaN where any is, infinite where any is +inf, and -inf where no token can be drawn
    lost = ~jnp.isfinite(jnp.max(state.logits, axis=-1)) & ~state.control.done
    return jnp.where(lost & (state.lost_at == SOUND), state.num_tokens, state.lost_at)
