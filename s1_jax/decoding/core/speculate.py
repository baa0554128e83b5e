"""Speculative decoding (arXiv 2211.17192) by prompt lookup (Saxena 2023): several tokens from one pass of the model.

A pass reads a row's next token and a draft of what may follow: what followed where the row's last tokens stood before.
Behind it the controller takes its steps as in `decode`, and goes on for as long as what it wants fed is what the draft
had fed. Draws are a function of a token's place, so nothing is resampled: the tokens are those of `decode`, for sampled
rows too, but where two are as good as equal. What a draft leaves in the cache behind the tokens kept is overwritten
before it is seen.

Letters: B rows, V vocabulary, C tokens a row can hold, D tokens of a draft.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from s1_jax.decoding.core.loop import Controller, DecodeState, Draw, fed_at, loop, next_token, record

NGRAM = 3  # of a row's last tokens so many are searched for, or else as many of them as are found


def decode_speculatively(
    forward: Callable[[Array, Array, Any], tuple[Array, Any]],
    draw: Draw,
    controller: Controller,
    D: int,
    state: DecodeState,
    stop_step: Array,
    stop_done: Array,
) -> DecodeState:
    """`decode` with drafts of D tokens; a step is a pass, which may bring a row 1 + D tokens to feed.

    `forward(token_ids [B, 1 + D], positions [B, 1 + D], cache)` gives logits [B, 1 + D, V] and the cache. A position
    past C - 1 must leave the cache as it is. `state.context` holds the prompts; behind a row's last token it may hold
    anything, as the cache does.
    """
    B, C = state.tokens.shape
    rows = jnp.arange(B)

    def step(state: DecodeState) -> DecodeState:
        control, outcome = next_token(draw, controller, state)
        token, _, feeds, _ = outcome
        assert state.context is not None
        position = jnp.where(control.done, C, fed_at(state, outcome))
        context = state.context.at[rows, position].set(token, mode="drop")
        draft = foresee(controller, control, look_up(context, position + 1, D))

        positions = position[:, None] + jnp.arange(1 + D)
        context = context.at[rows[:, None], positions[:, 1:]].set(draft, mode="drop")
        token_ids = jnp.concatenate([token[:, None], jnp.maximum(draft, 0)], axis=1)
        logits, cache = forward(token_ids, positions, state.cache)
        # without the cache, which the loop over places would only carry through
        state = dataclasses.replace(state, step=state.step + 1, cache=(), context=context)
        state = accept(draft, logits, feeds, record(state, control, outcome, logits[:, 0]))
        return dataclasses.replace(state, cache=cache)

    def accept(draft: Array, logits: Array, feeds: Array, state: DecodeState) -> DecodeState:
        """Steps of the controller of rows that have fed [B], through the places of the draft [B, D]."""

        def more(carry: tuple[Array, Array, DecodeState]) -> Array:
            place, going, _ = carry
            return (place < D) & going.any()

        def step(carry: tuple[Array, Array, DecodeState]) -> tuple[Array, Array, DecodeState]:
            place, going, state = carry
            control, (token, kind, feeds, dropped) = next_token(draw, controller, state)
            # others take this step again, before their next pass
            going &= (dropped == 0) & (~feeds | (token == draft[:, place]))
            control = jax.tree.map(lambda new, old: jnp.where(going, new, old), control, state.control)
            kind, feeds = jnp.where(going, kind, 0), going & feeds
            state = record(state, control, (token, kind, feeds, jnp.zeros_like(dropped)), logits[:, place + 1])
            state = dataclasses.replace(state, num_accepted=state.num_accepted + (kind > 0))
            return place + 1, feeds, state

        _, _, state = jax.lax.while_loop(more, step, (jnp.zeros((), jnp.int32), feeds, state))
        return state

    return loop(step, state, stop_step, stop_done)


def look_up(context: Array, lengths: Array, D: int) -> Array:
    """The D tokens that followed the row's last ones where they stood before, or -1; int32 [B, D].

    Searched are the first `lengths` [B] tokens of `context` [B, C]. The longest match of up to NGRAM tokens counts, of
    several the latest. A draft that comes to the row's end goes on at its own beginning: repetitions go on.
    """
    places, last = jnp.arange(context.shape[1]), lengths - 1
    same = places < last[:, None]
    matched = jnp.zeros(context.shape, jnp.int32)
    for back in range(NGRAM):
        token = jnp.take_along_axis(context, jnp.maximum(last - back, 0)[:, None], axis=1)
        same &= (jnp.roll(context, back, axis=1) == token) & (places >= back)
        matched += same
    best = jnp.argmax(matched * len(places) + places, axis=1)
    behind = best[:, None] + 1 + jnp.arange(D) % jnp.maximum(last - best, 1)[:, None]
    found = matched.any(axis=1, keepdims=True)
    return jnp.where(found, jnp.take_along_axis(context, jnp.where(found, behind, 0), axis=1), -1)


def foresee(controller: Controller, control: Any, guesses: Array) -> Array:
    """What would be fed if the draws were `guesses` [B, D]: the same, but where the controller forces another; [B, D].

    So an ignore string or a suffix costs a pass, not one a token.
    """

    def step(control: Any, guess: Array) -> tuple[Any, Array]:
        forced, forced_token, _ = controller.propose(control)
        control, outcome = controller.advance(control, jnp.where(forced, forced_token, guess))
        return control, outcome[0]

    _, tokens = jax.lax.scan(step, control, guesses.T)
    return tokens.T
