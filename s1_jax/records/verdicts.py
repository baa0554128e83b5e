"""The verdict in a record: whether a rule could decide on its answer, and which other answers equal it."""

from __future__ import annotations

from s1_jax.records import Record
from s1_jax.records.schema import value_of

UNDECIDED = ("unparsed", "undecided")


def is_undecided(record: Record) -> bool:
    """Say whether no rule could tell if the answer is right; records of early versions count as decided."""
    return value_of(record, "graded_by") in UNDECIDED and not record["correct"]


def if_undecided_right(record: Record) -> Record:
    """Return the record, with its answer counted as right where it is undecided."""
    return record | {"correct": True} if is_undecided(record) else record


def has_class(record: Record) -> bool:
    """Say whether the record tells which other answers to its problem equal its own."""
    return record["extracted_answer"] is None or value_of(record, "answer_class") is not None
