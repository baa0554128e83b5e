"""A reader of the part of JSON Schema (draft 2020-12) that the shipped schema of records uses; anything else fails."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from s1_jax.records.json_schema import FILE

INFINITY = float("inf")
TYPES: dict[str, Any] = {
    "string": str,
    "integer": int,
    "number": int | float,
    "boolean": bool,
    "null": type(None),
    "array": list,
    "object": dict,
}
WORDS = {
    *("$schema", "title", "description", "default", "type", "enum", "const", "minimum", "maximum"),
    *("items", "prefixItems", "minItems", "maxItems"),
    *("properties", "required", "additionalProperties", "dependentRequired", "allOf", "if", "then"),
}


def assert_records(records: Iterable[dict[str, Any]]) -> None:
    """Every record is as the shipped schema says, and there is one at least."""
    schema = json.loads(FILE.read_text())
    found = [errors(record, schema) for record in records]
    assert found and not any(found), next(filter(None, found), "there are no records")


def errors(value: Any, schema: dict[str, Any], where: str = "record") -> list[str]:
    """What is wrong with a value, a line for each mistake."""
    return list(_errors(value, schema, where))


def _is(value: Any, name: str) -> bool:
    return isinstance(value, TYPES[name]) and (name == "boolean" or not isinstance(value, bool))


def _errors(value: Any, schema: dict[str, Any], where: str) -> Iterator[str]:
    assert schema.keys() <= WORDS, schema.keys() - WORDS
    types = schema.get("type", list(TYPES))
    if not any(_is(value, name) for name in ([types] if isinstance(types, str) else types)):
        yield f"{where} is {value!r}, not {types}"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{where} is {value!r}, none of {schema['enum']}"
    if "const" in schema and value != schema["const"]:
        yield f"{where} is {value!r}, not {schema['const']!r}"
    bounded = _is(value, "number") and {"minimum", "maximum"} & schema.keys()
    if bounded and not schema.get("minimum", -INFINITY) <= value <= schema.get("maximum", INFINITY):
        yield f"{where} is {value!r}: out of range"
    if isinstance(value, list):
        yield from _list_errors(value, schema, where)
    if isinstance(value, dict):
        yield from _object_errors(value, schema, where)
    for part in schema.get("allOf", ()):
        yield from _errors(value, part, where)
    if "if" in schema and not errors(value, schema["if"]):
        yield from _errors(value, schema["then"], where)


def _list_errors(value: list[Any], schema: dict[str, Any], where: str) -> Iterator[str]:
    if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
        yield f"{where} has {len(value)} items"
    kinds = (
        schema.get("prefixItems") or [schema["items"]] * len(value) if {"prefixItems", "items"} & schema.keys() else []
    )
    for i, (item, kind) in enumerate(zip(value, kinds, strict=False)):
        yield from _errors(item, kind, f"{where}[{i}]")


def _object_errors(value: dict[str, Any], schema: dict[str, Any], where: str) -> Iterator[str]:
    required = {*schema.get("required", ())}
    for name, others in schema.get("dependentRequired", {}).items():
        required |= {*others} if name in value else set()
    for name in sorted(required - value.keys()):
        yield f"{where} lacks {name}"
    properties = schema.get("properties", {})
    for name in value.keys() & properties.keys():
        yield from _errors(value[name], properties[name], f"{where}: {name}")
    if schema.get("additionalProperties") is False:
        yield from (f"{where} has an unknown field {name}" for name in sorted(value.keys() - properties.keys()))
