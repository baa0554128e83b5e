"""Grades records by the rules of their task: the answer, whether it is right, and which answers are equal."""

from __future__ import annotations

from s1_jax.evaluation.votes import with_classes
from s1_jax.records import Record, make
from s1_jax.records.lines import record_line
from s1_jax.records.options import format_of
from s1_jax.records.results import read_results
from s1_jax.runtime.files import write_whole
from s1_jax.runtime.storage import Mirror
from s1_jax.tasks import Rules
from s1_jax.tasks.answers import written
from s1_jax.tasks.classes import grader_classes


def graded(rules: Rules, record: Record) -> Record:
    """Return the record with the answer that the rules find in its text, and their verdict on it."""
    extracted = rules.extract(written(record), format_of(record).answer_start)
    verdict = rules.grade(extracted, record["gold"])
    return make.graded(record, extracted_answer=extracted, correct=verdict.correct, graded_by=verdict.by)


def put_into_classes(folder: Mirror, rules: Rules) -> None:
    """Write into the records which answers to a problem are equal. Raises RunError as the grader does."""
    path = folder.local / "records.jsonl"
    before = read_results(path)
    after = with_classes(before, grader_classes(rules))
    if any(new is not old for new, old in zip(after, before, strict=True)):
        write_whole(path, "".join(map(record_line, after)))
        folder.keep()
