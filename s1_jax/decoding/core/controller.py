"""The budget controller decides what each row of a batch does next, and what follows from a token that was sampled.

It is budget forcing (s1, arXiv 2501.19393, section 3.1) as a state machine over integer arrays, which takes one step
for each step of the decoding loop. It knows neither the model nor the loop.

    THINKING --end marker, no ignores left--> SUFFIX (natural) --> ANSWER --stop token or limit--> DONE
    THINKING --maximum or end of context----> SUFFIX (forced)  --> ANSWER
    THINKING --end marker, ignores left-----> the marker is dropped, an ignore string follows, THINKING continues

A grace moves the cut from the maximum to the first end of a line after it, or to the end of the grace. A row without
thinking begins at ANSWER. Notices are appended to the thinking where it has a certain length, but not between the
tokens of an end marker, nor right after an ignored end. Thinking that repeats itself is cut as at its maximum, for a
reason of its own. A row without forcing is DONE at its maximum of thinking or at its limit of all tokens, and
nothing is inserted.

An end stands where its marker begins, also where the marker has several tokens. It does not count below the minimum
nor at the maximum. So where thinking reaches its maximum within the beginning of a marker, the cut waits until it is
known whether the marker is completed. The tokens sampled after the end or the cut are then taken back.

Letters: B rows, V vocabulary, X tokens of a suffix.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from s1_jax.decoding.core.budget import (
    IS_THOUGHT,
    LONGEST_PERIOD,
    NO_LIMIT,
    NO_TOKEN,
    AnswerEnd,
    Budget,
    BudgetState,
    End,
    Kind,
    Phase,
    Suffix,
    empty_state,
)
from s1_jax.decoding.core.end_markers import Markers, begun, follow, next_tokens, whole
from s1_jax.decoding.core.loop import Controller, Outcome, Proposal, choose


def budget_controller(budget: Budget, markers: Markers) -> Controller:
    """Make the controller of rows under these budgets, for the loop to call."""
    return Controller(
        propose=lambda state: propose(budget, markers, state),
        advance=lambda state, token: advance(budget, markers, state, token),
    )


def initial_state(budget: Budget, markers: Markers, active: Array) -> BudgetState:
    """Make the state after prompt, start marker and given thinking; rows that are not `active` [B] are done.

    The given thinking is not searched for repetitions or the beginning of an end marker.
    """
    first, given = jnp.where(budget.thinking, Phase.THINKING, Phase.ANSWER), budget.given_tokens
    state = dataclasses.replace(
        empty_state(len(active)),
        phase=jnp.where(active, first, Phase.DONE).astype(jnp.int32),
        num_thinking=given,
        num_sampled=given,
        newlines=(budget.given_newline & (given > 0)).astype(jnp.uint32),
        notices_used=(budget.notice_at < given[:, None]).sum(axis=1, dtype=jnp.int32),
    )
    return _settle(budget, markers, state)


def branch_state(
    budget: Budget, markers: Markers, num_thinking: Array, end: Array, last_is_newline: Array, active: Array
) -> BudgetState:
    """Make the state of rows whose thinking, `num_thinking` [B] tokens long, has just ended for the reason `end` [B].

    Their suffix follows. Rows that are not `active` [B] are done.
    """
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
    """Bring rows that stand at the beginning of their suffix to its end at once.

    Gives the state after it, and the tokens and kinds of the suffixes [B, X], with kind 0 after the end of each.
    """

    def step(state: BudgetState, _: None) -> tuple[BudgetState, tuple[Array, Array]]:
        feeding = state.phase == Phase.SUFFIX
        after, outcome = advance(budget, markers, state, propose(budget, markers, state).token)
        state = choose(feeding, after, state)
        return state, (outcome.token, jnp.where(feeding, outcome.kind, Kind.NONE))

    state, (tokens, kinds) = jax.lax.scan(step, state, length=markers.suffixes.shape[1])
    return state, tokens.T, kinds.T


def propose(budget: Budget, markers: Markers, state: BudgetState) -> Proposal:
    """Decide what each row does next: a forced token, or a sampled one with this bias of the logits.

    No id is sampled that the tokenizer does not know, no banned word while thinking, and no token that completes an end
    marker which begins below the minimum of thinking or right after an ignore string.
    """
    in_ignore, in_notice = _in_ignore_string(state), _in_notice(budget, markers, state)
    token = jnp.where(in_ignore, _ignore_token(budget, state), _suffix_token(markers, state))
    notice = jnp.take_along_axis(_of_notice(budget.notice_ids, state), state.notice_position[:, None], axis=1)[:, 0]
    token = jnp.where(in_notice, notice, token)
    forced = in_ignore | in_notice | (state.phase == Phase.SUFFIX) | state.done
    return Proposal(forced, token, _bias(budget, markers, state))


def advance(budget: Budget, markers: Markers, state: BudgetState, token: Array) -> tuple[BudgetState, Outcome]:
    """Take the token [B] that `propose` forced or that was sampled, and give the next state and what happened.

    An ignored end marker brings the first token of the ignore string in the same step. For an empty string it brings
    none, and the same position is sampled again. A natural end, or a cut that waited, brings the first token of the
    suffix.
    """
    in_ignore, in_notice = _in_ignore_string(state), _in_notice(budget, markers, state)
    sampling = (state.phase == Phase.THINKING) & ~in_ignore & ~in_notice
    answering = state.phase == Phase.ANSWER
    resampled = sampling & _after_ignore(state) & (_ignore_length(budget, state) == 0)

    marker_bits = follow(markers, state.marker_bits, token)
    marker = jnp.where(sampling, whole(budget, markers, marker_bits), 0)  # tokens of the marker that is now complete
    ending = (marker > 0) & (state.num_thinking - (marker - 1) < state.cut_at)
    ignored = ending & budget.forcing & (state.ignores_used < budget.num_ignore)
    natural = ending & budget.forcing & ~ignored
    own = ending & ~budget.forcing
    stopping = (answering | (sampling & ~budget.forcing)) & markers.is_stop[token]
    past_cut = state.num_thinking - state.cut_at  # tokens
    may_complete = (marker == 0) & (begun(budget, markers, marker_bits) > past_cut + 1)
    cut = sampling & (state.cut_at < NO_LIMIT) & ~ending & ~may_complete
    leaves = natural | cut
    dropped = jnp.where(natural | ignored, marker - 1, jnp.where(cut, past_cut, 0))

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
            in_notice,
            feeds_ignore,
            ignored,
            leaves | own | (state.phase == Phase.SUFFIX),
            answering,
            resampled,
        ],
        [Kind.NONE, Kind.STOP, Kind.NOTICE, Kind.IGNORE, Kind.NONE, Kind.SUFFIX, Kind.ANSWER, Kind.RESAMPLED],
        Kind.THINKING,
    ).astype(jnp.int32)

    thought = jnp.asarray(IS_THOUGHT)[kind]
    recent, repeats = _remember(state, token, thought, anew=ignored)
    notice_position = jnp.where(in_notice, state.notice_position + 1, 0)
    notice_fed = in_notice & (notice_position >= _of_notice(budget.notice_lengths, state))
    ignore_position = jnp.where(feeds_ignore, state.ignore_position + 1, 0)
    newlines = state.newlines >> dropped.astype(jnp.uint32)
    end = jnp.where(natural | own | (stopping & sampling), End.NATURAL, jnp.where(ignored, End.NONE, state.end))
    phase = jnp.select([stopping, leaves, own], [Phase.DONE, Phase.SUFFIX, Phase.ANSWER], state.phase)
    state = dataclasses.replace(
        state,
        phase=phase.astype(jnp.int32),
        num_thinking=state.num_thinking - dropped - jnp.where(own, marker - 1, 0) + thought,
        num_answer=state.num_answer + (kind == Kind.ANSWER),
        ignore_position=jnp.where(ignore_position < _ignore_length(budget, state), ignore_position, 0),
        notices_used=state.notices_used + notice_fed,
        notice_position=jnp.where(notice_fed, 0, notice_position),
        recent=recent,
        repeats=repeats,
        marker_bits=jnp.where(in_ignore | in_notice | ignored, 0, jnp.where(thought, marker_bits, state.marker_bits)),
        num_sampled=jnp.where(in_ignore | ignored, 0, state.num_sampled + thought),
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
    """End what has reached its limit, in the order in which limits win at a tie."""
    free = (state.phase == Phase.THINKING) & ~budget.forcing
    thinking = (state.phase == Phase.THINKING) & budget.forcing & (state.cut_at == NO_LIMIT)
    passed = state.num_thinking - budget.max_thinking_tokens
    forced = thinking & (passed >= jnp.where(state.last_is_newline, 0, budget.grace_tokens))
    full_context = thinking & (state.num_thinking >= budget.context_limit)
    cut = forced | full_context | (thinking & _repeats(budget, state))
    waits = cut & (begun(budget, markers, state.marker_bits) > 0)
    at_maximum = free & (passed >= 0)  # tokens that begin the answer's marker count until it is complete
    end = jnp.select([forced | at_maximum, full_context, cut], [End.FORCED, End.CONTEXT, End.REPETITION], state.end)
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
    """Compute `Proposal.bias`: `end_bias` for tokens that continue an end marker, -inf for those that may not come."""
    banned = jnp.where(state.phase == Phase.THINKING, budget.banned, 0)
    thinking = (state.phase == Phase.THINKING) & budget.forcing
    continues, may_come = next_tokens(budget, markers, state, thinking)
    used = state.num_thinking / jnp.maximum(budget.max_thinking_tokens, 1)
    end_bias = jnp.where(thinking, budget.end_bias * used, 0.0)
    bias = jnp.where(continues, end_bias[:, None], 0.0)
    may_come &= markers.banned[None] & banned[:, None] == 0
    return jnp.where(markers.is_known[None] & may_come, bias, -jnp.inf)


def _in_notice(budget: Budget, markers: Markers, state: BudgetState) -> Array:
    """Tell which rows are within a notice, or where one is to begin; bool [B]."""
    due = (state.notices_used < budget.notice_at.shape[1]) & (state.num_thinking >= _of_notice(budget.notice_at, state))
    free = (state.ignore_position == 0) & ~_after_ignore(state) & (state.cut_at == NO_LIMIT)
    begins = due & free & (begun(budget, markers, state.marker_bits) == 0)
    return (state.phase == Phase.THINKING) & (begins | (state.notice_position > 0))


def _of_notice(values: Array, state: BudgetState) -> Array:
    """Look up `values` [B, M, ...] of the next notice: [B, ...]."""
    return values[jnp.arange(len(values)), jnp.minimum(state.notices_used, values.shape[1] - 1)]


def _remember(state: BudgetState, token: Array, thought: Array, anew: Array) -> tuple[Array, Array]:
    """Bring `recent` and `repeats` up to date with a token [B] that is `thought` [B]; `anew` [B] forgets the others."""
    recent = jnp.where(anew[:, None], NO_TOKEN, state.recent)
    longer = jnp.where(recent == token[:, None], state.repeats + 1, 0)
    shifted = jnp.concatenate([token[:, None], recent[:, :-1]], axis=1)
    return jnp.where(thought[:, None], shifted, recent), jnp.where(thought[:, None], longer, state.repeats)


def _repeats(budget: Budget, state: BudgetState) -> Array:
    """Tell whether the last tokens have occurred `max_repetitions` times in a row; bool [B]."""
    periods = 1 + jnp.arange(LONGEST_PERIOD)
    looped = state.repeats >= (budget.max_repetitions[:, None] - 1) * periods[None]
    return (budget.max_repetitions > 0) & looped.any(axis=1)


def _after_ignore(state: BudgetState) -> Array:
    """Tell whether the next sampled token is the first after an ignored end and its string."""
    return (state.ignores_used > 0) & (state.num_sampled == 0)


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
