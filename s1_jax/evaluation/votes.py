"""Classes of equal answers, among which a majority votes: all answers to one problem under one setting.

The field `answer_class` of a record numbers the classes of equal answers (tasks/classes.py) among all samples and seeds
of its problem and setting, in the order of seed and sample. So it depends neither on the order of the records nor on
other settings. It is written when records are graded, so that reports need no grader. A problem with one record under a
setting has no vote, and its class stays null.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence

from s1_jax.records import Record, make
from s1_jax.records.setting import Setting
from s1_jax.records.verdicts import has_class
from s1_jax.runtime.progress import progress_bar
from s1_jax.tasks.classes import Classes


def with_classes(records: Sequence[Record], classes: Classes) -> list[Record]:
    """Add `answer_class` to records, in their order.

    If all records of a problem and setting have one, or there is only one record, they are returned unchanged, as the
    same objects.
    """
    pools: dict[Hashable, list[int]] = defaultdict(list)
    for i, record in enumerate(records):
        pools[record["problem_id"], Setting.of(record)].append(i)
    voting = [indices for indices in pools.values() if len(indices) > 1]
    unknown = [indices for indices in voting if not all(has_class(records[i]) for i in indices)]
    found = list(records)
    several = any(len({records[i]["extracted_answer"] for i in indices}) > 1 for indices in unknown)
    with progress_bar(shown=several) as bar:
        task = bar.add_task("equal answers", total=len(unknown), note="")
        for indices in unknown:
            indices.sort(key=lambda i: (records[i]["seed"], records[i]["sample"]))
            numbers = classes([records[i]["extracted_answer"] for i in indices])
            for i, number in zip(indices, numbers, strict=True):
                found[i] = make.classed(records[i], number)
            bar.advance(task)
    return found
