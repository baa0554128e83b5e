"""The tasks by name, and their problems: made on the spot, or rows of a file, a folder or a hub data set."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from s1_jax.config import TaskConfig, UserError
from s1_jax.data.sources import Row, read_rows
from s1_jax.data.synthetic import generate_problems
from s1_jax.tasks.answers import extract_answer, same_answer

DEFAULT_PROBLEMS = 500  # of a task that makes its own
QUESTION_FIELDS = ("problem", "question")
ID_FIELDS = ("id", "unique_id")


@dataclasses.dataclass(frozen=True)
class Problem:
    """One question and its right answer; `id` as the source has it."""

    id: str | int
    question: str
    gold: str


@dataclasses.dataclass(frozen=True)
class Task:
    """Problems, how the answer is found in a response (None: there is none), and when it is right."""

    name: str
    problems: tuple[Problem, ...]
    extract: Callable[[str], str | None]
    grade: Callable[[str | None, str], bool]


def load_task(config: TaskConfig) -> Task:
    """The task a config names, with at most `limit` problems.

    Raises UserError on an unknown name, a path that cannot be read, and an unusable row, naming file, line and field.
    """
    if config.name not in TASKS:
        raise UserError(f"unknown task {config.name!r}; known: {', '.join(TASKS)}")
    if config.limit is not None and config.limit < 1:
        raise UserError(f"task.limit {config.limit} is below 1")
    return TASKS[config.name](config)


def synthetic(config: TaskConfig) -> Task:
    """The tiny task: held-out problems made from the seed, or those of a file."""
    if config.path is not None:
        return _from_rows(config, config.path)
    made = generate_problems(config.seed, config.limit or DEFAULT_PROBLEMS)
    problems = tuple(Problem(row["id"], row["problem"], row["answer"]) for row in made)
    return Task(config.name, problems, extract_answer, same_answer)


def aime24(config: TaskConfig) -> Task:
    """AIME 2024, whose answers are whole numbers from 0 to 999: s1's release without figures, or another copy of it."""
    return _from_rows(config, config.path or "simplescaling/aime24_nofigures")


def jsonl(config: TaskConfig) -> Task:
    """Any problems with one right answer each, a number or a string: rows of `problem`, `answer` and perhaps `id`."""
    if config.path is None:
        raise UserError("the task 'jsonl' needs --task.path, a JSONL file with fields problem, answer and perhaps id")
    return _from_rows(config, config.path)


TASKS: dict[str, Callable[[TaskConfig], Task]] = {"synthetic": synthetic, "aime24": aime24, "jsonl": jsonl}


def _from_rows(config: TaskConfig, path: str) -> Task:
    problems: dict[str, Problem] = {}
    for row in read_rows(path, "train"):
        if len(problems) == config.limit:
            break
        problem = _problem(row)
        if str(problem.id) in problems:
            raise UserError(f"{row.where}: the id {problem.id!r} is taken by an earlier row")
        problems[str(problem.id)] = problem
    if not problems:
        raise UserError(f"{path} holds no problems")
    return Task(config.name, tuple(problems.values()), extract_answer, same_answer)


def _problem(row: Row) -> Problem:
    """A row as a problem; one without an id is called by its file and line."""
    question = _value(row, QUESTION_FIELDS, str)
    answer = _value(row, ("answer",), str, int)
    has_id = any(row.columns.get(name) is not None for name in ID_FIELDS)
    identity = _value(row, ID_FIELDS, str, int) if has_id else row.id
    return Problem(identity, question, str(answer))


def _value(row: Row, names: tuple[str, ...], *kinds: type) -> Any:
    """The first of these fields the row has. Raises UserError naming file, line and field."""
    present = [name for name in names if row.columns.get(name) is not None]
    if not present:
        raise UserError(f"{row.where}: no field {' or '.join(names)}; it has {', '.join(row.columns) or 'none'}")
    value = row.columns[present[0]]
    if not isinstance(value, kinds) or isinstance(value, bool) or value == "":
        expected = " or a ".join({str: "string", int: "whole number"}[kind] for kind in kinds)
        raise UserError(f"{row.where}: field {present[0]} is {value!r}; it must be a {expected}, and not empty")
    return value
