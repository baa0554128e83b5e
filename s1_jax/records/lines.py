"""The file of records: one JSON object per line, appended as they come, whole again after a kill."""

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
PART = ".process-"  # and the number of a process: no name that people give to a copy


def read_records(path: Path) -> list[Record]:
    """All whole lines of a records file, none where there is no file; a torn last line is left out.

    Raises UserError naming file and line where any other line is not a JSON object.
    """
    return [record for _, record in numbered_records(path)]


def numbered_records(path: Path) -> Iterator[tuple[int, Record]]:
    """The same, each with the number of its line."""
    if not path.exists():
        return
    try:
        yield from parse_lines(_whole(path.read_bytes()).split(b"\n"), str(path), ours=True)
    except UserError as error:
        raise UserError(f"{error}; {AGAIN}") from None


def cut_torn_line(path: Path) -> None:
    """Leaves whole lines alone in a records file, so that appending to it begins a new one."""
    if path.exists():
        with path.open("r+b") as file:
            contents = file.read()
            whole = _whole(contents)
            if len(whole) > len(contents):
                file.write(whole[len(contents) :])
            file.truncate(len(whole))


def part_of(path: Path, index: int) -> Path:
    """The file beside `path` that process `index` appends to; the first one's is `path` itself."""
    return path.with_name(f"{path.stem}{PART}{index}{path.suffix}") if index else path


def parts_of(path: Path) -> list[Path]:
    """A records file and those of other processes, as far as there are any; nothing else that lies beside them."""
    names = re.compile(f"{re.escape(path.stem + PART)}[1-9][0-9]*{re.escape(path.suffix)}")
    others = path.parent.iterdir() if path.parent.is_dir() else ()
    parts = sorted(other for other in others if names.fullmatch(other.name) and other.is_file())
    return [path, *parts] if path.exists() else parts


def gather_parts(path: Path) -> None:
    """Puts what other processes left beside a records file into it; a line that is there already, by a kill, once."""
    parts = parts_of(path)
    if parts in ([], [path]):
        return
    lines = dict.fromkeys(line for part in parts for line in _whole(part.read_bytes()).splitlines())
    write_whole(path, b"".join(line + b"\n" for line in lines))
    for part in parts:
        if part != path:
            part.unlink()


def record_line(record: Record) -> str:
    """A record as its line in the file; half of a surrogate pair, which UTF-8 does not have, as JSON's escape of it."""
    return json.dumps(record, ensure_ascii=False).encode(errors="backslashreplace").decode() + "\n"


def _whole(contents: bytes) -> bytes:
    """All but a torn last line; one that lacks its newline alone, as editors leave it, gets it."""
    end = contents.rfind(b"\n") + 1
    try:
        loads(contents[end:], ours=True)
    except ValueError:
        return contents[:end]
    return contents + b"\n"
