"""Kinds of values: what a field may hold, how a refusal says it, and the same as JSON Schema."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

NOTHING: Mapping[str, Any] = MappingProxyType({})
LARGEST = 2**53  # of counts; larger ones are no sums of tokens
LARGEST_SEED = 2**64 - 1
LARGEST_NUMBER = 1e300

Schema = dict[str, Any]


class Kind(NamedTuple):
    """What a value may be: as a check on reading, in words, and as JSON Schema for records that are written."""

    fits: Callable[[Any], bool]
    said: str
    schema: Schema

    def or_null(self) -> Kind:
        """Return the kind that allows null too."""
        types = self.schema["type"]
        if "null" in types:
            return self
        schema = self.schema | {"type": [*([types] if isinstance(types, str) else types), "null"]}
        if "enum" in schema:
            schema["enum"] = [*schema["enum"], None]
        return Kind(lambda value: value is None or self.fits(value), f"{self.said} or null", schema)

    def shown(self) -> str:
        """Return the kind as a few words of a table: its JSON types, and the values where there are only a few."""
        if values := self.schema.get("enum"):
            return ", ".join("null" if value is None else f'"{value}"' for value in values)
        types = self.schema["type"]
        return " or ".join([types] if isinstance(types, str) else types)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    return _is_number(value) and abs(value) <= LARGEST_NUMBER  # a NaN is not


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _is_pairs(value: Any, first: Kind, second: Kind) -> bool:
    pairs = isinstance(value, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in value)
    return pairs and all(first.fits(one) and second.fits(other) for one, other in value)


def _pairs(first: Kind, second: Kind, said: str) -> Kind:
    pair = {"type": "array", "prefixItems": [first.schema, second.schema], "minItems": 2, "maxItems": 2}
    return Kind(lambda value: _is_pairs(value, first, second), said, {"type": "array", "items": pair})


def one_of(*values: str) -> Kind:
    """Return the kind of a string that is one of these."""
    fits = lambda value: isinstance(value, str) and value in values  # noqa: E731
    return Kind(fits, f"one of {', '.join(values)}", {"type": "string", "enum": list(values)})


def named(*values: str) -> Kind:
    """Return the kind of a string that this version chooses among these; on reading, any string fits."""
    return Kind(TEXT.fits, TEXT.said, {"type": "string", "enum": list(values)})


def an_object(said: str, kinds: Mapping[str, Kind], besides: Mapping[str, Kind] = NOTHING) -> Kind:
    """Return the kind of an object with these entries, perhaps with those of `besides`, and with no others."""
    every = {**kinds, **besides}
    properties = {name: kind.schema for name, kind in every.items()}

    def fits(value: Any) -> bool:
        return (
            isinstance(value, dict)
            and kinds.keys() <= value.keys() <= every.keys()
            and all(every[name].fits(entry) for name, entry in value.items())
        )

    schema = {"type": "object", "properties": properties, "required": list(kinds), "additionalProperties": False}
    return Kind(fits, said, schema)


TEXT = Kind(lambda value: isinstance(value, str), "a string", {"type": "string"})
FLAG = Kind(lambda value: isinstance(value, bool), "true or false", {"type": "boolean"})
COUNT = Kind(
    lambda value: _is_whole(value) and 0 <= value <= LARGEST,
    "a whole number of 0 or more",
    {"type": "integer", "minimum": 0, "maximum": LARGEST},
)
SEED = Kind(
    lambda value: _is_whole(value) and abs(value) <= LARGEST_SEED,
    "a whole number",
    {"type": "integer", "minimum": -LARGEST_SEED, "maximum": LARGEST_SEED},
)
NUMBER = Kind(_is_finite, "a finite number", {"type": "number", "minimum": -LARGEST_NUMBER, "maximum": LARGEST_NUMBER})
POSITIVE = Kind(
    lambda value: _is_finite(value) and value >= 0,
    "a finite number of 0 or more",
    {"type": "number", "minimum": 0, "maximum": LARGEST_NUMBER},
)
ANY_NUMBER = Kind(_is_number, "a number", {"type": "number"})  # a weight may be NaN
NAME = Kind(
    lambda value: isinstance(value, str) or _is_whole(value),
    "a string or a whole number",
    {"type": ["string", "integer"]},
)
NUMBERS = Kind(
    lambda value: isinstance(value, list) and all(map(_is_finite, value)),
    "a list of finite numbers",
    {"type": "array", "items": {"type": "number"}},
)
TEXTS = Kind(_is_texts, "a list of strings", {"type": "array", "items": {"type": "string"}})
STRINGS = Kind(
    lambda value: isinstance(value, str) or _is_texts(value),
    "a string or a list of strings",
    {"type": ["string", "array"], "items": {"type": "string"}},
)
# on reading nobody looks at every token: it would take as long as reading the file
TOKENS = Kind(lambda value: isinstance(value, list), "a list", {"type": "array", "items": COUNT.schema})
INDICES = _pairs(COUNT, COUNT, "a list of pairs of whole numbers")
LEAVES = _pairs(TEXT.or_null(), ANY_NUMBER, "a list of pairs of an answer and a number")
