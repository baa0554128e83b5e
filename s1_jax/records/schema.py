"""What a record of a sweep and a run's config.json may hold: every refusal names file, line and field.

Records of earlier versions lack fields; those that all versions wrote are required.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, get_args, get_type_hints

from s1_jax.config import EvaluateConfig, FormatConfig, SearchConfig
from s1_jax.config.instructions import parse_instruction
from s1_jax.config.model_fields import Fields
from s1_jax.config.search import READ_BY
from s1_jax.errors import UserError

LARGEST = 2**53  # of counts; larger ones are no sums of tokens
LARGEST_SEED = 2**64


class Kind(NamedTuple):
    """What a value may be, and how that is said."""

    fits: Callable[[Any], bool]
    said: str

    def or_null(self) -> Kind:
        """The same, or null."""
        return Kind(lambda value: value is None or self.fits(value), f"{self.said} or null")


def _is_whole(value: Any, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1e300  # a NaN is not


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _is_pairs(value: Any, first: Kind, second: Kind) -> bool:
    pairs = isinstance(value, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in value)
    return pairs and all(first.fits(one) and second.fits(other) for one, other in value)


def _one_of(*values: str) -> Kind:
    return Kind(lambda value: isinstance(value, str) and value in values, f"one of {', '.join(values)}")


TEXT = Kind(lambda value: isinstance(value, str), "a string")
FLAG = Kind(lambda value: isinstance(value, bool), "true or false")
COUNT = Kind(lambda value: _is_whole(value, LARGEST), "a whole number of 0 or more")
SEED = Kind(
    lambda value: isinstance(value, int) and not isinstance(value, bool) and abs(value) < LARGEST_SEED, "a whole number"
)
NUMBER = Kind(_is_number, "a finite number")
POSITIVE = Kind(lambda value: _is_number(value) and value >= 0, "a finite number of 0 or more")
LIST = Kind(lambda value: isinstance(value, list), "a list")
NAME = Kind(
    lambda value: isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)),
    "a string or a whole number",
)
STRINGS = Kind(lambda value: isinstance(value, str) or _is_texts(value), "a string or a list of strings")
PLACES = Kind(lambda value: _is_pairs(value, COUNT, COUNT), "a list of pairs of whole numbers")
WEIGHT = Kind(lambda value: isinstance(value, int | float) and not isinstance(value, bool), "a number")  # perhaps NaN
LEAVES = Kind(lambda value: _is_pairs(value, TEXT.or_null(), WEIGHT), "a list of pairs of an answer and a number")

REQUIRED = {
    "task": TEXT,
    "problem_id": NAME,
    "sample": COUNT,
    "seed": SEED,
    "temperature": POSITIVE,
    "top_k": COUNT,
    "top_p": POSITIVE,
    "min_p": POSITIVE,
    "forcing": FLAG,
    "min_thinking_tokens": COUNT,
    "max_thinking_tokens": COUNT.or_null(),
    "num_ignore": COUNT,
    "ignore_string": STRINGS.or_null(),
    "num_thinking_tokens": COUNT,
    "num_answer_tokens": COUNT,
    "end": TEXT,
    "answer_end": TEXT,
    "ignores_used": COUNT,
    "extracted_answer": TEXT.or_null(),
    "correct": FLAG,
}
OPTIONAL = {
    "newline_grace": POSITIVE,
    "end_bias": POSITIVE,
    "max_new_tokens": COUNT.or_null(),
    "instruction": TEXT.or_null(),
    "max_tries": COUNT,
    "tries": COUNT,
    "tried_tokens": COUNT,
    "reward": TEXT.or_null(),
    "graded_by": TEXT.or_null(),
    "answer_class": COUNT.or_null(),
    "gold": TEXT.or_null(),
    "question": TEXT.or_null(),
    "text": TEXT.or_null(),
    "prompt_token_ids": LIST,
    "thinking_token_ids": LIST.or_null(),
    "answer_token_ids": LIST.or_null(),
    "ignored_ends": PLACES,
    "stop_tokens": STRINGS,
}
OF_SEARCHES = {  # records with a `method` have these too
    "leaves": LEAVES,
    "generated_tokens": COUNT,
    "longest_path_tokens": COUNT,
    "reward_tokens": COUNT,
    "cut_texts": COUNT,
    "decoding_seconds": POSITIVE,
    "reward_seconds": POSITIVE,
}
FORMAT = {"think_start": TEXT, "answer_start": TEXT, "final_answer": TEXT, "end_markers": Kind(_is_texts, "strings")}
SEARCH = {
    "method": _one_of(*READ_BY),
    **{name: _one_of(*get_args(get_type_hints(SearchConfig)[name])) for name in ("path_score", "vote", "reads")},
    **dict.fromkeys(("width", "branch", "max_nodes"), COUNT),
    "max_steps": COUNT.or_null(),
    **dict.fromkeys(("score_temperature", "exploration", "widening", "widening_power"), NUMBER),
}
TASK = {"name": TEXT, "path": TEXT.or_null(), "limit": COUNT.or_null(), "seed": SEED, "no_letter_is_a": FLAG}
TO_GRADE = {"text": TEXT, "gold": TEXT}  # what a record is graded again by


def check_record(record: Mapping[str, Any], where: str, needed: Mapping[str, Kind]) -> None:
    """Raises UserError where a record of a sweep is none that this project writes, or lacks one of the `needed`."""
    fields = Fields(record, where)
    check_fields(fields, {**REQUIRED, **needed}, OPTIONAL)
    if fields.given("instruction"):
        _refused(fields, "instruction", lambda: parse_instruction(record["instruction"]))
    if fields.given("format"):
        _check_format(fields)
    if "method" in record:
        check_fields(fields, OF_SEARCHES | {"method": SEARCH["method"]}, SEARCH)
        _refused(fields, "method", lambda: SearchConfig.of_record(record))


def check_config(config: Mapping[str, Any], where: str) -> None:
    """Raises UserError where what is read of a sweep's config.json is of another type than `evaluate` writes."""
    fields = Fields(config, where)
    sections = {field.name for field in dataclasses.fields(EvaluateConfig) if dataclasses.is_dataclass(field.default)}
    found = {name: fields.section(name) for name in sorted(sections)}
    check_fields(found["task"], {}, TASK)
    check_fields(found["sweep"], {}, {"scaling": _one_of("within", "across")})
    if fields.given("format"):
        _check_format(fields)


def check_fields(fields: Fields, required: Mapping[str, Kind], optional: Mapping[str, Kind]) -> None:
    """Raises UserError, naming the field, where one of the required is missing or any is of another kind."""
    if missing := [name for name in required if name not in fields]:
        raise UserError(f"{fields.source} lacks {missing[0]}")
    for name, kind in {**optional, **required}.items():
        if name in fields and not kind.fits(fields.values[name]):
            fields.refuse(name, fields.values[name], f"it must be {kind.said}")


def _check_format(fields: Fields) -> None:
    markers = fields.section("format")
    check_fields(markers, FORMAT, {})
    if unknown := markers.values.keys() - FORMAT.keys():
        markers.refuse(min(unknown), markers.values[min(unknown)], f"there are only {', '.join(FORMAT)}")
    _refused(fields, "format", lambda: FormatConfig.of_record(fields.values))


def _refused(fields: Fields, name: str, make: Callable[[], Any]) -> None:
    """Says where a value stands that the project's own types refuse."""
    try:
        make()
    except UserError as error:
        fields.refuse(name, fields.values[name], str(error))
