"""Pipeline of stages that each make a table from the previous one, with a Parquet file in `run_dir` per stage.

A table has one row per question. A stage decides which rows are kept and which columns are added. The new table is
written to `run_dir/N_name.parquet` atomically, with a fingerprint of everything it was made from. A stage whose
fingerprint has not changed is not run again, so a stop loses nothing. Rows pass through memory in groups, because
traces may be many GB.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.progress import Progress

from s1_jax.errors import UserError
from s1_jax.runtime.files import whole_file
from s1_jax.runtime.json_input import loads
from s1_jax.runtime.storage import one_line
from s1_jax.runtime.terminal import say

ROWS_OF_GROUP = 1024  # about 20 MB with long traces
FINGERPRINT, COUNTS = b"s1_jax.fingerprint", b"s1_jax.counts"  # in a file's metadata


class Count(NamedTuple):
    """Rows that a rule dropped and left, one line of the funnel."""

    stage: str
    rule: str
    dropped: int
    left: int


@dataclasses.dataclass(frozen=True)
class Made:
    """Result of a stage: new columns, and which rows are kept."""

    columns: Mapping[str, pa.Array] = dataclasses.field(default_factory=dict)  # new columns of the rows that are kept
    rows: np.ndarray | None = None  # int64, indices of the rows that are kept, in their new order; None means all
    dropped: Sequence[tuple[str, int]] = ()  # rules in order, with the number of rows that each dropped


class Source:
    """Table that a stage starts from, of which only the columns asked for are read.

    Reading raises UserError if the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with _undamaged(path):
            self._file = pq.ParquetFile(path)
            self.num_rows: int = self._file.metadata.num_rows
            self.names: list[str] = self._file.schema_arrow.names

    def column(self, name: str) -> pa.ChunkedArray:
        """Read one column of all rows."""
        with _undamaged(self.path):
            return self._file.read([name])[name]

    def empty(self, names: Sequence[str]) -> pa.Table:
        """Return a table with these columns and no rows."""
        return self._file.schema_arrow.empty_table().select(list(names))

    def batches(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield these columns, one group of rows at a time."""
        batches = self._file.iter_batches(ROWS_OF_GROUP, columns=list(names))
        while True:
            with _undamaged(self.path):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch


class Stage(NamedTuple):
    """One stage of the pipeline, with the options and files that it depends on.

    `run(config, source, folder, bar)` may save its own files in `folder` (reports, answers that were paid for), and
    shows its progress on `bar`. `inputs(config)` returns files whose contents the table depends on.
    """

    name: str
    run: Callable[[Any, Any, Path, Progress], Made]  # the first stage's source is None
    options: tuple[str, ...]  # fields of the config that the stage reads
    inputs: Callable[[Any], Sequence[Path]] = lambda config: ()


def run_stages(
    stages: Sequence[Stage], config: Any, run_dir: Path, bar: Progress, again_from: str | None = None
) -> Path:
    """Run stages that are missing or outdated, and all from `again_from` on; return the last table's path.

    Raises what a stage raises.
    """
    if again_from is not None and again_from not in (names := [stage.name for stage in stages]):
        raise UserError(f"there is no stage {again_from!r}; the stages are {', '.join(names)}")
    path, before, again = None, "", False
    for number, stage in enumerate(stages, 1):
        again |= stage.name == again_from
        target = run_dir / f"{number}_{stage.name}.parquet"
        fingerprint = _fingerprint(stage, config, before)
        if again or fingerprint_of(target) != fingerprint:
            source = None if path is None else Source(path)
            folder = run_dir / stage.name
            folder.mkdir(parents=True, exist_ok=True)
            _write(target, stage, source, stage.run(config, source, folder, bar), fingerprint)
            say(f"{stage.name}: {pq.read_metadata(target).num_rows:,} rows in {target}")
        path, before = target, fingerprint
    assert path is not None
    return path


def fingerprint_of(path: Path) -> str | None:
    """Return the fingerprint of what the table was made from; None if there is no complete table."""
    try:
        metadata = pq.read_metadata(path).metadata or {}
    except (FileNotFoundError, pa.ArrowException):
        return None
    except OSError as error:
        if error.errno is not None:  # from the system; pyarrow's own error for an incomplete table has no number
            raise
        return None
    return metadata.get(FINGERPRINT, b"").decode("utf-8", "replace") or None


def counts_of(path: Path) -> list[Count]:
    """Read the funnel up to this table. Raises UserError if the file does not contain it."""
    try:
        counts = [Count(*count) for count in loads((pq.read_metadata(path).metadata or {})[COUNTS])]
        if not all(list(map(type, count)) == [str, str, int, int] for count in counts):
            raise TypeError
    except (ValueError, LookupError, TypeError):
        raise UserError(f"{path} contains no table of this pipeline; remove it to make it again") from None
    return counts


@contextmanager
def _undamaged(path: Path) -> Iterator[None]:
    """Turn pyarrow's errors on a damaged table into UserError within this context."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if getattr(error, "errno", None) is not None:
            raise
        raise UserError(f"{path} is damaged ({one_line(error)}); remove it to make it again") from None


def _fingerprint(stage: Stage, config: Any, before: str) -> str:
    """Hash the stage's options and files, and the fingerprint of the table that it starts from."""
    digest = hashlib.sha256(before.encode())
    options = {name: getattr(config, name) for name in stage.options}
    digest.update(json.dumps([stage.name, options], default=dataclasses.asdict, sort_keys=True).encode())
    for path in stage.inputs(config):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _write(target: Path, stage: Stage, source: Source | None, made: Made, fingerprint: str) -> None:
    """Write the new table to `target`, atomically."""
    counts = [] if source is None else counts_of(source.path)
    dropped = made.dropped or [("", 0)]
    if source is None:
        left = len(next(iter(made.columns.values()))) + sum(count for _, count in dropped)
    else:
        left = source.num_rows
    for rule, count in dropped:
        left -= count
        counts.append(Count(stage.name, rule, count, left))
    metadata = {FINGERPRINT: fingerprint.encode(), COUNTS: json.dumps(counts).encode()}
    groups = _groups(source, made)
    first = next(groups)
    schema = first.schema.with_metadata(metadata)
    with whole_file(target) as beside, pq.ParquetWriter(beside, schema, compression="zstd") as writer:
        for table in chain((first,), groups):
            writer.write_table(table.cast(writer.schema), row_group_size=ROWS_OF_GROUP)


def _groups(source: Source | None, made: Made) -> Iterator[pa.Table]:
    """Yield the new table in groups of rows; a table without rows is one empty group."""
    new = pa.table(dict(made.columns))
    if source is None:
        yield new
        return
    rows = np.arange(source.num_rows) if made.rows is None else np.asarray(made.rows, np.int64)
    names = [name for name in source.names if name not in made.columns]
    if len(rows) and (np.diff(rows) <= 0).any():  # a new order needs memory for all chosen rows
        old = pa.concat_tables(_taken(source, names, np.sort(rows)))
        yield _beside(old.take(np.argsort(np.argsort(rows))), new)
        return
    first = 0
    for old in _taken(source, names, rows):
        yield _beside(old, new.slice(first, len(old)))
        first += len(old)


def _taken(source: Source, names: Sequence[str], rows: np.ndarray) -> Iterator[pa.Table]:
    """Yield these rows, which are in ascending order, group by group."""
    first = 0
    yield source.empty(names)  # has the schema
    for batch in source.batches(names):
        here = rows[(rows >= first) & (rows < first + len(batch))] - first
        first += len(batch)
        if len(here):
            yield pa.Table.from_batches([batch]).take(here)


def _beside(old: pa.Table, new: pa.Table) -> pa.Table:
    for name in new.column_names:
        old = old.append_column(name, new[name])
    return old
