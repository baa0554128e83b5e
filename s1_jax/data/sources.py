"""Readers of examples from a hub id, a folder, or a JSONL, Parquet or CSV file, and the meaning of their columns.

The layout of a data set is recognized by its columns. If several fit, the first in `LAYOUTS` is used: finished text
before its parts (the tokenized releases contain both), s1K-1.1 before s1K, and `attempt` before `answer` (which may be
the bare result). Any other layout is given as a mapping in the config (`data.columns`).
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NamedTuple

from s1_jax.data.files import split_files
from s1_jax.errors import UserError
from s1_jax.runtime.json_input import read_jsonl
from s1_jax.runtime.storage import BUCKETS, as_path, check_input
from s1_jax.runtime.texts import NOT_UNICODE, is_unicode

LAYOUTS: dict[str, dict[str, str]] = {
    "s1k_tokenized": {"text": "text"},
    "s1k_1_1": {"question": "question", "thinking": "deepseek_thinking_trajectory", "answer": "deepseek_attempt"},
    "s1k": {"question": "question", "thinking": "thinking_trajectories", "answer": "attempt"},
    "traces": {"question": "question", "thinking": "thinking", "answer": "attempt"},
    "plain": {"question": "question", "thinking": "thinking", "answer": "answer"},
}
ROWS_AT_ONCE = 1024  # rows of a Parquet file in memory at once
LONGEST_CELL = 2**27  # characters of a CSV cell; Python's default of 131,072 is too small for long traces


class DataRow(NamedTuple):
    """One row of a data set, as read."""

    where: str  # for messages, such as "path, line 3"
    id: str  # its `id` column, else "file:line"
    columns: Mapping[str, Any]


class Conversation(NamedTuple):
    """Contents of a row: question, thinking and answer, or only the finished text."""

    question: str = ""
    thinking: str | list[str] = ""
    answer: str = ""
    text: str | None = None


def read_rows(path: str, split: str, subset: str | None = None) -> Iterator[DataRow]:
    """Read the rows of a JSONL, Parquet or CSV file, a split of a folder (see files.py), or a hub data set.

    Files and folders may be in a bucket. A single file is read whole, whatever its name. `subset` is what the hub calls
    a configuration. Raises UserError if the source or its split does not exist, and for a line that is no JSON object.
    """
    local = as_path(path)
    check_input(local)
    if (local.is_file() or local.is_dir()) and set(split) & set("[]+%"):
        raise UserError(
            f"split {split!r} asks for a part, which only hub data sets support; use a whole split of {path}"
        )
    if local.is_file():
        files = [local]
        if local.suffix not in READERS:
            raise UserError(f"{path} is not a data file; supported are {', '.join(READERS)}")
    elif local.is_dir():
        files = split_files(local, split)
    elif local.suffix in READERS or path.startswith(("/", ".", "~", BUCKETS)) or path.count("/") > 1 or not path:
        raise UserError(f"no such file or folder: {path!r}")
    else:
        yield from _hub_rows(path, split, subset)
        return
    same_name = Counter(file.name for file in files)
    for file in files:
        name = file.name if same_name[file.name] == 1 else file.relative_to(local).as_posix()
        yield from READERS[file.suffix](file, name)


def resolve_layout(columns: Iterable[str], layout: str, mapping: Mapping[str, str] | None) -> Mapping[str, str]:
    """Return the column of each field: `mapping` if given, else the named layout, or the first that fits for "auto".

    A layout fits if all its columns are present. Raises UserError if none does, listing the columns found and the known
    layouts.
    """
    found = sorted(columns)
    if mapping is not None:
        if set(mapping) not in ({"text"}, {"question", "thinking", "answer"}):
            raise UserError(
                f"data.columns must map 'text', or 'question', 'thinking' and 'answer'; it maps {sorted(mapping)}"
            )
        candidates = {"data.columns": dict(mapping)}
    elif layout == "auto":
        candidates = LAYOUTS
    elif layout in LAYOUTS:
        candidates = {layout: LAYOUTS[layout]}
    else:
        raise UserError(f"data.layout {layout!r} is not known; choose auto or one of {', '.join(LAYOUTS)}")
    for fields in candidates.values():
        if set(fields.values()) <= set(found):
            return fields
    known = "; ".join(f"{name}: {', '.join(fields.values())}" for name, fields in candidates.items())
    raise UserError(
        f"no layout fits the columns found ({', '.join(found)}). Known: {known}. Set data.columns to map other columns"
    )


def read_conversations(
    path: str, split: str, layout: str = "auto", mapping: Mapping[str, str] | None = None
) -> Iterator[tuple[DataRow, Conversation]]:
    """Yield all rows of a source with their contents; the layout is that of the first row.

    Raises UserError for an empty source, an unknown layout, and a field that is missing, null or of the wrong type,
    naming file, line and field.
    """
    fields: Mapping[str, str] | None = None
    for row in read_rows(path, split):
        if fields is None:
            fields = resolve_layout(row.columns, layout, mapping)
        values: dict[str, Any] = {field: _value(row, field, column) for field, column in fields.items()}
        yield row, Conversation(**values)
    if fields is None:
        raise UserError(f"{path} contains no rows")


def _value(row: DataRow, field: str, column: str) -> str | list[str]:
    if column not in row.columns:
        raise UserError(f"{row.where}: field {column!r} is missing")
    value = row.columns[column]
    parts = value if field == "thinking" and isinstance(value, list) else [value]
    for part in parts:
        if not isinstance(part, str):
            said = "null" if part is None else f"of type {type(part).__name__}"
            wanted = "a string or a list of strings" if field == "thinking" else "a string"
            raise UserError(f"{row.where}: field {column!r} is {said}; it must be {wanted}")
        if not is_unicode(part):
            raise UserError(f"{row.where}: field {column!r} {NOT_UNICODE}")
    if field in ("question", "text") and not value.strip():
        raise UserError(f"{row.where}: field {column!r} is empty")
    return value


def _data_row(name: str, kind: str, number: int, columns: Mapping[str, Any], where: str) -> DataRow:
    own = columns.get("id")
    return DataRow(f"{where}, {kind} {number}", f"{name}:{number}" if own is None else str(own), columns)


def _jsonl_rows(file: Path, name: str) -> Iterator[DataRow]:
    for number, columns in read_jsonl(file):
        yield _data_row(name, "line", number, columns, str(file))


def _parquet_rows(file: Path, name: str) -> Iterator[DataRow]:
    from pyarrow import ArrowException  # slow to import
    from pyarrow.parquet import ParquetFile

    with file.open("rb") as opened:
        try:
            batches = ParquetFile(opened).iter_batches(ROWS_AT_ONCE)
            rows = (columns for batch in batches for columns in batch.to_pylist())
            for number, columns in enumerate(rows, start=1):
                yield _data_row(name, "row", number, columns, str(file))
        except (ArrowException, OSError) as error:
            raise UserError(f"{file} cannot be read as Parquet ({_first_line(error)})") from None


def _csv_rows(file: Path, name: str) -> Iterator[DataRow]:
    csv.field_size_limit(LONGEST_CELL)
    try:
        with TextIOWrapper(file.open("rb"), encoding="utf-8-sig", newline="") as lines:
            for number, columns in enumerate(csv.DictReader(lines, strict=True), start=1):
                if None in columns or None in columns.values():
                    raise UserError(f"{file}, row {number}: the number of cells differs from the first line's")
                yield _data_row(name, "row", number, columns, str(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file} cannot be read as CSV in UTF-8 ({error})") from None


READERS = {".jsonl": _jsonl_rows, ".parquet": _parquet_rows, ".csv": _csv_rows}


def _hub_rows(name: str, split: str, subset: str | None) -> Iterator[DataRow]:
    import datasets

    try:
        # only data: from version 4 on, datasets runs no scripts and has no option that would allow one
        rows = datasets.load_dataset(name, subset, split=split)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:  # RuntimeError: a script
        said = _first_line(error)
        raise UserError(f"{name!r} is no local path and could not be loaded as a hub data set ({said})") from None
    for number, columns in enumerate(rows, start=1):
        yield _data_row(name, "row", number, columns, f"{name} ({split})")


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
