"""Stage 1, which collects the questions of all sources in one table without duplicates."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.progress import Progress, TaskID

from s1_jax.config.curate import CollectConfig, CurateConfig
from s1_jax.curation import similar
from s1_jax.curation.sources import (
    PUBLIC,
    SPLIT,
    SYNTHETIC,
    Pool,
    Question,
    fold,
    read_local,
    read_public,
    read_synthetic,
)
from s1_jax.curation.stages import ROWS_OF_GROUP, Made, Source
from s1_jax.data.files import split_files
from s1_jax.errors import UserError
from s1_jax.runtime.files import whole_file, write_whole
from s1_jax.runtime.storage import as_path
from s1_jax.runtime.terminal import say

SCHEMA = pa.schema([(name, pa.string()) for name in ("id", *Question._fields)])


def collect(config: CurateConfig, source: Source | None, folder: Path, bar: Progress) -> Made:
    """Collect questions with their ids, without empty and repeated ones and near duplicates.

    Repetitions may differ in white space and case. The first of duplicates stays: sources in the given order come
    before paths. A public source that cannot be read is skipped as a whole, with a message. In `folder`, `sources.json`
    counts what was read from each source, and `duplicates.jsonl` has the pairs of near duplicates. Raises UserError for
    an unknown source, an invalid row of a user's file (naming it), and if there are no questions.
    """
    options = config.collect
    if options.near_duplicates is not None:
        similar.check_installed()
    kept, reports = _Kept(), []
    sources = _sources(options)
    row = bar.add_task("collecting", total=len(sources), note="")
    for name, public, questions in sources:
        report = _read(kept, name, public, _shown(questions, name, bar, row))
        say(_line(report))
        reports.append(report)
        bar.advance(row)
    bar.update(row, note="")
    write_whole(folder / "sources.json", json.dumps(reports, indent=1) + "\n")
    if not len(kept):
        raise UserError(f"there is no question in {', '.join(name for name, *_ in sources)}")
    stays = np.ones(len(kept), bool)
    if options.near_duplicates is not None:
        texts = kept.column("question")
        pairs = similar.near_duplicates(texts, options.near_duplicates, bar)
        stays[[later for later, _, _ in pairs]] = False
        _write_pairs(folder / "duplicates.jsonl", kept.column("id"), texts, pairs)
    table = kept.taken(stays)
    dropped = [("no question", kept.empty), ("repeated", kept.repeated), ("near duplicate", int((~stays).sum()))]
    return Made({name: table[name] for name in SCHEMA.names}, dropped=dropped)


def collect_inputs(config: CurateConfig) -> list[Path]:
    """List the user's files that `collect` reads. Raises UserError if a folder has none."""
    files: list[Path] = []
    for path in map(as_path, config.collect.paths):
        if path.is_file():
            files.append(path)
        elif path.is_dir():
            files += split_files(path, SPLIT)
    return files


class _Kept:
    """Questions collected so far, without empty and repeated ones, moved to Arrow in groups of rows."""

    def __init__(self) -> None:
        self.empty = self.repeated = 0
        self._seen: set[bytes] = set()
        self._rows: list[tuple[str | None, ...]] = []
        self._batches: deque[pa.RecordBatch] = deque()

    def add(self, question: Question) -> bool:
        """Add a question and return whether it is new."""
        folded = fold(question.question)
        digest = hashlib.sha256(folded.encode()).digest()[:16]
        self.empty += not folded
        self.repeated += bool(folded) and digest in self._seen
        if not folded or digest in self._seen:
            return False
        self._seen.add(digest)
        self._rows.append((hashlib.sha256(question.question.encode()).hexdigest()[:16], *question))
        if len(self._rows) == ROWS_OF_GROUP:
            self._flush()
        return True

    def __len__(self) -> int:
        return len(self._seen)

    def column(self, name: str) -> list[str]:
        """Return one column of all new questions."""
        self._flush()
        return [text for batch in self._batches for text in batch[name].to_pylist()]

    def taken(self, stays: np.ndarray) -> pa.Table:
        """Return the questions that stay as a table, and free the others' memory: with traces both may not fit."""
        self._flush()
        taken, first = [], 0
        while self._batches:
            batch = self._batches.popleft()
            taken.append(batch.filter(pa.array(stays[first : first + len(batch)])))
            first += len(batch)
        return pa.Table.from_batches(taken, SCHEMA)

    def _flush(self) -> None:
        if self._rows:
            columns = [pa.array(column, pa.string()) for column in zip(*self._rows, strict=True)]
            self._batches.append(pa.record_batch(columns, schema=SCHEMA))
            self._rows = []


def _sources(options: CollectConfig) -> list[tuple[str, Pool | None, Iterator[Question]]]:
    """Return the configured sources with their names and, for public ones, their descriptions; nothing is read yet."""
    known = (*PUBLIC, SYNTHETIC)
    if unknown := [name for name in options.sources if name not in known]:
        raise UserError(f"unknown source {unknown[0]!r}; known: {', '.join(known)}")
    if not options.sources and not options.paths:
        raise UserError("nothing to collect: set collect.sources or collect.paths")
    sources = []
    for name in options.sources:
        public = PUBLIC.get(name)
        read = read_synthetic if public is None else partial(read_public, public, name)
        sources.append((name, public, read(options.seed, options.limit)))
    return [*sources, *((path, None, read_local(path, options.limit)) for path in options.paths)]


def _shown(questions: Iterator[Question], name: str, bar: Progress, row: TaskID) -> Iterator[Question]:
    for number, question in enumerate(questions):
        if number % ROWS_OF_GROUP == 0:
            bar.update(row, note=f"{name}: {number:,}")
        yield question


def _read(kept: _Kept, name: str, public: Pool | None, questions: Iterator[Question]) -> dict[str, Any]:
    """Add the questions of a source and return the counts."""
    report: dict[str, Any] = {"name": name, "read": 0, "new": 0, "without_solution": 0, "skipped": None}
    report |= {name: getattr(public, name, None) for name in ("in_paper", "licence")}
    if public:
        try:
            questions = iter(list(questions))  # all or nothing
        except UserError as error:
            return report | {"skipped": str(error)}
    for question in questions:
        report["read"] += 1
        if kept.add(question):
            report["new"] += 1
            report["without_solution"] += question.solution is None
    return report


def _line(report: dict[str, Any]) -> str:
    if report["skipped"]:
        return f"{report['name']}: skipped: {report['skipped']} (when this is solved, use --again-from collect)"
    line = f"{report['name']}: {report['new']:,} questions"
    if report["read"] > report["new"]:
        line += f" of {report['read']:,}"
    if report["in_paper"]:
        line += f" (the paper has {report['in_paper']:,})"
    return line + (f", {report['without_solution']:,} without a solution" if report["without_solution"] else "")


def _write_pairs(
    path: Path, ids: Sequence[str], questions: Sequence[str], pairs: Sequence[tuple[int, int, float]]
) -> None:
    with whole_file(path) as beside, beside.open("w") as file:
        for later, earlier, similarity in pairs:
            pair = {"similarity": round(similarity, 4), "id": ids[later], "question": questions[later]}
            file.write(json.dumps(pair | {"stays": ids[earlier], "stays_question": questions[earlier]}) + "\n")
