"""The budget controller: what each row of a batch does next, forced token or draw, and what a drawn token leads to.

Budget forcing (s1, arXiv 2501.19393, section 3.1) as a state machine over integer arrays, one step of it per step of
the decoding loop. Nothing here knows of models or loops. All limits are arrays, so changing them never recompiles.

    THINKING --end token, no ignores left--> SUFFIX (natural) --> ANSWER --stop token or limit--> DONE
    THINKING --maximum or end of context---> SUFFIX (forced)  --> ANSWER     a grace: at the maximum or, some tokens
                                                                             later, at the first end of a line
    THINKING --end token, ignores left-----> the token is dropped, an ignore string follows, THINKING goes on

Letters: B rows, V vocabulary, A strings of a rotation, W tokens of an ignore string, X tokens of a suffix.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

NO_LIMIT = 2**30  # larger than any context, and still an int32 after additions


class Phase(enum.IntEnum):
    """Where a row is."""

    THINKING, SUFFIX, ANSWER, DONE = range(4)


class Kind(enum.IntEnum):
    """What a token is; IGNORE (the ignore string's) and REDRAWN (drawn in place of a dropped end) are thinking too."""

    NONE, THINKING, IGNORE, SUFFIX, ANSWER, STOP, REDRAWN = range(7)


THOUGHT = (Kind.THINKING, Kind.IGNORE, Kind.REDRAWN)
IS_THOUGHT = np.isin(np.arange(len(Kind)), THOUGHT)  # by kind


class End(enum.IntEnum):
    """How thinking ended."""

    NONE, NATURAL, FORCED, CONTEXT = range(4)


class AnswerEnd(enum.IntEnum):
    """How the answer ended."""

    NONE, STOP, LENGTH, CONTEXT = range(4)


class Suffix(enum.IntEnum):
    """What follows thinking: rows of `Markers.suffixes`."""

    NATURAL, FORCED, NEWLINE_FORCED = range(3)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Markers:
    """What the controller has to know of a tokenizer."""

    is_end: Array  # bool [V], an end of thinking
    is_stop: Array  # bool [V], an end of the answer
    is_known: Array  # bool [V], the tokenizer has this id (embeddings are padded beyond)
    is_newline: Array  # bool [V], the token's text ends in a newline
    suffixes: Array  # int32 [3, X], see Suffix
    suffix_lengths: Array  # int32 [3]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Budget:
    """The limits of each row."""

    min_thinking_tokens: Array  # int32 [B]
    max_thinking_tokens: Array  # int32 [B], NO_LIMIT: none
    grace_tokens: Array  # int32 [B], more that thinking may take until a line ends
    num_ignore: Array  # int32 [B]
    ignore_ids: Array  # int32 [B, A, W], a rotation: the i-th ignore takes string i mod ignore_count
    ignore_lengths: Array  # int32 [B, A], 0: an empty string
    ignore_count: Array  # int32 [B], at least 1
    context_limit: Array  # int32 [B], thinking tokens after which forced suffix and answer would no longer fit
    max_answer_tokens: Array  # int32 [B]
    max_new_tokens: Array  # int32 [B], tokens the cache can take after prompt and start marker
    forcing: Array  # bool [B], False: the model writes on alone


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BudgetState:
    """What the controller remembers of each row."""

    phase: Array  # int32 [B], Phase
    num_thinking: Array  # int32 [B]
    num_answer: Array  # int32 [B]
    ignores_used: Array  # int32 [B]
    ignore_position: Array  # int32 [B], next token of the ignore string being fed, 0: none is
    after_ignore: Array  # bool [B], the next draw is the first after an ignore string
    last_is_newline: Array  # bool [B], the text of the last thinking token ends in a newline
    suffix: Array  # int32 [B], Suffix
    suffix_position: Array  # int32 [B]
    end: Array  # int32 [B], End
    answer_end: Array  # int32 [B], AnswerEnd

    @property
    def done(self) -> Array:
        """bool [B]."""
        return self.phase == Phase.DONE


class Proposal(NamedTuple):
    """What each row does next: `token` if `forced`, else a draw from `allowed`."""

    forced: Array  # bool [B]
    token: Array  # int32 [B]
    allowed: Array  # bool [B, V]


class Outcome(NamedTuple):
    """What a step brought: a token to record unless its kind is NONE, and to feed to the model if `feeds`."""

    token: Array  # int32 [B]
    kind: Array  # int32 [B], Kind
    feeds: Array  # bool [B]


def empty_state(B: int) -> BudgetState:
    """State of B rows with nothing to do."""
    zeros, false = jnp.zeros((B,), jnp.int32), jnp.zeros((B,), bool)
    return BudgetState(zeros + Phase.DONE, zeros, zeros, zeros, zeros, false, false, zeros, zeros, zeros, zeros)


def initial_state(budget: Budget, markers: Markers, active: Array) -> BudgetState:
    """State after prompt and start marker; rows not `active` [B] are done from the start."""
    phase = jnp.where(active, Phase.THINKING, Phase.DONE).astype(jnp.int32)
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
        last_is_newline=last_is_newline,
        suffix=jnp.where(end == End.NATURAL, Suffix.NATURAL, after_cut).astype(jnp.int32),
        end=end,
    )
    return _settle(budget, markers, state)


