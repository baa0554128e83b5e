"""The functions that make records, in the order in which a record is filled.

    asked      what is known before decoding; `swept` adds what a sweep knows of it
    decoded    what decoding brings; `tried` and `searched` add what several runs took
    of_sweep   the two together
    graded     whether the answer is right; `classed` says which answers are equal
    made_by    what made a record of `generate`

Each takes its fields from the schema, and raises TypeError where one of them is missing or unknown.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from s1_jax.config import BudgetConfig, FormatConfig, SamplingConfig, SearchConfig, StoredConfig
from s1_jax.records import Record
from s1_jax.records.options import format_field, search_fields
from s1_jax.records.schema import ASKED, DECODED, FIELDS, MADE_BY, SEARCHED, TRIES, UNUSUAL, VERDICT, Group

RULES = ("notice_fractions", "notices", "banned_words", "max_repetitions")  # of a budget, off in most records
USED = tuple(name for name in SEARCHED.names if name != "leaves")


def asked(
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
    thinking_sampling: SamplingConfig | None = None,
    reserved_answer_tokens: int | None = None,
    stop_strings: Sequence[str] = (),
    thinking: bool = True,
    max_new_tokens: int | None = None,
) -> Record:
    """Return the fields that are known before decoding and decide what it gives.

    The options with a default are in the record only where they differ from it, so that records of earlier versions
    say the same.
    """
    # not dataclasses.asdict, whose deep copies take most of the time of a sweep's records
    limits = {name: list(value) if isinstance(value, tuple) else value for name, value in vars(budget).items()}
    always = {
        "task": None,
        "problem_id": problem_id,
        "sample": sample,
        "seed": seed,
        "max_answer_tokens": max_answer_tokens,
        "max_model_len": max_model_len,
        "format": format_field(format),
        "stop_tokens": list(stop_tokens),
        "prompt_token_ids": list(map(int, prompt_token_ids)),
    }
    unusual = {
        "thinking_sampling": None if thinking_sampling is None else dataclasses.asdict(thinking_sampling),
        "reserved_answer_tokens": reserved_answer_tokens,
        "stop_strings": list(stop_strings),
        "thinking": thinking,
        "max_new_tokens": max_new_tokens,
        **{name: limits.pop(name) for name in RULES},
    }
    besides = _fields(UNUSUAL, unusual)
    return _fields(ASKED, always | vars(sampling) | limits) | {
        name: value for name, value in besides.items() if value != FIELDS[name].absent
    }


def swept(
    record: Record,
    *,
    task: str,
    gold: str,
    instruction: str | None,
    max_tries: int,
    search: SearchConfig | None,
    reward: str | None,
) -> Record:
    """Return what is known before decoding, with what a sweep knows of it."""
    known = {"task": task, "gold": gold, "instruction": instruction, "max_tries": max_tries}
    return record | known | ({} if search is None else search_fields(search) | {"reward": reward})


def decoded(
    *,
    thinking_token_ids: Sequence[int] = (),
    answer_token_ids: Sequence[int] = (),
    end: str = "none",
    answer_end: str = "none",
    ignores_used: int = 0,
    ignored_ends: Sequence[Sequence[int]] = (),
    text: str = "",
) -> Record:
    """Return the fields that decoding brings, by default those of no run, and null for what only a task knows."""
    values = {
        "thinking_token_ids": list(thinking_token_ids),
        "answer_token_ids": list(answer_token_ids),
        "num_thinking_tokens": len(thinking_token_ids),
        "num_answer_tokens": len(answer_token_ids),
        "end": end,
        "answer_end": answer_end,
        "ignores_used": ignores_used,
        "ignored_ends": [list(pair) for pair in ignored_ends],
        "text": text,
    }
    return _fields(DECODED, values) | dict.fromkeys(VERDICT.names)


def tried(record: Record, *, sample: int, tries: int, tried_tokens: int) -> Record:
    """Return the record of the last try of rejection sampling, as the sample that was asked for."""
    return record | {"sample": sample} | _fields(TRIES, {"tries": tries, "tried_tokens": tried_tokens})


def searched(
    record: Record,
    *,
    search: SearchConfig,
    reward: str | None,
    leaves: Sequence[tuple[str | None, float]],
    used: dict[str, Any],
) -> Record:
    """Return the record of a search: that of the run it chose, its options, its leaves and what it `used` (USED)."""
    found = _fields(SEARCHED, {"leaves": [list(leaf) for leaf in leaves]} | used)
    return record | found | search_fields(search) | {"reward": reward}


def of_sweep(known: Record, record: Record, *, question: str) -> Record:
    """Return a decoded record with what `swept` knew before."""
    return known | record | {"task": known["task"], "gold": known["gold"], "question": question}


def graded(record: Record, *, extracted_answer: str | None, correct: bool, graded_by: str) -> Record:
    """Return the record with this verdict; which answers equal its own is open again."""
    found = {"extracted_answer": extracted_answer, "correct": correct, "graded_by": graded_by}
    return record | ({"answer_class": None} if "answer_class" in record else {}) | found


def classed(record: Record, answer_class: int | None) -> Record:
    """Return the record with the number of its answer's class."""
    return record | {"answer_class": answer_class}


def made_by(*, model: str, dtype: str, stored: StoredConfig) -> Record:
    """Return the fields that say what made a record of `generate`."""
    return _fields(MADE_BY, {"model": model, "dtype": dtype, "stored": dataclasses.asdict(stored)})


def _fields(group: Group, values: Record) -> Record:
    """Return the values of a group's fields, in its order. Raises TypeError on a missing or an unknown one."""
    if wrong := values.keys() ^ set(group.names):
        raise TypeError(f"{group.title}: {', '.join(sorted(wrong))} missing or not in the schema")
    return {name: values[name] for name in group.names}
