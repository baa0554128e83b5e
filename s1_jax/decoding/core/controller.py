"""The budget controller: what each row of a batch does next, forced token or draw, and what a drawn token leads to.

Budget forcing (s1, arXiv 2501.19393, section 3.1) as a state machine over integer arrays, one step of it per step of
the decoding loop. Nothing here knows of models or loops. All limits are arrays, so changing them never recompiles.

    THINKING --end marker, no ignores left--> SUFFIX (natural) --> ANSWER --stop token or limit--> DONE
    THINKING --maximum or end of context----> SUFFIX (forced)  --> ANSWER     a grace: at the maximum or, some tokens
                                                                              later, at the first end of a line
    THINKING --end marker, ignores left-----> the marker is dropped, an ignore string follows, THINKING goes on
    without thinking, a row begins at ANSWER
    without forcing, a row at its maximum of thinking, or at its limit of all tokens, is DONE; nothing is put in

An end stands where its marker begins, also a marker of several tokens: it is no end below the minimum, and none at the
maximum. So thinking that reaches its maximum within what may become a marker is only cut once that is known, and what
was drawn behind the place of the end or of the cut is taken back.

Letters: B rows, V vocabulary, A strings of a rotation, W tokens of an ignore string, X tokens of a suffix, E end
markers.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from s1_jax.decoding.core.budget import NO_LIMIT, AnswerEnd, Budget, BudgetState, End, Kind, Phase, Suffix, empty_state
from s1_jax.decoding.core.end_markers import PLACES, Markers, begun, bits_of_row, first_and_last, follow, whole


class Proposal(NamedTuple):
    """What each row does next: `token` if `forced`, else a draw."""

    forced: Array  # bool [B]
    token: Array  # int32 [B]
    bias: Array  # float32 [B, V], added to the logits; -inf: never drawn


class Outcome(NamedTuple):
    """What a step brought: a token to record unless its kind is NONE, and to feed to the model if `feeds`.

    Before that, the last `dropped` tokens recorded and fed are taken back. What is fed and not recorded is the last
    token of those that stay, once more, for the sake of what follows it; this one where none stays.
    """

    token: Array  # int32 [B]
    kind: Array  # int32 [B], Kind
    feeds: Array  # bool [B]
    dropped: Array  # int32 [B]


def initial_state(budget: Budget, markers: Markers, active: Array) -> BudgetState:
    """State after prompt and start marker; rows not `active` [B] are done from the start."""
    first = jnp.where(budget.thinking, Phase.THINKING, Phase.ANSWER)
    phase = jnp.where(active, first, Phase.DONE).astype(jnp.int32)
    return _settle(budget, markers, dataclasses.replace(empty_state(len(active)), phase=phase))


def branch_state(
    budget: Budget, markers: Markers, num_thinking: Array, end: Array, last_is_newline: Array, active: Array
) -> BudgetState:
    """State of rows whose thinking [B] tokens long has just ended as `end` [B] says; what follows is the suffix."""
    after_cut = jnp.where(last_is_newline, Suffix.FORCED, Suffix.NEWLINE_FORCED)
    state = dataclasses.replace(
        empty_state(len(active)),
        phase=jnp.where(active, Phase.SUFFIX, Phase.DONE).astype(jnp.int32),
        num_thinking=num_thinking,
        newlines=last_is_newline.astype(jnp.uint32),
        suffix=jnp.where(end == End.NATURAL, Suffix.NATURAL, after_cut).astype(jnp.int32),
        end=end,
    )
    return _settle(budget, markers, state)


def feed_suffix(budget: Budget, markers: Markers, state: BudgetState) -> tuple[BudgetState, Array, Array]:
    """Rows that stand at the beginning of their suffix, brought to its end at once.

    Gives the state after it and the suffixes' tokens and kinds [B, X], kind 0 behind the end of each.
    """

    def step(state: BudgetState, _: None) -> tuple[BudgetState, tuple[Array, Array]]:
        feeding = state.phase == Phase.SUFFIX
        after, outcome = advance(budget, markers, state, propose(budget, markers, state).token)
        state = jax.tree.map(lambda new, old: jnp.where(feeding, new, old), after, state)
        return state, (outcome.token, jnp.where(feeding, outcome.kind, Kind.NONE))

    state, (tokens, kinds) = jax.lax.scan(step, state, length=markers.suffixes.shape[1])
    return state, tokens.T, kinds.T


def propose(budget: Budget, markers: Markers, state: BudgetState) -> Proposal:
    """What each row does next.

    Draws never give an id unknown to the tokenizer, and never complete an end marker that begins below the minimum of
    thinking or right behind an ignore string.
    """
    in_ignore = _in_ignore_string(state)
    token = jnp.where(in_ignore, _ignore_token(budget, state), _suffix_token(markers, state))
    return Proposal(in_ignore | (state.phase == Phase.SUFFIX) | state.done, token, _bias(budget, markers, state))


def advance(budget: Budget, markers: Markers, state: BudgetState, token: Array) -> tuple[BudgetState, Outcome]:
    """Takes the token [B] that `propose` forced or that was drawn; returns the next state and what happened.

    A dropped end marker brings the ignore string's first token in the same step (none for an empty string: the same
    position is drawn again), and a natural end or a cut that waited the suffix's first.
    """
    in_ignore = _in_ignore_string(state)
    drawing = (state.phase == Phase.THINKING) & ~in_ignore
    answering = state.phase == Phase.ANSWER
    redrawn = drawing & _after_ignore(state) & (_ignore_length(budget, state) == 0)

    written = follow(markers, state.written, token)
    marker = jnp.where(drawing, whole(budget, markers, written), 0)
    ending = (marker > 0) & (state.num_thinking - (marker - 1) < state.cut_at)
    ignored = ending & budget.forcing & (state.ignores_used < budget.num_ignore)
    natural = ending & budget.forcing & ~ignored
    own = ending & ~budget.forcing
    stopping = (answering | (drawing & ~budget.forcing)) & markers.is_stop[token]
    behind_cut = state.num_thinking - state.cut_at  # tokens
    goes_on = (marker == 0) & (begun(budget, markers, written) > behind_cut + 1)
    cut = drawing & (state.cut_at < NO_LIMIT) & ~ending & ~goes_on
    leaves = natural | cut
    dropped = jnp.where(natural | ignored, marker - 1, jnp.where(cut, behind_cut, 0))

    state = dataclasses.replace(
        state,
        ignores_used=state.ignores_used + ignored,
        ignore_position=jnp.where(ignored, 0, state.ignore_position),
        suffix=jnp.where(natural, Suffix.NATURAL, state.suffix).astype(jnp.int32),
    )
    feeds_ignore = in_ignore | (ignored & (_ignore_length(budget, state) > 0))
    fed_again = ignored & ~feeds_ignore & (dropped > 0)
    token = jnp.where(feeds_ignore, _ignore_token(budget, state), token)
    token = jnp.where(leaves, _suffix_token(markers, state), token)
    token = jnp.where(fed_again, budget.start_token, token)

    kind = jnp.select(
        [
            state.done,
            stopping,
            feeds_ignore,
            ignored,
            leaves | own | (state.phase == Phase.SUFFIX),
            answering,
            redrawn,
        ],
        [Kind.NONE, Kind.STOP, Kind.IGNORE, Kind.NONE, Kind.SUFFIX, Kind.ANSWER, Kind.REDRAWN],
        Kind.THINKING,
    ).astype(jnp.int32)

    thought = (kind == Kind.THINKING) | (kind == Kind.IGNORE) | (kind == Kind.REDRAWN)
    ignore_position = jnp.where(feeds_ignore, state.ignore_position + 1, 0)
    newlines = state.newlines >> dropped.astype(jnp.uint32)
    end = jnp.where(natural | own | (stopping & drawing), End.NATURAL, jnp.where(ignored, End.NONE, state.end))
    phase = jnp.select([stopping, leaves, own], [Phase.DONE, Phase.SUFFIX, Phase.ANSWER], state.phase)
    state = dataclasses.replace(
        state,
        phase=phase.astype(jnp.int32),
        num_thinking=state.num_thinking - dropped - jnp.where(own, marker - 1, 0) + thought,
        num_answer=state.num_answer + (kind == Kind.ANSWER),
        ignore_position=jnp.where(ignore_position < _ignore_length(budget, state), ignore_position, 0),
        written=jnp.where(in_ignore | ignored, 0, jnp.where(thought, written, state.written)),
        drawn=jnp.where(in_ignore | ignored, 0, state.drawn + thought),
        cut_at=jnp.where(ending | cut, NO_LIMIT, state.cut_at),
        newlines=jnp.where(thought, newlines * 2 + markers.is_newline[token], newlines),
        suffix_position=state.suffix_position + jnp.where(own, marker, kind == Kind.SUFFIX),
        own_marker=jnp.where(own, marker, state.own_marker),
        end=end.astype(jnp.int32),
        answer_end=jnp.where(stopping, AnswerEnd.STOP, state.answer_end),
    )
    feeds = fed_again | ((kind != Kind.NONE) & (kind != Kind.STOP))
    return _settle(budget, markers, state), Outcome(token, kind, feeds, dropped.astype(jnp.int32))


def _settle(budget: Budget, markers: Markers, state: BudgetState) -> BudgetState:
    """Ends whatever has reached its limit, in the order in which limits win at a tie."""
    free = (state.phase == Phase.THINKING) & ~budget.forcing
    thinking = (state.phase == Phase.THINKING) & budget.forcing & (state.cut_at == NO_LIMIT)
    passed = state.num_thinking - budget.max_thinking_tokens
    forced = thinking & (passed >= jnp.where(state.last_is_newline, 0, budget.grace_tokens))
    cut = forced | (thinking & (state.num_thinking >= budget.context_limit))
    waits = cut & (begun(budget, markers, state.written) > 0)
    at_maximum = free & (passed >= 0)  # what may become the answer's marker counts, as long as it is not whole
    end = jnp.where(forced | at_maximum, End.FORCED, jnp.where(cut, End.CONTEXT, state.end))
    after_cut = jnp.where(state.last_is_newline, Suffix.FORCED, Suffix.NEWLINE_FORCED)
    suffix = jnp.where(cut, after_cut, state.suffix)
    phase = jnp.where(cut & ~waits, Phase.SUFFIX, jnp.where(at_maximum, Phase.DONE, state.phase))

    phase = jnp.where(
        (phase == Phase.SUFFIX) & (state.suffix_position >= markers.suffix_lengths[suffix]), Phase.ANSWER, phase
    )
    too_long = (phase == Phase.ANSWER) & (state.num_answer >= budget.max_answer_tokens)
    new_tokens = state.num_thinking + state.suffix_position + state.num_answer
    spent = (phase != Phase.DONE) & ~budget.forcing & (new_tokens >= budget.max_free_tokens)
    end = jnp.where(spent & (phase == Phase.THINKING), End.LENGTH, end)
    phase = jnp.where(too_long | spent, Phase.DONE, phase)
    full = (phase != Phase.DONE) & (new_tokens >= budget.max_new_tokens)
    answer_end = jnp.where(too_long | spent, AnswerEnd.LENGTH, jnp.where(full, AnswerEnd.CONTEXT, state.answer_end))
    return dataclasses.replace(
        state,
        phase=jnp.where(full, Phase.DONE, phase).astype(jnp.int32),
        cut_at=jnp.where(waits, state.num_thinking, state.cut_at),
        suffix=suffix.astype(jnp.int32),
        end=jnp.where(full & (phase == Phase.THINKING), End.CONTEXT, end).astype(jnp.int32),
        answer_end=answer_end.astype(jnp.int32),
    )


def _bias(budget: Budget, markers: Markers, state: BudgetState) -> Array:
    """See Proposal. Of each end marker, the token that comes next is wished for, and the last may be barred."""
    thinking = (state.phase == Phase.THINKING) & budget.forcing
    first, last = first_and_last(markers)
    before_last = markers.end_lengths - 1
    lacks_last = (before_last == 0) | (state.written[:, None] & last // 2 != 0)
    early = state.num_thinking[:, None] - before_last < budget.min_thinking_tokens[:, None]
    early |= (state.ignores_used[:, None] > 0) & (state.drawn[:, None] == before_last)
    of_row = bits_of_row(budget, markers)
    barred = jnp.where(thinking[:, None] & lacks_last & early, last, 0).sum(axis=1, dtype=jnp.uint32) & of_row
    parts = state.written[:, None] & (last * 2 - first)  # of each marker
    longest = jnp.uint32(1) << (PLACES - 1 - jax.lax.clz(parts))
    following = jnp.where(parts == 0, first, longest * 2).sum(axis=1, dtype=jnp.uint32) & of_row
    used = state.num_thinking / jnp.maximum(budget.max_thinking_tokens, 1)
    wish = jnp.where(thinking, budget.end_bias * used, 0.0)
    bias = jnp.where(markers.places & following[:, None] != 0, wish[:, None], 0.0)
    return jnp.where(markers.is_known & (markers.places & barred[:, None] == 0), bias, -jnp.inf)


def _after_ignore(state: BudgetState) -> Array:
    """Whether the next draw is the first after an ignored end and its string."""
    return (state.ignores_used > 0) & (state.drawn == 0)


def _in_ignore_string(state: BudgetState) -> Array:
    return (state.phase == Phase.THINKING) & (state.ignore_position > 0)


def _ignore_length(budget: Budget, state: BudgetState) -> Array:
    rows = jnp.arange(state.phase.shape[0])
    return budget.ignore_lengths[rows, _ignore_index(budget, state)]


def _ignore_token(budget: Budget, state: BudgetState) -> Array:
    rows = jnp.arange(state.phase.shape[0])
    return budget.ignore_ids[rows, _ignore_index(budget, state), state.ignore_position]


def _ignore_index(budget: Budget, state: BudgetState) -> Array:
    return jnp.maximum(state.ignores_used - 1, 0) % budget.ignore_count


def _suffix_token(markers: Markers, state: BudgetState) -> Array:
    return markers.suffixes[state.suffix, jnp.minimum(state.suffix_position, markers.suffixes.shape[1] - 1)]
