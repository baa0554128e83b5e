"""The records of a sweep as reports read them: each checked (schema.py), and each once."""

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
    """A run's records, which must have the `needed` fields too, and its config.json.

    Raises UserError where one of them is missing or damaged.
    """
    config = run_dir / "config.json"
    records = read_results(run_dir / "records.jsonl", needed) if config.exists() else []
    if not records:
        raise UserError(f"{run_dir} holds no records with a config.json; run python -m s1_jax.evaluate CONFIG.py")
    return records, read_config(config)


def read_config(path: Path) -> dict[str, Any]:
    """The config.json of a sweep. Raises UserError that names the field where it is none."""
    config = read_object(path, ours=True)
    check_config(config, str(path))
    return config


def read_results(path: Path, needed: Mapping[str, Kind] = NOTHING) -> list[Record]:
    """The records of a file, none where there is no file; a torn last line is left out.

    A record that is there twice counts once, the first, and that is told on standard error. Raises UserError that names
    file, line and field where a line is no record.
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
            f"{path}: {len(again):,} of {len(records) + len(again):,} records are there already, as on line "
            f"{again[0][0]} that of line {again[0][1]}; each counts once, as it is first written"
        )
    return records


def _key(record: Record) -> Hashable:
    """With the seed also where nothing is drawn: earlier versions decoded that under each seed."""
    return str(record["problem_id"]), record["seed"], record["sample"], Setting.of(record)


@cache
def _tell(line: str) -> None:
    """Once a process: a command reads its records several times."""
    say(line, file=sys.stderr)
