"""The file of records: one JSON object per line, appended as they come, whole again after a kill."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from s1_jax.config import UserError
from s1_jax.json_input import parse_lines, read_object

Record = dict[str, Any]


def read_records(path: Path) -> list[Record]:
    """All whole lines of a records file, none where there is no file; a torn last line is left out.

    Raises UserError naming file and line where any other line is not a JSON object.
    """
    if not path.exists():
        return []
    try:
        return [record for _, record in parse_lines(_whole(path.read_bytes()).split(b"\n"), str(path), ours=True)]
    except UserError as error:
        raise UserError(f"{error}; remove that line, it will be made again") from None


def read_run(run_dir: Path) -> tuple[list[Record], dict[str, Any]]:
    """A run's records and its config.json. Raises UserError where one of them is missing."""
    records, config = read_records(run_dir / "records.jsonl"), run_dir / "config.json"
    if not records or not config.exists():
        raise UserError(f"{run_dir} holds no records with a config.json; run python -m s1_jax.evaluate CONFIG.py")
    return records, read_object(config, ours=True)


def cut_torn_line(path: Path) -> None:
    """Shortens a records file to its whole lines, so that appending to it begins a new one."""
    if path.exists():
        with path.open("r+b") as file:
            file.truncate(len(_whole(file.read())))


def part_of(path: Path, index: int) -> Path:
    """The file beside `path` that process `index` appends to; the first one's is `path` itself."""
    return path.with_name(f"{path.stem}-{index}{path.suffix}") if index else path


def gather_parts(path: Path) -> None:
    """Puts what other processes left beside a records file into it; a line that is there already, by a kill, once."""
    parts = sorted(path.parent.glob(f"{path.stem}-[0-9]*{path.suffix}"))
    if not parts:
        return
    lines = dict.fromkeys(
        line for part in (path, *parts) if part.exists() for line in _whole(part.read_bytes()).splitlines()
    )
    replace_file(path, b"".join(line + b"\n" for line in lines))
    for part in parts:
        part.unlink()


def replace_file(path: Path, contents: bytes) -> None:
    """Writes the file beside, and puts it in place once it is on disk: at any moment it is the old one or the new."""
    beside = path.with_name(path.name + ".new")
    with beside.open("wb") as file:
        file.write(contents)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def record_line(record: Record) -> str:
    """A record as its line in the file."""
    return json.dumps(record, ensure_ascii=False) + "\n"


def _whole(contents: bytes) -> bytes:
    return contents[: contents.rfind(b"\n") + 1]
