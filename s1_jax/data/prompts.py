"""Files of prompts to generate from: JSONL with `prompt` or `prompt_token_ids`, an `id` and a `budget` in each line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from s1_jax.errors import UserError
from s1_jax.runtime.json_input import read_jsonl
from s1_jax.runtime.texts import is_unicode


def is_text(value: Any) -> bool:
    """Return whether a value is a string that a tokenizer takes."""
    return isinstance(value, str) and is_unicode(value)


FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "prompt": (is_text, "a string of valid Unicode"),
    "prompt_token_ids": (lambda v: isinstance(v, list) and all(type(i) is int for i in v), "a list of whole numbers"),
    "id": (lambda v: v is None or type(v) is int or is_text(v), "a string of valid Unicode or a whole number"),
    "budget": (lambda v: v is None or isinstance(v, dict), "an object"),
}


def read_prompts(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name of each line ("path, line 3") and its row. Raises UserError naming file, line and field."""
    for number, row in read_jsonl(path):
        where = f"{path}, line {number}"
        if ("prompt" in row) == ("prompt_token_ids" in row):
            raise UserError(f"{where}: needs a field 'prompt' or a field 'prompt_token_ids', and not both")
        for field, (fits, wanted) in FIELDS.items():
            if field in row and not fits(row[field]):
                raise UserError(f"{where}: field {field!r} must be {wanted}")
        yield where, row