def feed_suffix(budget: Budget, markers: Markers, state: BudgetState) -> tuple[BudgetState, Array, Array]:
    """Rows that stand at the beginning of their suffix, brought to its end at once.

    Gives the state after it and the suffixes' tokens and kinds [B, X], kind 0 behind the end of each.
    """

    def step(state: BudgetState, _: None) -> tuple[BudgetState, tuple[Array, Array]]:
        feeding = (state.phase == Phase.SUFFIX) & budget.forcing
        after, outcome = advance(budget, markers, state, propose(budget, markers, state).token)
        state = jax.tree.map(lambda new, old: jnp.where(feeding, new, old), after, state)
        return state, (outcome.token, jnp.where(feeding, outcome.kind, Kind.NONE))

    state, (tokens, kinds) = jax.lax.scan(step, state, length=markers.suffixes.shape[1])
    return state, tokens.T, kinds.T


def propose(budget: Budget, markers: Markers, state: BudgetState) -> Proposal:
    """What each row does next.

    Draws never give an id unknown to the tokenizer; while thinking is below its minimum, and on the first draw after an
    ignore string, no end token either.
    """
    in_ignore = _in_ignore_string(state)
    in_suffix = (state.phase == Phase.SUFFIX) & budget.forcing
    token = jnp.where(in_ignore, _ignore_token(budget, state), _suffix_token(markers, state))
    no_end = (state.phase == Phase.THINKING) & budget.forcing
    no_end &= (state.num_thinking < budget.min_thinking_tokens) | state.after_ignore
    allowed = markers.is_known & ~(no_end[:, None] & markers.is_end)
    return Proposal(in_ignore | in_suffix | state.done, token, allowed)


