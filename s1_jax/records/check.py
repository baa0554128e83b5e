"""Checks on reading: what a record of a sweep and a run's config.json may hold. A refusal names file, line and field.

Records of earlier versions lack fields; those that all versions wrote are required.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from s1_jax.config import EvaluateConfig
from s1_jax.config.instructions import parse_instruction
from s1_jax.config.model_fields import Fields
from s1_jax.errors import UserError
from s1_jax.records.kinds import COUNT, FLAG, SEED, TEXT, Kind, one_of
from s1_jax.records.options import format_of, search_of
from s1_jax.records.schema import FIELDS, FORMAT, FORMAT_BESIDES, GROUPS, MADE_BY, REQUIRED, SEARCHED

TASK = {"name": TEXT, "path": TEXT.or_null(), "limit": COUNT.or_null(), "seed": SEED, "no_letter_is_a": FLAG}
OPTIONAL = {name: field.kind for name, field in FIELDS.items() if name not in (*MADE_BY.names, "format")}
ALWAYS = [field for group in GROUPS if group is not SEARCHED for field in group.fields if field.absent is REQUIRED]
NEEDED = {field.name: field.kind for field in ALWAYS}
NEEDED_OF_SEARCHES = {field.name: field.kind for field in SEARCHED.fields if field.absent is REQUIRED}
TO_GRADE = {"text": TEXT, "gold": TEXT}  # what a record is graded again by


def check_record(record: Mapping[str, Any], where: str, needed: Mapping[str, Kind]) -> None:
    """Check a record of a sweep against the schema.

    Raises UserError, naming the field, where this project writes no such record, or where it lacks a `needed` field.
    """
    fields = Fields(record, where)
    of_searches = NEEDED_OF_SEARCHES if "method" in record else {}
    check_fields(fields, {**NEEDED, **of_searches, **needed}, OPTIONAL)
    if fields.given("instruction"):
        _refused(fields, "instruction", lambda: parse_instruction(record["instruction"]))
    if fields.given("format"):
        _check_format(fields)
    if "method" in record:
        _refused(fields, "method", lambda: search_of(record))


def check_config(config: Mapping[str, Any], where: str) -> None:
    """Check what is read of a sweep's config.json. Raises UserError where `evaluate` writes another type."""
    fields = Fields(config, where)
    sections = {field.name for field in dataclasses.fields(EvaluateConfig) if dataclasses.is_dataclass(field.default)}
    found = {name: fields.section(name) for name in sorted(sections)}
    check_fields(found["task"], {}, TASK)
    check_fields(found["sweep"], {}, {"scaling": one_of("within", "across")})
    if fields.given("format"):
        _check_format(fields)


def check_fields(fields: Fields, required: Mapping[str, Kind], optional: Mapping[str, Kind]) -> None:
    """Check the fields of one JSON object. Raises UserError where a required one is missing or one does not fit."""
    if missing := [name for name in required if name not in fields]:
        raise UserError(f"{fields.source} lacks {missing[0]}")
    for name, kind in {**optional, **required}.items():
        if name in fields and not kind.fits(fields.values[name]):
            fields.refuse(name, fields.values[name], f"it must be {kind.said}")


def _check_format(fields: Fields) -> None:
    markers = fields.section("format")
    check_fields(markers, FORMAT, FORMAT_BESIDES)
    known = FORMAT | FORMAT_BESIDES
    if unknown := markers.values.keys() - known.keys():
        markers.refuse(min(unknown), markers.values[min(unknown)], f"there are only {', '.join(known)}")
    _refused(fields, "format", lambda: format_of(fields.values))


def _refused(fields: Fields, name: str, make: Callable[[], Any]) -> None:
    """Say where a value stands that the project's own types refuse."""
    try:
        make()
    except UserError as error:
        fields.refuse(name, fields.values[name], str(error))
