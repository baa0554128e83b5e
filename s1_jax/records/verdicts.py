"""What a record says of its answer: whether a rule could decide, and which other answers it equals."""

from __future__ import annotations

from s1_jax.records import Record
from s1_jax.records.schema import value_of

UNDECIDED = ("unparsed", "undecided")


def is_undecided(record: Record) -> bool:
    """Whether no rule could tell if the answer is right. Records of early versions do not say, and count as decided."""
    return value_of(record, "graded_by") in UNDECIDED and not record["correct"]


def if_undecided_right(record: Record) -> Record:
    """The record as it would be if its answer, where it is undecided, were the right one."""
    return record | {"correct": True} if is_undecided(record) else record


def has_class(record: Record) -> bool:
    """Whether it is known which other answers to its problem this one equals."""
    return record["extracted_answer"] is None or value_of(record, "answer_class") is not None
