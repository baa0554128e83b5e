"""The records of a sweep as reports read them: each is checked against the schema and counts once."""

from __future__ import annotations

import sys
from collections.abc import Hashable, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from s1_jax.errors import UserError
from s1_jax.records import Record
from s1_jax.records.check import check_config, check_record
from s1_jax.records.kinds import Kind
from s1_jax.records.lines import AGAIN, numbered_records
from s1_jax.records.setting import Setting
from s1_jax.runtime.json_input import read_object
from s1_jax.runtime.terminal import say

NOTHING: Mapping[str, Kind] = MappingProxyType({})


def read_run(run_dir: Path, needed: Mapping[str, Kind] = NOTHING) -> tuple[list[Record], dict[str, Any]]:
    """Read a run's records and its config.json.

    Raises UserError where one of the files is missing or damaged, or a record lacks one of the `needed` fields.
    """
    config = run_dir / "config.json"
    records = read_results(run_dir / "records.jsonl", needed) if config.exists() else []
    if not records:
        raise UserError(f"{run_dir} contains no records with a config.json; run python -m s1_jax.evaluate CONFIG.py")
    return records, read_config(config)


def read_config(path: Path) -> dict[str, Any]:
    """Read the config.json of a sweep. Raises UserError that names the field where it is none."""
    config = read_object(path, ours=True)
    check_config(config, str(path))
    return config


def read_results(path: Path, needed: Mapping[str, Kind] = NOTHING) -> list[Record]:
    """Read the records of a file, without a torn last line; a missing file has none.

    Of records that are there several times, the first counts, and a line on standard error says so. Raises UserError
    that names file, line and field where a line is no record, or lacks one of the `needed` fields.
    """
    seen: dict[Hashable, int] = {}
    records, again = [], []
    for number, record in numbered_records(path):
        try:
            check_record(record, f"{path}, line {number}", needed)
        except UserError as error:
            raise UserError(f"{error}; {AGAIN}") from None
        first = seen.setdefault(_key(record), number)
        if first == number:
            records.append(record)
        else:
            again.append((number, first))
    if again:
        _tell(
            f"{path}: {len(again):,} of {len(records) + len(again):,} records repeat an earlier one (line "
            f"{again[0][0]} repeats line {again[0][1]}); only the first of each counts"
        )
    return records


def _key(record: Record) -> Hashable:
    """Identify a record, with its seed at temperature 0 too: earlier versions decoded greedy settings once per seed."""
    return str(record["problem_id"]), record["seed"], record["sample"], Setting.of(record)


@cache
def _tell(line: str) -> None:
    """Print a line once per process, since a command reads its records several times."""
    say(line, file=sys.stderr)
