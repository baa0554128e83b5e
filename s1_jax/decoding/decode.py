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

    `propose(control)` gives (forced bool [B], token [B], allowed bool [B, V]); `advance(control, token [B])` gives the
    next control and (token [B], kind [B], feeds bool [B]): a token is recorded unless its kind is 0, and fed to the
    model if `feeds`.
    `control.done` [B] tells which rows have ended.
    """

    propose: Callable[[Any], tuple[Array, Array, Array]]
    advance: Callable[[Any, Array], tuple[Any, tuple[Array, Array, Array]]]


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


def start(control: Any, cache: Any, logits: Array, position: Array, capacity: int) -> DecodeState:
    """State after prefill: `logits` [B, V] follow the prompt, the next token goes to `position` [B]."""
    nothing = jnp.zeros((position.shape[0], capacity), jnp.int32)
    zero = jnp.zeros((), jnp.int32)
    return placed(DecodeState(zero, control, cache, logits, position, nothing, nothing, jnp.zeros_like(position)))


def placed(state: DecodeState) -> DecodeState:
    """The state with each row on the devices that hold its cache, which the model places.

    So whatever gives a state gives it in one and the same place, and nothing that takes it is compiled twice.
    """
    rows = dataclasses.replace(state, cache=None)
    rows = jax.tree.map(lambda x: constrain(x, "batch", *[None] * (x.ndim - 1)) if x.ndim else x, rows)
    return dataclasses.replace(rows, cache=state.cache)


def decode(
    forward: Callable[[Array, Array, Any], tuple[Array, Any]],
    draw: Callable[[Array, Array, Array], Array],
    controller: Controller,
    state: DecodeState,
    stop_step: Array,
    stop_done: Array,
) -> DecodeState:
    """Runs until `stop_done` [] rows are done or `stop_step` [] is reached.

    `forward(token_ids [B, 1], positions [B, 1], cache)` gives logits [B, V] and the cache; `draw(logits [B, V],
    allowed [B, V], index [B])` gives tokens [B], where index counts the tokens after the prompt. A row that feeds
    nothing keeps its logits: the model runs on a slot that its next token overwrites. Rows that are done are
    fed at position C, behind the last slot, which must leave the cache as it is.
    """
    rows = jnp.arange(state.position.shape[0])
    capacity = state.tokens.shape[1]

    def unfinished(state: DecodeState) -> Array:
        return (state.step < stop_step) & (jnp.sum(state.control.done) < stop_done)

    def step(state: DecodeState) -> DecodeState:
        forced, forced_token, allowed = controller.propose(state.control)
        drawn = draw(state.logits, allowed, state.num_tokens)
        control, (token, kind, feeds) = controller.advance(state.control, jnp.where(forced, forced_token, drawn))

        slot = jnp.where(kind > 0, state.num_tokens, capacity)  # out of range: dropped
        position = jnp.where(control.done, capacity, state.position)
        logits, cache = forward(token[:, None], position[:, None], state.cache)
        after = DecodeState(
            step=state.step + 1,
            control=control,
            cache=cache,
            logits=jnp.where(feeds[:, None], logits, state.logits),
            position=state.position + feeds,
            tokens=state.tokens.at[rows, slot].set(token, mode="drop"),
            kinds=state.kinds.at[rows, slot].set(kind, mode="drop"),
            num_tokens=state.num_tokens + (kind > 0),
        )
        return placed(after)

    return jax.lax.while_loop(unfinished, step, placed(state))
