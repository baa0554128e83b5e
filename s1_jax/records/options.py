"""Options as fields of a record, and back: the format of the text and the search."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from s1_jax.config import S1, FormatConfig, SearchConfig
from s1_jax.config.search import READ_BY, READ_BY_ALL


def format_field(format: FormatConfig) -> dict[str, Any] | None:
    """Return a record's field `format`: null where it is that of s1, as in records of earlier versions."""
    if format == S1:
        return None
    values = dataclasses.asdict(format) | {"end_markers": list(format.end_markers)}
    return {name: value for name, value in values.items() if value or name != "early_stopping_text"}


def format_of(record: Mapping[str, Any]) -> FormatConfig:
    """Return the format that a record was decoded in. Raises UserError where there is no such format."""
    values = record.get("format")
    return FormatConfig(**values | {"end_markers": tuple(values["end_markers"])}) if values else S1


def search_fields(search: SearchConfig) -> dict[str, Any]:
    """Return a record's fields of a search: the method, and the options that it reads."""
    return {name: getattr(search, name) for name in _read_by(search.method)}


def search_of(record: Mapping[str, Any]) -> SearchConfig | None:
    """Return the search of a record, None for a single run.

    Options that the method does not read are at their defaults. Raises UserError where there is no such search.
    """
    if "method" not in record:
        return None
    return SearchConfig(**{name: record[name] for name in _read_by(record["method"]) if name in record})


def _read_by(method: str) -> tuple[str, ...]:
    return ("method", *READ_BY_ALL, *READ_BY[method])
