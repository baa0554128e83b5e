"""A random model over bytes that likes to end, as transformers and plain Python see it."""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import torch

from s1_jax.config import BudgetConfig, SamplingConfig
from s1_jax.decoding.core.token_ids import make_markers, start_ids
from tests.decoding.plain import Words
from tests.tokenizer import byte_tokenizer

V, MAX_MODEL_LEN, MAX_ANSWER = 264, 160, 5
TOKENIZER = byte_tokenizer()
PROMPTS = tuple(tuple(TOKENIZER.encode(text)) for text in ("1+1=", "Say a word!", "x" * 110))
SAMPLED = SamplingConfig(temperature=0.8, top_k=40, top_p=0.95, min_p=0.01)


def scores_of(reference):
    """Scores of the next token by transformers, without a cache: the whole text every time."""

    @cache
    def score(history):
        with torch.no_grad():
            return reference(torch.tensor([history])).logits[0, -1].numpy()

    return lambda history: score(tuple(history))


def words_of(format):
    markers = make_markers(TOKENIZER, V, format)
    ends = [tuple(TOKENIZER.encode(text)) for text in format.end_markers]
    return Words(
        ends=frozenset(ids[0] for ids in ends if len(ids) == 1) | set(map(int, np.flatnonzero(markers.is_stop))),
        markers=tuple(ids for ids in ends if len(ids) > 1),
        stops=frozenset(map(int, np.flatnonzero(markers.is_stop))),
        known=frozenset(map(int, np.flatnonzero(markers.is_known))),
        newlines=frozenset(map(int, np.flatnonzero(markers.is_newline))),
        newline=None if format.early_stopping_text else TOKENIZER.encode("\n")[0],
        start=tuple(start_ids(TOKENIZER, format)),
        natural=tuple(TOKENIZER.encode(format.answer_start)),
        forced=tuple(TOKENIZER.encode(format.early_stopping_text + format.answer_start + format.final_answer)),
    )


def budgets():
    """Every maximum with every ignore count and several strings; and minima."""
    strings: tuple[str | tuple[str, ...], ...] = ("Wait", "", ("Hm", "", "no"))
    for maximum, num_ignore, string in itertools.product((None, 0, 1, 2, 3, 5, 8, 13, 21, 34), (0, 1, 2, 4), strings):
        yield BudgetConfig(max_thinking_tokens=maximum, num_ignore=num_ignore, ignore_string=string)
    for minimum, maximum in ((0, 0), (0, 3), (0, None), (6, 6), (10, 12), (20, None)):
        yield BudgetConfig(min_thinking_tokens=minimum, max_thinking_tokens=maximum, num_ignore=1)


def generated(record, words):
    """A record's tokens between start marker and stop token; not from `text`, where invalid bytes are all the same."""
    thinking = record["thinking_token_ids"]
    line_ends = thinking and thinking[-1] in words.newlines
    newline = [] if line_ends or words.newline is None else [words.newline]
    suffix = words.natural if record["end"] == "natural" else (*newline, *words.forced)
    return [*thinking, *suffix, *record["answer_token_ids"]]
