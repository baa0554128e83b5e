"""Strings that end an answer. The host looks for them in its text, because any tokens may spell them."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

from s1_jax.decoding.core.budget import AnswerEnd, Kind
from s1_jax.decoding.core.traces import Trace


def holds(tokenizer: PreTrainedTokenizerBase, tokens: np.ndarray, strings: Sequence[str]) -> bool:
    """Tell whether the text of these tokens contains one of the strings."""
    if not strings:
        return False
    text = tokenizer.backend_tokenizer.decode(tokens.tolist(), skip_special_tokens=False)
    return any(string in text for string in strings)


def width(strings: Sequence[str]) -> int:
    """Count the tokens that one of these strings can be spread over: each holds at least one byte of it."""
    return max((len(string.encode()) for string in strings), default=0)


def trimmed(tokenizer: PreTrainedTokenizerBase, trace: Trace, strings: Sequence[str]) -> Trace:
    """Cut a trace after the answer token that completes the first of the strings, where there is one."""
    answer = trace.answer
    if not holds(tokenizer, answer, strings):
        return trace
    counts = range(1, len(answer) + 1)
    found = bisect.bisect_left(counts, True, key=lambda count: holds(tokenizer, answer[:count], strings))
    kept = np.flatnonzero(trace.kinds == int(Kind.ANSWER))[found] + 1
    return trace._replace(tokens=trace.tokens[:kept], kinds=trace.kinds[:kept], answer_end=int(AnswerEnd.STOP))
