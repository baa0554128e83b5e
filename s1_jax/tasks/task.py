"""What a task is: problems with known answers, and the rules that find and grade an answer in what a model wrote."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from s1_jax.config import TaskConfig
from s1_jax.data.sources import Row, read_rows
from s1_jax.errors import UserError
from s1_jax.runtime.texts import is_unicode
from s1_jax.tasks.answers import extract_answer
from s1_jax.tasks.equivalence import Verdict, grade_math, grade_plain

QUESTION_FIELDS = ("problem", "question")
ID_FIELDS = ("id", "unique_id")


@dataclasses.dataclass(frozen=True)
class Problem:
    """One question and its right answer; `id` as the source has it."""

    id: str | int
    question: str
    gold: str


class Rules(NamedTuple):
    """How the answer is found in a response with this answer marker (None: there is none), and what is said of it."""

    extract: Callable[[str, str], str | None]
    grade: Callable[[str | None, str], Verdict]


PLAIN = Rules(extract_answer, grade_plain)
MATH = Rules(extract_answer, grade_math)


@dataclasses.dataclass(frozen=True)
class Task:
    """A config's problems, and the rules of its benchmark."""

    name: str
    problems: tuple[Problem, ...]
    rules: Rules


class Benchmark(NamedTuple):
    """What a file of this room says of a benchmark; the rules stand without the problems, to grade records again."""

    problems: Callable[[TaskConfig], tuple[Problem, ...]]
    rules: Callable[[TaskConfig], Rules]


def on_hub(name: str, split: str = "train", subset: str | None = None) -> Callable[[TaskConfig], tuple[Problem, ...]]:
    """The problems of a hub data set whose rows are as `problem_of` reads them, or of the config's own path."""
    return lambda config: problems_of(config, rows_of(config, name, split, subset), problem_of)


def rows_of(config: TaskConfig, name: str, split: str, subset: str | None = None) -> Iterable[Row]:
    """Rows of the config's path, a file, folder or hub id; without one, of this hub data set. Raises UserError."""
    return read_rows(name, split, subset) if config.path is None else read_rows(config.path, split)


def problems_of(config: TaskConfig, rows: Iterable[Row], read: Callable[[Row], Problem]) -> tuple[Problem, ...]:
    """The first `limit` rows as problems. Raises UserError where there are none, or two have the same id."""
    problems: dict[str, Problem] = {}
    for row in rows:
        if len(problems) == config.limit:
            break
        problem = read(row)
        if str(problem.id) in problems:
            raise UserError(f"{row.where}: the id {problem.id!r} is taken by an earlier row")
        problems[str(problem.id)] = problem
    if not problems:
        raise UserError(f"{config.path or config.name} holds no problems")
    return tuple(problems.values())


def problem_of(row: Row) -> Problem:
    """A row of `problem` or `question`, `answer` and perhaps `id`; one without is called by its file and line.

    Raises UserError naming file, line and field.
    """
    return Problem(id_of(row), value_of(row, QUESTION_FIELDS, str), str(value_of(row, ("answer",), str, int)))


def id_of(row: Row, names: tuple[str, ...] = ID_FIELDS) -> str | int:
    """The first of these fields the row has, else its file and line. Raises UserError on an unfit one."""
    has_id = any(row.columns.get(name) is not None for name in names)
    return value_of(row, names, str, int) if has_id else row.id


def value_of(row: Row, names: tuple[str, ...], *kinds: type) -> Any:
    """The first of these fields the row has. Raises UserError naming file, line and field."""
    present = [name for name in names if row.columns.get(name) is not None]
    if not present:
        raise UserError(f"{row.where}: no field {' or '.join(names)}; it has {', '.join(row.columns) or 'none'}")
    value = row.columns[present[0]]
    if not isinstance(value, kinds) or isinstance(value, bool) or value == "":
        expected = " or a ".join({str: "string", int: "whole number"}[kind] for kind in kinds)
        raise UserError(f"{row.where}: field {present[0]} is {value!r}; it must be a {expected}, and not empty")
    if isinstance(value, str) and not is_unicode(value):
        raise UserError(f"{row.where}: field {present[0]} holds half of a surrogate pair; it is not valid Unicode")
    return value
