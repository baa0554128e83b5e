"""The JSON Schema of records (draft 2020-12), made from the schema; the package ships it as assets/record.schema.json.

It describes what this version writes. Records of earlier versions lack fields that it requires.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from s1_jax.config.search import READ_BY, READ_BY_ALL
from s1_jax.records.kinds import Kind
from s1_jax.records.schema import (
    ASKED,
    DECODED,
    FIELDS,
    MADE_BY,
    REQUIRED,
    SEARCHED,
    SWEEP,
    TRIES,
    VERDICT,
    Field,
    SameAs,
)
from s1_jax.runtime.terminal import say

FILE = files("s1_jax") / "assets" / "record.schema.json"
NULL_OUTSIDE_SWEEPS = ("task", "problem_id", *VERDICT.names)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of one record."""
    of_sweeps = {name: FIELDS[name].kind.schema for name in NULL_OUTSIDE_SWEEPS}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A record of s1_jax: one line of records.jsonl, or of the output of generate",
        "type": "object",
        "properties": {name: _property(field) for name, field in FIELDS.items()},
        "required": [*ASKED.names, *DECODED.names, *VERDICT.names],
        "additionalProperties": False,
        "dependentRequired": {
            "question": list(SWEEP.names),
            "method": [*READ_BY_ALL, "reward", *SEARCHED.names],
            "tries": list(TRIES.names),
            "model": list(MADE_BY.names),
        },
        "allOf": [
            {"if": {"required": ["question"]}, "then": {"properties": of_sweeps}},
            *(
                {
                    "if": {"properties": {"method": {"const": method}}, "required": ["method"]},
                    "then": {"required": list(options)},
                }
                for method, options in READ_BY.items()
            ),
        ],
    }


def json_schema_text() -> str:
    """Return the text of the file that the package ships."""
    return json.dumps(json_schema(), indent=2) + "\n"


def _property(field: Field) -> dict[str, Any]:
    kind: Kind = field.kind.or_null() if field.name in NULL_OUTSIDE_SWEEPS else field.kind
    described = {"description": field.text} | kind.schema
    if field.absent is REQUIRED or field.absent is None or isinstance(field.absent, SameAs):
        return described
    return described | {"default": field.absent}


if __name__ == "__main__":
    say(json_schema_text(), end="")