def advance(budget: Budget, markers: Markers, state: BudgetState, token: Array) -> tuple[BudgetState, Outcome]:
    """Takes the token [B] that `propose` forced or that was drawn; returns the next state and what happened.

    A dropped end token brings the ignore string's first token in the same step (none for an empty string: the same
    position is drawn again), and a natural end the suffix's first.
    """
    in_ignore = _in_ignore_string(state)
    drawing = (state.phase == Phase.THINKING) & ~in_ignore
    in_suffix = state.phase == Phase.SUFFIX
    alone = ~budget.forcing
    redrawn = drawing & state.after_ignore & (_ignore_length(budget, state) == 0)

    ending = drawing & budget.forcing & markers.is_end[token]
    ignored = ending & (state.ignores_used < budget.num_ignore)
    natural = ending & ~ignored
    own_marker = drawing & alone & (token == markers.suffixes[Suffix.NATURAL, 0])
    leaves_marker = in_suffix & alone & (token != _suffix_token(markers, state))
    answering = (state.phase == Phase.ANSWER) | leaves_marker
    stopping = (answering | (drawing & alone)) & markers.is_stop[token]

    used = state.ignores_used + ignored
    state = dataclasses.replace(state, ignores_used=used, ignore_position=jnp.where(ignored, 0, state.ignore_position))
    feeds_ignore = in_ignore | (ignored & (_ignore_length(budget, state) > 0))
    token = jnp.where(feeds_ignore, _ignore_token(budget, state), token)
    token = jnp.where(natural, markers.suffixes[Suffix.NATURAL, 0], token)

    kind = jnp.select(
        [
            state.done,
            stopping,
            feeds_ignore,
            ignored,
            natural | own_marker | (in_suffix & ~leaves_marker),
            answering,
            redrawn,
        ],
        [Kind.NONE, Kind.STOP, Kind.IGNORE, Kind.NONE, Kind.SUFFIX, Kind.ANSWER, Kind.REDRAWN],
        Kind.THINKING,
    ).astype(jnp.int32)

    thought = (kind == Kind.THINKING) | (kind == Kind.IGNORE) | (kind == Kind.REDRAWN)
    ignore_position = jnp.where(feeds_ignore, state.ignore_position + 1, 0)
    phase = jnp.select(
        [stopping, leaves_marker, natural | own_marker], [Phase.DONE, Phase.ANSWER, Phase.SUFFIX], state.phase
    )
    ends = natural | own_marker | (stopping & drawing)
    state = dataclasses.replace(
        state,
        phase=phase.astype(jnp.int32),
        num_thinking=state.num_thinking + thought,
        num_answer=state.num_answer + (kind == Kind.ANSWER),
        ignore_position=jnp.where(ignore_position < _ignore_length(budget, state), ignore_position, 0),
        after_ignore=in_ignore | ignored,
        last_is_newline=jnp.where(thought, markers.is_newline[token], state.last_is_newline),
        suffix_position=state.suffix_position + (kind == Kind.SUFFIX),
        end=jnp.where(ends, End.NATURAL, state.end),
        answer_end=jnp.where(stopping, AnswerEnd.STOP, state.answer_end),
    )
    feeds = (kind != Kind.NONE) & (kind != Kind.STOP)
    return _settle(budget, markers, state), Outcome(token, kind, feeds)


def _settle(budget: Budget, markers: Markers, state: BudgetState) -> BudgetState:
    """Ends whatever has reached its limit, in the order in which limits win at a tie."""
    thinking = (state.phase == Phase.THINKING) & budget.forcing
    passed = state.num_thinking - budget.max_thinking_tokens
    forced = thinking & (passed >= jnp.where(state.last_is_newline, 0, budget.grace_tokens))
    cut = forced | (thinking & (state.num_thinking >= budget.context_limit))
    end = jnp.where(forced, End.FORCED, jnp.where(cut, End.CONTEXT, state.end))
    after_cut = jnp.where(state.last_is_newline, Suffix.FORCED, Suffix.NEWLINE_FORCED)
    suffix = jnp.where(cut, after_cut, state.suffix)
    phase = jnp.where(cut, Phase.SUFFIX, state.phase)

    phase = jnp.where(
        (phase == Phase.SUFFIX) & (state.suffix_position >= markers.suffix_lengths[suffix]), Phase.ANSWER, phase
    )
    too_long = (phase == Phase.ANSWER) & (state.num_answer >= budget.max_answer_tokens)
    phase = jnp.where(too_long, Phase.DONE, phase)
    new_tokens = state.num_thinking + state.suffix_position + state.num_answer
    full = (phase != Phase.DONE) & (new_tokens >= budget.max_new_tokens)
    answer_end = jnp.where(too_long, AnswerEnd.LENGTH, jnp.where(full, AnswerEnd.CONTEXT, state.answer_end))
    return dataclasses.replace(
        state,
        phase=jnp.where(full, Phase.DONE, phase).astype(jnp.int32),
        suffix=suffix.astype(jnp.int32),
        end=jnp.where(full & (phase == Phase.THINKING), End.CONTEXT, end).astype(jnp.int32),
        answer_end=answer_end.astype(jnp.int32),
    )


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
