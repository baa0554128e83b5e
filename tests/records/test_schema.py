"""The schema of a record is one table: the checks on reading, the JSON Schema and the decoder's own names agree."""

from __future__ import annotations

import dataclasses
import json
from typing import get_args

import pytest

from s1_jax.config import S1, BudgetConfig, SamplingConfig, SearchConfig
from s1_jax.data.chat import STOP_TOKENS
from s1_jax.decoding.core.budget import AnswerEnd, End
from s1_jax.records.json_schema import FILE, json_schema, json_schema_text
from s1_jax.records.options import format_field, format_of, search_fields, search_of
from s1_jax.records.schema import ASKED, FIELDS, GROUPS, REQUIRED, SEARCH, UNUSUAL, SameAs, Writer, value_of
from s1_jax.records.setting import Setting
from s1_jax.tasks.equivalence import GradedBy
from tests.records.json_schema import errors

INFINITY, NAN = float("inf"), float("nan")
VALUES = (
    *(None, True, False, 0, 1, -1, 2**53, 2**53 + 1, 2**64 - 1, 2**64, 10**400, 0.0, 0.5, -0.5, 1e301, INFINITY, NAN),
    *("", "Wait", "best", "loud", "process", "rebase", [], ["a"], [1], [None], [[]], [[1]], [[1, 2]], [[1, 2, 3]]),
    *([["a", 1]], [[None, 0.5]], [["a", NAN]], [["a", "b"]], [[1, -2]], {}, {"a": 1}, S1.__dict__),
    *(format_field(S1) or dataclasses.asdict(S1) | {"end_markers": ["x"]}, {"weights": "int8", "cache": "int8"}),
    *({"weights": 8, "cache": "int8"}, dataclasses.asdict(SamplingConfig()), {"temperature": -1.0}),
)
LENIENT = {  # on reading, more fits: names of other versions, and tokens that nobody looks at
    **dict.fromkeys(("end", "answer_end", "graded_by"), str),
    **dict.fromkeys(("prompt_token_ids", "thinking_token_ids", "answer_token_ids"), list),
}


def test_each_field_stands_once_and_says_what_it_is():
    assert sum(len(group.fields) for group in GROUPS) == len(FIELDS)
    for field in FIELDS.values():
        assert field.by in get_args(Writer)
        assert field.text.endswith(".") and len(field.text.split()) >= 3, field.name
        if isinstance(field.absent, SameAs):
            assert field.absent.name in FIELDS
        elif field.absent is not REQUIRED and field.absent is not None:
            assert field.kind.fits(field.absent), field.name


@pytest.mark.parametrize("name", FIELDS)
def test_reading_and_the_json_schema_take_the_same_values(name):
    kind = FIELDS[name].kind
    for value in VALUES:
        found = errors(value, kind.schema)
        assert kind.fits(value) == (not found) or isinstance(value, LENIENT.get(name, ())), (value, found)
        assert kind.or_null().fits(value) == (value is None or kind.fits(value))
    assert not errors(None, kind.or_null().schema)


def test_the_shipped_file_is_the_schema():
    assert FILE.read_text() == json_schema_text(), (
        "python -m s1_jax.records.json_schema > s1_jax/assets/record.schema.json makes it again"
    )
    assert json.loads(FILE.read_text()) == json_schema()


def test_the_names_of_ends_and_rules_are_those_of_the_code():
    assert {*FIELDS["end"].kind.schema["enum"]} == {end.name.lower() for end in End}
    assert {*FIELDS["answer_end"].kind.schema["enum"]} == {end.name.lower() for end in AnswerEnd}
    assert {*FIELDS["graded_by"].kind.schema["enum"]} == {*get_args(GradedBy), None}
    assert FIELDS["stop_tokens"].absent == sorted(STOP_TOKENS)


def test_every_option_of_a_budget_and_of_a_search_is_a_field():
    options = [field.name for config in (BudgetConfig, SamplingConfig) for field in dataclasses.fields(config)]
    assert {*options} <= {*ASKED.names, *UNUSUAL.names}
    read = {field.name for field in dataclasses.fields(SearchConfig)} - {"problems_at_a_time"}
    assert read | {"reward"} == {*SEARCH.names}
    for name in read - {"method"}:
        assert FIELDS[name].absent == getattr(SearchConfig(), name)


def test_a_setting_takes_what_absence_means_from_the_schema():
    usual = {field.name: field.default for field in dataclasses.fields(Setting)}
    for name in usual.keys() & FIELDS.keys():
        assert (FIELDS[name].absent is REQUIRED) == (usual[name] is dataclasses.MISSING)
        value = list(usual[name]) if isinstance(usual[name], tuple) else usual[name]
        assert value is dataclasses.MISSING or value == FIELDS[name].absent


def test_absence_means_a_value():
    record = {"num_thinking_tokens": 9, "max_tries": 3}
    assert [value_of(record, name) for name in ("max_tries", "tries", "tried_tokens", "method")] == [3, 1, 9, None]
    with pytest.raises(KeyError, match="seed"):
        value_of(record, "seed")


def test_options_come_back_from_their_fields():
    for method in SEARCH.fields[0].kind.schema["enum"]:
        search = SearchConfig(method, width=8, branch=2)
        read = search_fields(search)
        assert search_of(read) == SearchConfig(**read)
    assert search_of({}) is None
    other = dataclasses.replace(S1, think_start="<think>", end_markers=("</think>",))
    assert format_of({"format": json.loads(json.dumps(format_field(other)))}) == other
    assert format_of({"format": format_field(S1)}) == format_of({}) == S1
