"""Strings that end an answer. They are looked for in its text, where one may be any tokens, so on the host."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

from s1_jax.decoding.core.budget import AnswerEnd, Kind
from s1_jax.decoding.host.rows import Row


def holds(tokenizer: PreTrainedTokenizerBase, tokens: np.ndarray, strings: Sequence[str]) -> bool:
    """Whether the text of these tokens has one of the strings in it."""
    if not strings:
        return False
    text = tokenizer.backend_tokenizer.decode(tokens.tolist(), skip_special_tokens=False)
    return any(string in text for string in strings)


def width(strings: Sequence[str]) -> int:
    """Tokens that one of these strings can be spread over: each has a byte of it at least."""
    return max((len(string.encode()) for string in strings), default=0)


def trimmed(tokenizer: PreTrainedTokenizerBase, row: Row, strings: Sequence[str]) -> Row:
    """The row up to the answer token with which the first of the strings is whole; all of it where none is."""
    answer = row.answer
    if not holds(tokenizer, answer, strings):
        return row
    counts = range(1, len(answer) + 1)
    found = bisect.bisect_left(counts, True, key=lambda count: holds(tokenizer, answer[:count], strings))
    kept = np.flatnonzero(row.kinds == int(Kind.ANSWER))[found] + 1
    return row._replace(tokens=row.tokens[:kept], kinds=row.kinds[:kept], answer_end=int(AnswerEnd.STOP))
