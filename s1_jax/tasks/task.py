"""Types and readers of tasks: problems with known answers, and the rules that extract and grade answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from s1_jax.config import TaskConfig
from s1_jax.data.sources import DataRow, read_rows
from s1_jax.errors import UserError
from s1_jax.runtime.texts import NOT_UNICODE, is_unicode
from s1_jax.tasks.answers import extract_answer
from s1_jax.tasks.equivalence import Verdict, grade_math, grade_plain

QUESTION_FIELDS = ("problem", "question")
ID_FIELDS = ("id", "unique_id", "problem_idx")
KINDS = {str: "a string", int: "a whole number", bool: "true or false", list: "a list"}


@dataclasses.dataclass(frozen=True)
class Problem:
    """One question with its gold answer, and the id from its source."""

    id: str | int
    question: str
    gold: str


class Rules(NamedTuple):
    """Functions that extract and grade answers.

    `extract(response, answer_start)` returns the answer or None; `grade(answer, gold)` returns the verdict.
    """

    extract: Callable[[str, str], str | None]
    grade: Callable[[str | None, str], Verdict]


PLAIN = Rules(extract_answer, grade_plain)
MATH = Rules(extract_answer, grade_math)


@dataclasses.dataclass(frozen=True)
class Task:
    """Problems selected by a config, with the rules of their benchmark."""

    name: str
    problems: tuple[Problem, ...]
    rules: Rules


class Benchmark(NamedTuple):
    """Loaders of one benchmark's problems and rules; records can be graded again without the problems."""

    problems: Callable[[TaskConfig], tuple[Problem, ...]]
    rules: Callable[[TaskConfig], Rules]


def on_hub(name: str, split: str = "train", subset: str | None = None) -> Callable[[TaskConfig], tuple[Problem, ...]]:
    """Return a loader of a hub data set, or of the config's own path, with rows for `problem_of`."""
    return lambda config: problems_of(config, rows_of(config, name, split, subset), problem_of)


def rows_of(config: TaskConfig, name: str, split: str, subset: str | None = None) -> Iterable[DataRow]:
    """Read rows from the config's path (a file, folder or hub id) or, without one, from this hub data set.

    Raises UserError if they cannot be read.
    """
    return read_rows(name, split, subset) if config.path is None else read_rows(config.path, split)


def problems_of(config: TaskConfig, rows: Iterable[DataRow], read: Callable[[DataRow], Problem]) -> tuple[Problem, ...]:
    """Read the first `limit` rows as problems. Raises UserError if there are none or two have the same id."""
    problems: dict[str, Problem] = {}
    for row in rows:
        if len(problems) == config.limit:
            break
        problem = read(row)
        if str(problem.id) in problems:
            raise UserError(f"{row.where}: an earlier row has the same id {problem.id!r}; ids must be unique")
        problems[str(problem.id)] = problem
    if not problems:
        raise UserError(f"{config.path or config.name} contains no problems")
    return tuple(problems.values())


def problem_of(row: DataRow) -> Problem:
    """Read a row with `problem` or `question`, `answer`, and optionally `id`; the default id is its file and line.

    Raises UserError that names file, line and field.
    """
    return Problem(id_of(row), value_of(row, QUESTION_FIELDS, str), str(value_of(row, ("answer",), str, int)))


def id_of(row: DataRow, names: tuple[str, ...] = ID_FIELDS) -> str | int:
    """Return the first of these fields that the row has, else its file and line. Raises UserError on a wrong type."""
    has_id = any(row.columns.get(name) is not None for name in names)
    return value_of(row, names, str, int) if has_id else row.id


def value_of(row: DataRow, names: tuple[str, ...], *kinds: type) -> Any:
    """Return the first of these fields that the row has.

    Raises UserError that names file, line and field if none is present, or its value has the wrong type or is empty.
    """
    present = [name for name in names if row.columns.get(name) is not None]
    if not present:
        raise UserError(f"{row.where}: no field {' or '.join(names)}; it has {', '.join(row.columns) or 'none'}")
    value = row.columns[present[0]]
    if type(value) not in kinds or value in ("", []):  # not isinstance: a bool is an int
        expected = " or ".join(KINDS[kind] for kind in kinds)
        raise UserError(f"{row.where}: field {present[0]} is {value!r}; it must be {expected} and not empty")
    texts = value if isinstance(value, list) else [value]
    if not all(is_unicode(text) for text in texts if isinstance(text, str)):
        raise UserError(f"{row.where}: field {present[0]} {NOT_UNICODE}")
    return value
