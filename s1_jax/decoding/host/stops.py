"""Strings that end an answer. The host looks for them in its text, because any tokens may spell them."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

from s1_jax.decoding.core.budget import AnswerEnd, Kind
from s1_jax.decoding.core.traces import Trace


def holds(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int] | np.ndarray, strings: Sequence[str]) -> bool:
    """Tell whether the text of these tokens contains one of the strings."""
    if not strings:
        return False
    text = tokenizer.backend_tokenizer.decode([int(token) for token in tokens], skip_special_tokens=False)
    return any(string in text for string in strings)


def width(strings: Sequence[str]) -> int:
    """Count the tokens that one of these strings can be spread over: each holds at least one byte of it."""
    return max((len(string.encode()) for string in strings), default=0)


def completed_at(
    tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int] | np.ndarray, strings: Sequence[str]
) -> int | None:
    """Count the tokens up to the one that completes the first of the strings; None where there is none."""
    if not holds(tokenizer, tokens, strings):
        return None
    counts = range(1, len(tokens) + 1)
    return 1 + bisect.bisect_left(counts, True, key=lambda count: holds(tokenizer, tokens[:count], strings))


def searched(tokenizer: PreTrainedTokenizerBase, tokens: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """Find the tokens of a trace in which the strings are looked for, by their indices [n].

    They are those of the answer, without the white space between thinking and answer, which ends nothing.
    """
    at = np.flatnonzero(kinds == int(Kind.ANSWER))
    if len(at) and at[0] > 0:  # else there was no thinking, or the beginning of the answer is not there
        at = at[leading_space(tokenizer, tokens[at]) :]
    return at


def leading_space(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int] | np.ndarray) -> int:
    """Count the tokens at the beginning whose text is white space."""
    texts = (tokenizer.backend_tokenizer.decode([int(token)], skip_special_tokens=False) for token in tokens)
    return next((count for count, text in enumerate(texts) if text.strip()), len(tokens))


def trimmed(tokenizer: PreTrainedTokenizerBase, trace: Trace, strings: Sequence[str]) -> Trace:
    """Cut a trace after the answer token that completes the first of the strings, where there is one."""
    if not strings:
        return trace
    at = searched(tokenizer, trace.tokens, trace.kinds)
    count = completed_at(tokenizer, trace.tokens[at], strings)
    if count is None:
        return trace
    kept = at[count - 1] + 1
    return trace._replace(tokens=trace.tokens[:kept], kinds=trace.kinds[:kept], answer_end=int(AnswerEnd.STOP))
