"""The steps of a search: a controller around the budget's that pauses a row where its step ends.

A separator may be part of a token or spread over several tokens, so it is matched in the text. A table made of the
tokenizer's vocabulary says how many characters of the separator the step's text ends in after a token, for each number
of them before it.

Letters: B rows, V vocabulary, U characters of the separator.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerBase

from s1_jax.config import StepConfig
from s1_jax.decoding.core import controller
from s1_jax.decoding.core.budget import NO_LIMIT, Budget, BudgetState, Phase
from s1_jax.decoding.core.end_markers import MARKER_BITS, Markers, undecided
from s1_jax.decoding.core.loop import Controller, Outcome, Proposal, choose
from s1_jax.errors import UserError

LONGEST_SEPARATOR = 100  # characters, as the vocabulary writes them: they are counted in int8
ROWS = 8  # the rows of a table are a multiple of this, so that few sizes are compiled


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StepEnds:
    """The separator and the number of tokens that end a step."""

    # Characters of the separator that the text ends in after a token, by how many it ended in before. U means that the
    # whole separator has been seen, which stays so. The rows after U mean nothing.
    follows: Array  # int8 [at least U + 1, V]
    separator: Array  # int32 [], U
    max_tokens: Array  # int32 [], the most tokens of a step; NO_LIMIT: any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StepState:
    """The state of the budget controller, and the progress of each row's step. A row that pauses is done for now."""

    budget: BudgetState
    # Entry i is the number of characters matched after the last token but i: an end marker may take tokens back.
    matched: Array  # int8 [B, MARKER_BITS]
    num_tokens: Array  # int32 [B], tokens recorded in this step
    paused: Array  # bool [B], the step has ended within the thinking

    @property
    def done(self) -> Array:
        """Whether each row has ended or pauses, bool [B]."""
        return self.paused | self.budget.done


def make_ends(tokenizer: PreTrainedTokenizerBase, vocab_size: int, steps: StepConfig) -> StepEnds:
    """Make the table of separators for a model of `vocab_size` V. Raises UserError on a separator that is too long."""
    max_tokens = np.int32(NO_LIMIT if steps.max_step_tokens is None else steps.max_step_tokens)
    if steps.separator is None:
        return StepEnds(np.zeros((ROWS, vocab_size), np.int8), np.int32(1), max_tokens)  # type: ignore[arg-type]
    # texts as the vocabulary writes them: decoded, all bytes that are no whole character would look the same
    separator = _written(tokenizer, steps.separator)
    if len(separator) > LONGEST_SEPARATOR:
        raise UserError(f"separator {steps.separator!r} is longer than {LONGEST_SEPARATOR} bytes")
    added = tokenizer.get_added_vocab()  # the vocabulary writes these as they are
    texts = {i: _written(tokenizer, text) if text in added else text for text, i in tokenizer.get_vocab().items()}
    texts = {i: text for i, text in texts.items() if i < vocab_size}
    follows = _follows(separator, texts, vocab_size)
    follows = np.pad(follows, ((0, -len(follows) % ROWS), (0, 0)))
    return StepEnds(follows, np.int32(len(separator)), max_tokens)  # type: ignore[arg-type]


def step_state(rows: BudgetState) -> StepState:
    """Make the state of rows whose step begins."""
    zeros = jnp.zeros_like(rows.phase)
    matched = jnp.zeros((len(zeros), MARKER_BITS), jnp.int8)
    return StepState(rows, matched, zeros, zeros != 0)


def step_controller(ends: StepEnds, budget: Budget, markers: Markers) -> Controller:
    """Make a controller that follows the budget and pauses each row where its step ends."""

    def propose(state: StepState) -> Proposal:
        return controller.propose(budget, markers, state.budget)

    def advance(state: StepState, token: Array) -> tuple[StepState, Outcome]:
        rows, (token, kind, feeds, dropped) = controller.advance(budget, markers, state.budget, token)
        waits = state.paused
        rows = choose(waits, state.budget, rows)
        kind, dropped = (jnp.where(waits, 0, x) for x in (kind, dropped))
        outcome = Outcome(token, kind, feeds & ~waits, dropped)
        matched, recorded = _taken_back(state.matched, dropped), kind > 0
        following = ends.follows[matched[:, 0], token]
        matched = jnp.where(recorded[:, None], jnp.concatenate([following[:, None], matched[:, :-1]], axis=1), matched)
        num_tokens = state.num_tokens - dropped + recorded
        whole = (matched[:, 0] == ends.separator) | (num_tokens >= ends.max_tokens)
        thinking = rows.phase == Phase.THINKING
        pauses = whole & thinking & ~undecided(budget, markers, rows)
        state = dataclasses.replace(
            state,
            budget=rows,
            matched=matched,
            num_tokens=num_tokens,
            paused=state.paused | pauses,
        )
        return state, outcome

    return Controller(propose, advance)


def _taken_back(matched: Array, dropped: Array) -> Array:
    """Take the last `dropped` [B] tokens back out of `matched`."""
    indices = jnp.arange(matched.shape[1])[None] + dropped[:, None]
    return jnp.take_along_axis(matched, jnp.minimum(indices, matched.shape[1] - 1), axis=1)


def _written(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """Write a text in the vocabulary's letters, one a byte. Raises UserError where the tokenizer is not byte-level."""
    if "ByteLevel" not in str(tokenizer.backend_tokenizer.decoder):
        raise UserError(
            f"separator: the vocabulary of {tokenizer.name_or_path} is not byte-level, so no text can end a step; "
            "leave it out (None) and give max_step_tokens"
        )
    # not by the tokenizer's own pre-tokenizer, which may put a space before
    pieces = ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
    return "".join(piece for piece, _ in pieces)


def _follows(separator: str, texts: Mapping[int, str], vocab_size: int) -> np.ndarray:
    """Make `StepEnds.follows` by the automaton of Knuth, Morris and Pratt, letter by letter over all tokens at once."""
    U, letters = len(separator), sorted(set(separator))
    by_letter = np.zeros((U + 1, len(letters) + 1), np.int8)  # the last column: any other letter
    by_letter[U] = U
    for part in range(U):
        for column, letter in enumerate(letters):
            text = separator[:part] + letter
            by_letter[part, column] = max(size for size in range(U + 1) if text.endswith(separator[:size]))
    columns = {letter: column for column, letter in enumerate(letters)}
    follows = np.repeat(np.arange(U + 1, dtype=np.int8)[:, None], vocab_size, axis=1)
    left = {token: text for token, text in texts.items() if text}
    while left:
        tokens = list(left)
        of_token = np.asarray([columns.get(text[0], len(letters)) for text in left.values()])
        follows[:, tokens] = by_letter[follows[:, tokens], of_token]
        left = {token: text[1:] for token, text in left.items() if len(text) > 1}
    return follows
