"""Budgets as arrays, and what the controller remembers of each row.

Letters: B rows, A strings of a rotation, W tokens of an ignore string, M notices, N tokens of a notice, P tokens of the
longest period of a repetition.
"""

from __future__ import annotations

import dataclasses
import enum

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

NO_LIMIT = 2**30  # larger than any context, and still an int32 after additions
LONGEST_PERIOD = 256  # P: tokens that may be found to repeat
NO_TOKEN = -1


class Phase(enum.IntEnum):
    """The part of its output that a row is at."""

    THINKING, SUFFIX, ANSWER, DONE = range(4)


class Kind(enum.IntEnum):
    """The part of the output that a recorded token belongs to.

    Three kinds of thinking tokens are told apart from the rest: IGNORE is a token of an ignore string, RESAMPLED is
    sampled in place of an end that an empty ignore string suppressed, and NOTICE is a token of a notice.
    """

    NONE, THINKING, IGNORE, SUFFIX, ANSWER, STOP, RESAMPLED, NOTICE = range(8)


THOUGHT = (Kind.THINKING, Kind.IGNORE, Kind.RESAMPLED, Kind.NOTICE)
IS_THOUGHT = np.isin(np.arange(len(Kind)), THOUGHT)  # bool, indexed by kind


class End(enum.IntEnum):
    """The reason why thinking ended.

    FORCED is the maximum of thinking tokens. LENGTH is `Budget.max_free_tokens`, which ends the whole row. REPETITION
    is `Budget.max_repetitions`.
    """

    NONE, NATURAL, FORCED, CONTEXT, LENGTH, REPETITION = range(6)


class AnswerEnd(enum.IntEnum):
    """The reason why the answer ended."""

    NONE, STOP, LENGTH, CONTEXT = range(4)


class Suffix(enum.IntEnum):
    """The tokens that follow thinking, as an index into `Markers.suffixes`."""

    NATURAL, FORCED, NEWLINE_FORCED = range(3)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Budget:
    """The limits of each row. They are arrays, so changing them never recompiles."""

    min_thinking_tokens: Array  # int32 [B]
    max_thinking_tokens: Array  # int32 [B], NO_LIMIT: none
    grace_tokens: Array  # int32 [B], tokens by which thinking may pass its maximum to finish a line
    num_ignore: Array  # int32 [B]
    ignore_ids: Array  # int32 [B, A, W], a rotation: the i-th ignored end takes string i mod ignore_count
    ignore_lengths: Array  # int32 [B, A], 0: an empty string
    ignore_count: Array  # int32 [B], at least 1
    context_limit: Array  # int32 [B], thinking tokens after which forced suffix and answer would no longer fit
    max_answer_tokens: Array  # int32 [B]
    max_new_tokens: Array  # int32 [B], tokens that the cache can take after prompt and start marker
    max_free_tokens: Array  # int32 [B], tokens that a row without forcing may write, its marker too; NO_LIMIT: any
    end_bias: Array  # float32 [B], added to the logits of ends, times the fraction of the maximum that is used
    forcing: Array  # bool [B], False: the model writes on alone
    thinking: Array  # bool [B], False: the answer begins at once
    notice_at: Array  # int32 [B, M], thinking tokens after which a notice is appended; NO_LIMIT: there is none
    notice_ids: Array  # int32 [B, M, N]
    notice_lengths: Array  # int32 [B, M]
    banned: Array  # uint32 [B], bit i: the tokens of list i of `Markers.banned` may not be sampled while thinking
    max_repetitions: Array  # int32 [B], 0: any
    start_token: Array  # int32 [B], the last token before thinking
    given_tokens: Array  # int32 [B], thinking tokens at the end of the prompt, which count as all others do
    given_newline: Array  # bool [B], the text of the last of them ends in a newline


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BudgetState:
    """The state of the budget controller, which is everything that it remembers of each row."""

    phase: Array  # int32 [B], Phase
    num_thinking: Array  # int32 [B]
    num_answer: Array  # int32 [B]
    ignores_used: Array  # int32 [B]
    ignore_position: Array  # int32 [B], next token of the ignore string that is being fed; 0: none is
    marker_bits: Array  # uint32 [B], beginnings of end markers that the last tokens match, see end_markers.py
    notices_used: Array  # int32 [B]
    notice_position: Array  # int32 [B], next token of the notice that is being fed; 0: none is
    recent: Array  # int32 [B, P], the last thinking tokens since an end was ignored, the latest first; NO_TOKEN: none
    repeats: Array  # int32 [B, P], entry p - 1: how many of the last tokens equal the one p tokens before them
    num_sampled: Array  # int32 [B], thinking tokens since thinking began or an ignore string ended
    cut_at: Array  # int32 [B], where thinking is cut unless an end is being written there; NO_LIMIT: nowhere yet
    newlines: Array  # uint32 [B], bit i: the text of the last thinking token but i ends in a newline
    suffix: Array  # int32 [B], Suffix
    suffix_position: Array  # int32 [B]
    own_marker: Array  # int32 [B], tokens of the answer's marker where the model wrote it by itself
    end: Array  # int32 [B], End; while a cut waits, the end that it will be
    answer_end: Array  # int32 [B], AnswerEnd

    @property
    def last_is_newline(self) -> Array:
        """Whether the text of the last thinking token ends in a newline, bool [B]."""
        return self.newlines % 2 == 1

    @property
    def done(self) -> Array:
        """Whether each row has ended, bool [B]."""
        return self.phase == Phase.DONE


def empty_state(B: int) -> BudgetState:
    """Make the state of B rows that have nothing to do."""
    zeros = jnp.zeros((B,), jnp.int32)
    return BudgetState(
        phase=zeros + Phase.DONE,
        num_thinking=zeros,
        num_answer=zeros,
        ignores_used=zeros,
        ignore_position=zeros,
        notices_used=zeros,
        notice_position=zeros,
        recent=jnp.full((B, LONGEST_PERIOD), NO_TOKEN, jnp.int32),
        repeats=jnp.zeros((B, LONGEST_PERIOD), jnp.int32),
        marker_bits=zeros.astype(jnp.uint32),
        num_sampled=zeros,
        cut_at=zeros + NO_LIMIT,
        newlines=zeros.astype(jnp.uint32),
        suffix=zeros,
        suffix_position=zeros,
        own_marker=zeros,
        end=zeros,
        answer_end=zeros,
    )
