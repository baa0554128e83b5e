"""Speculative decoding (arXiv 2211.17192) by prompt lookup (Saxena 2023): several tokens from one pass of the model.

A pass reads a row's next token and a draft of the tokens that may follow: those that followed an earlier occurrence of
the row's last tokens. After the pass the controller takes its steps as in `decode`, for as long as the token it wants
fed is the one that the draft had fed. A sampled token is a function of its position, so nothing is resampled. The
tokens are those of `decode`, for sampled rows too, except where two tokens tie within rounding. The cache entries of
rejected draft tokens are overwritten before anything reads them.

Letters: B rows, V vocabulary, C tokens that a row can hold, J tokens of a draft.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from s1_jax.decoding.core.loop import (
    Controller,
    DecodeState,
    Outcome,
    Sample,
    choose,
    loop,
    next_token,
    position_of,
    record,
)

NGRAM = 3  # the most of a row's last tokens that are searched for


def decode_speculatively(
    forward: Callable[[Array, Array, Any], tuple[Array, Any]],
    sample: Sample,
    controller: Controller,
    J: int,
    state: DecodeState,
    stop_step: Array,
    stop_done: Array,
) -> DecodeState:
    """Run as `decode` does, with drafts of J tokens; one step is one pass, which feeds a row up to 1 + J tokens.

    `forward(token_ids [B, 1 + J], positions [B, 1 + J], cache)` gives logits [B, 1 + J, V] and the cache. A position
    past C - 1 must leave the cache as it is. `state.context` holds the prompts; after a row's last token it may hold
    anything, as the cache does.
    """
    B, C = state.tokens.shape
    rows = jnp.arange(B)

    def step(state: DecodeState) -> DecodeState:
        controller_state, outcome = next_token(sample, controller, state)
        assert state.context is not None
        position = jnp.where(controller_state.done, C, position_of(state, outcome))
        context = state.context.at[rows, position].set(outcome.token, mode="drop")
        draft = foresee(controller, controller_state, look_up(context, position + 1, J))

        positions = position[:, None] + jnp.arange(1 + J)[None]
        context = context.at[rows[:, None], positions[:, 1:]].set(draft, mode="drop")
        token_ids = jnp.concatenate([outcome.token[:, None], jnp.maximum(draft, 0)], axis=1)
        logits, cache = forward(token_ids, positions, state.cache)
        # without the cache, which the loop over the draft would only carry through
        state = dataclasses.replace(state, step=state.step + 1, cache=(), context=context)
        state = accept(draft, logits, outcome.feeds, record(state, controller_state, outcome, logits[:, 0]))
        return dataclasses.replace(state, cache=cache)

    def accept(draft: Array, logits: Array, feeds: Array, state: DecodeState) -> DecodeState:
        """Take the controller's steps along the draft [B, J], for the rows that have fed their token [B]."""

        def more(carry: tuple[Array, Array, DecodeState]) -> Array:
            index, going, _ = carry
            return (index < J) & going.any()

        def step(carry: tuple[Array, Array, DecodeState]) -> tuple[Array, Array, DecodeState]:
            index, going, state = carry
            after, (token, kind, feeds, dropped) = next_token(sample, controller, state)
            # the other rows take this step again, before their next pass
            going &= (dropped == 0) & (~feeds | (token == draft[:, index]))
            after = choose(going, after, state.controller_state)
            kind, feeds = jnp.where(going, kind, 0), going & feeds
            state = record(state, after, Outcome(token, kind, feeds, jnp.zeros_like(dropped)), logits[:, index + 1])
            state = dataclasses.replace(state, num_accepted=state.num_accepted + (kind > 0))
            return index + 1, feeds, state

        _, _, state = jax.lax.while_loop(more, step, (jnp.zeros((), jnp.int32), feeds, state))
        return state

    return loop(step, state, stop_step, stop_done)


def look_up(context: Array, lengths: Array, J: int) -> Array:
    """Find the J tokens that followed an earlier occurrence of each row's last tokens, or -1; int32 [B, J].

    The first `lengths` [B] tokens of `context` [B, C] are searched. The longest match of up to NGRAM tokens wins, and
    the latest of equally long ones. A draft that reaches the end of the row continues at its own beginning, so that
    repetitions are drafted in full.
    """
    indices, last = jnp.arange(context.shape[1])[None], lengths - 1
    same = indices < last[:, None]
    matched = jnp.zeros(context.shape, jnp.int32)
    for back in range(NGRAM):
        token = jnp.take_along_axis(context, jnp.maximum(last - back, 0)[:, None], axis=1)
        same &= (jnp.roll(context, back, axis=1) == token) & (indices >= back)
        matched += same
    best = jnp.argmax(matched * indices.size + indices, axis=1)
    following = best[:, None] + 1 + jnp.arange(J)[None] % jnp.maximum(last - best, 1)[:, None]
    found = matched.any(axis=1, keepdims=True)
    return jnp.where(found, jnp.take_along_axis(context, jnp.where(found, following, 0), axis=1), -1)


def foresee(controller: Controller, controller_state: Any, guesses: Array) -> Array:
    """Replace the `guesses` [B, J] by the controller's forced tokens where it would force one; int32 [B, J].

    So an ignore string or a suffix costs one pass of the model, instead of one for each token.
    """

    def step(controller_state: Any, guess: Array) -> tuple[Any, Array]:
        forced, forced_token, _ = controller.propose(controller_state)
        controller_state, outcome = controller.advance(controller_state, jnp.where(forced, forced_token, guess))
        return controller_state, outcome.token

    _, tokens = jax.lax.scan(step, controller_state, guesses.T)
    return tokens.T
