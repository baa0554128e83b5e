"""A decoded row as a record: the one JSON object that reports read and a stopped run resumes from."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from s1_jax.config import BudgetConfig, FormatConfig, SamplingConfig
from s1_jax.decoding.core.budget import IS_THOUGHT, AnswerEnd, End, Kind
from s1_jax.decoding.core.traces import ignored_ends
from s1_jax.records.options import format_field

FORCED = (Kind.IGNORE, Kind.SUFFIX)  # tokens that are appended, not sampled


def identity(
    *,
    problem_id: str | int | None,
    sample: int,
    seed: int,
    prompt_token_ids: Sequence[int],
    budget: BudgetConfig,
    sampling: SamplingConfig,
    max_answer_tokens: int,
    max_model_len: int,
    format: FormatConfig,
    stop_tokens: Sequence[str],
) -> dict[str, Any]:
    """The fields of a record that are known before decoding, and decide what it will be."""
    strings = budget.ignore_string
    return {
        "task": None,
        "problem_id": problem_id,
        "sample": sample,
        "seed": seed,
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "forcing": budget.forcing,
        "min_thinking_tokens": budget.min_thinking_tokens,
        "max_thinking_tokens": budget.max_thinking_tokens,
        "newline_grace": budget.newline_grace,
        "end_bias": budget.end_bias,
        "num_ignore": budget.num_ignore,
        "ignore_string": strings if isinstance(strings, str) else list(strings),
        "max_answer_tokens": max_answer_tokens,
        "max_model_len": max_model_len,
        "format": format_field(format),
        "stop_tokens": list(stop_tokens),
        "prompt_token_ids": list(map(int, prompt_token_ids)),
    }


def outcome(
    tokenizer: PreTrainedTokenizerBase,
    opening: Sequence[int],
    tokens: Sequence[int],
    kinds: Sequence[int],
    end: int,
    answer_end: int,
    ignores_used: int,
) -> dict[str, Any]:
    """The fields of a record that decoding brings, from the start marker, the tokens after it and their kinds.

    `text` runs from the start marker to the stop token, special tokens kept. `ignored_ends` hold, for each end that was
    ignored, the thinking tokens and the characters of `text` before it. What only a task knows is null: its `gold`
    answer, and of the answer extracted here whether it is right, the rule that decided, and `answer_class`, which is
    the same number for equal ones of several samples of a problem and setting (reporting/votes.py).
    """
    ids, kind = np.asarray(tokens, np.int32), np.asarray(kinds)
    is_thought = IS_THOUGHT[kind]
    thinking = ids[is_thought].tolist()
    answer = ids[kind == int(Kind.ANSWER)].tolist()
    # transformers' own decode looks at every id's type first, which takes ten times as long
    decode = partial(tokenizer.backend_tokenizer.decode, skip_special_tokens=False)
    text = decode([*opening, *ids.tolist()])

    def characters(position: int) -> int:
        before = decode([*opening, *thinking[:position]])
        return len(before if text.startswith(before) else before.rstrip("\ufffd"))  # a character may be cut in two

    return {
        "thinking_token_ids": thinking,
        "answer_token_ids": answer,
        "num_thinking_tokens": len(thinking),
        "num_answer_tokens": len(answer),
        "end": End(end).name.lower(),
        "answer_end": AnswerEnd(answer_end).name.lower(),
        "ignores_used": int(ignores_used),
        "ignored_ends": [[n, characters(n)] for n in ignored_ends(kind[is_thought]).tolist()],
        "text": text,
        "extracted_answer": None,
        "answer_class": None,
        "gold": None,
        "correct": None,
        "graded_by": None,
    }
