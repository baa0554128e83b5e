"""What the tests of `s1_jax.load_model` and `python -m s1_jax.generate` share: arguments, rows, fields of a record."""

from __future__ import annotations

import json
from functools import cache

import s1_jax
from s1_jax.config import S1, StoredConfig
from tests.records.json_schema import assert_records

V, IM_END = 264, 258
ROWS = [{"prompt": f"number {i}"} for i in range(5)]
FIELDS = [
    *(
        "task",
        "problem_id",
        "sample",
        "seed",
        "temperature",
        "min_thinking_tokens",
        "max_thinking_tokens",
        "num_ignore",
    ),
    *("ignore_string", "prompt_token_ids", "thinking_token_ids", "answer_token_ids", "num_thinking_tokens"),
    *(
        "num_answer_tokens",
        "end",
        "answer_end",
        "ignores_used",
        "text",
        "extracted_answer",
        "gold",
        "correct",
        "forcing",
    ),
]

_loaded = cache(s1_jax.load_model)


def loaded(path, dtype="float32", stored=StoredConfig(), *, mesh=None, format=S1):
    """`load_model`, on one device, which compiles sooner; models stay compiled from test to test."""
    return _loaded(path, "float32" if dtype == "auto" else dtype, stored, format=format)


def arguments(folder, tmp_path, *flags):
    paths = (
        "--model.path",
        str(folder),
        "--input",
        str(tmp_path / "in.jsonl"),
        "--output",
        str(tmp_path / "out.jsonl"),
    )
    return [*paths, "--max-answer-tokens", "4", *flags]


def output(tmp_path):
    records = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert_records(records)
    return records
