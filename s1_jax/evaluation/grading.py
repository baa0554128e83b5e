"""What only the task knows of a record: its answer, whether it is right, and which answers are equal."""

from __future__ import annotations

from s1_jax.records import Record
from s1_jax.records.lines import record_line
from s1_jax.records.options import format_of
from s1_jax.records.results import read_results
from s1_jax.reporting.votes import with_classes
from s1_jax.runtime.files import write_whole
from s1_jax.runtime.storage import Mirror
from s1_jax.tasks import Problem, Rules, Task
from s1_jax.tasks.answers import written
from s1_jax.tasks.classes import grader_classes


def graded(task: Task, problem: Problem, record: Record) -> Record:
    """The record with what only the task knows."""
    extracted = task.rules.extract(written(record), format_of(record).answer_start)
    verdict = task.rules.grade(extracted, problem.gold)
    known = {"task": task.name, "question": problem.question, "gold": problem.gold}
    judged = {"extracted_answer": extracted, "correct": verdict.correct, "graded_by": verdict.by}
    return record | known | judged


def put_into_classes(folder: Mirror, rules: Rules) -> None:
    """Notes in the records which answers to a problem are equal. Raises RunError as the grader does."""
    path = folder.local / "records.jsonl"
    before = read_results(path)
    after = with_classes(before, grader_classes(rules))
    if any(new is not old for new, old in zip(after, before, strict=True)):
        write_whole(path, "".join(map(record_line, after)))
        folder.keep()
