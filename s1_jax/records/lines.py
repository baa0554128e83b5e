"""Files of records: one JSON object per line, appended one by one. A kill damages the last line at most."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from s1_jax.errors import UserError
from s1_jax.records import Record
from s1_jax.runtime.files import write_whole
from s1_jax.runtime.json_input import loads, parse_lines

AGAIN = "remove that line, it will be made again"
PART = ".process-"  # followed by the number of a process; people do not name copies so


def read_records(path: Path) -> list[Record]:
    """Read the whole lines of a file of records, without a torn last line; a missing file has none.

    Raises UserError naming file and line where any other line is not a JSON object.
    """
    return [record for _, record in numbered_records(path)]


def numbered_records(path: Path) -> Iterator[tuple[int, Record]]:
    """Read the same, and give each record with the number of its line."""
    if not path.exists():
        return
    try:
        yield from parse_lines(_whole(path.read_bytes()).split(b"\n"), str(path), ours=True)
    except UserError as error:
        raise UserError(f"{error}; {AGAIN}") from None


def cut_torn_line(path: Path) -> None:
    """Remove a torn last line from a file of records, so that the next record begins a line."""
    if path.exists():
        with path.open("r+b") as file:
            contents = file.read()
            whole = _whole(contents)
            if len(whole) > len(contents):
                file.write(whole[len(contents) :])
            file.truncate(len(whole))


def part_of(path: Path, index: int) -> Path:
    """Return the file beside `path` that process `index` appends to; the first process appends to `path` itself."""
    return path.with_name(f"{path.stem}{PART}{index}{path.suffix}") if index else path


def parts_of(path: Path) -> list[Path]:
    """Return the files of one run's records that exist: the first process's and those of the others."""
    names = re.compile(f"{re.escape(path.stem + PART)}[1-9][0-9]*{re.escape(path.suffix)}")
    others = path.parent.iterdir() if path.parent.is_dir() else ()
    parts = sorted(other for other in others if names.fullmatch(other.name) and other.is_file())
    return [path, *parts] if path.exists() else parts


def gather_parts(path: Path) -> None:
    """Move the records of other processes into the first one's file. A line that a kill left in both is kept once."""
    parts = parts_of(path)
    if parts in ([], [path]):
        return
    lines = dict.fromkeys(line for part in parts for line in _whole(part.read_bytes()).splitlines())
    write_whole(path, b"".join(line + b"\n" for line in lines))
    for part in parts:
        if part != path:
            part.unlink()


def record_line(record: Record) -> str:
    """Return the line of a record. Half of a surrogate pair, which UTF-8 cannot hold, is written as a JSON escape."""
    return json.dumps(record, ensure_ascii=False).encode(errors="backslashreplace").decode() + "\n"


def _whole(contents: bytes) -> bytes:
    """Return the contents without a torn last line. One that only lacks its newline, as editors leave it, gets it."""
    end = contents.rfind(b"\n") + 1
    try:
        loads(contents[end:], ours=True)
    except ValueError:
        return contents[:end]
    return contents + b"\n"
