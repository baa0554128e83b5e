"""Limits of thinking and answers as arrays, and what the controller remembers of each row.

Letters: B rows, A strings of a rotation, W tokens of an ignore string.
"""

from __future__ import annotations

import dataclasses
import enum

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
    """How thinking ended. FORCED: at its maximum; LENGTH: at `Budget.max_free_tokens`, and the row with it."""

    NONE, NATURAL, FORCED, CONTEXT, LENGTH = range(5)


class AnswerEnd(enum.IntEnum):
    """How the answer ended."""

    NONE, STOP, LENGTH, CONTEXT = range(4)


class Suffix(enum.IntEnum):
    """What follows thinking: rows of `Markers.suffixes`."""

    NATURAL, FORCED, NEWLINE_FORCED = range(3)


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
    max_free_tokens: (
        Array  # int32 [B], tokens that a row without forcing may write there, its marker too; NO_LIMIT: any
    )
    end_bias: Array  # float32 [B], added to the logits of ends in proportion to the share of the maximum that is used
    forcing: Array  # bool [B], False: the model writes on alone
    thinking: Array  # bool [B], False: the answer begins at once
    start_token: Array  # int32 [B], the last token before thinking


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BudgetState:
    """What the controller remembers of each row."""

    phase: Array  # int32 [B], Phase
    num_thinking: Array  # int32 [B]
    num_answer: Array  # int32 [B]
    ignores_used: Array  # int32 [B]
    ignore_position: Array  # int32 [B], next token of the ignore string being fed, 0: none is
    written: Array  # uint32 [B], the places at which the last token stands, those before it in the tokens before it
    drawn: Array  # int32 [B], tokens drawn since thinking began or an ignore string ended
    cut_at: Array  # int32 [B], where thinking will be cut unless what is being written is an end; NO_LIMIT: nowhere yet
    newlines: Array  # uint32 [B], bit i: the text of the last thinking token but i ends in a newline
    suffix: Array  # int32 [B], Suffix
    suffix_position: Array  # int32 [B]
    own_marker: Array  # int32 [B], tokens of the answer's marker where the model wrote it by itself
    end: Array  # int32 [B], End; of a cut that waits, what it will be
    answer_end: Array  # int32 [B], AnswerEnd

    @property
    def last_is_newline(self) -> Array:
        """bool [B], the text of the last thinking token ends in a newline."""
        return self.newlines % 2 == 1

    @property
    def done(self) -> Array:
        """bool [B]."""
        return self.phase == Phase.DONE


def empty_state(B: int) -> BudgetState:
    """State of B rows with nothing to do."""
    zeros = jnp.zeros((B,), jnp.int32)
    return BudgetState(
        phase=zeros + Phase.DONE,
        num_thinking=zeros,
        num_answer=zeros,
        ignores_used=zeros,
        ignore_position=zeros,
        written=zeros.astype(jnp.uint32),
        drawn=zeros,
        cut_at=zeros + NO_LIMIT,
        newlines=zeros.astype(jnp.uint32),
        suffix=zeros,
        suffix_position=zeros,
        own_marker=zeros,
        end=zeros,
        answer_end=zeros,
    )
