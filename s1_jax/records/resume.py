"""A file of records that one command writes in a fixed order: how much of it an earlier start has finished."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from s1_jax.errors import UserError
from s1_jax.records import Record
from s1_jax.records.setting import first_difference
from s1_jax.runtime.json_input import loads


def resume(path: Path, expected: Sequence[Record]) -> int:
    """Return how many records `path` has, after cutting off what a kill left of one more.

    `expected` is what is known of each record before it is made. Raises UserError saying what is wrong with the file
    where a record was not made by this very command.
    """
    if not path.exists():
        return 0
    *lines, rest = path.read_bytes().split(b"\n")
    if len(lines) > len(expected):
        raise UserError(f"has {len(lines)} lines, more than the {len(expected)} prompts")
    for number, (line, wanted) in enumerate(zip(lines, expected, strict=False), start=1):
        try:
            record = loads(line, ours=True)
        except ValueError as error:
            raise UserError(f"line {number} is not a record ({error})") from None
        if field := first_difference(record if isinstance(record, dict) else {}, wanted):
            raise UserError(f"line {number} was made by another command (its {field} differs)")
    if rest and not rest.startswith(b'{"task"'[: len(rest)]):
        raise UserError("ends in something that is not a record")
    if rest:
        os.truncate(path, path.stat().st_size - len(rest))
    return len(lines)
