"""Generation of traces by a teacher, and of attempts by solvers that show how hard a question is (paper, section 2).

The prompt is the question only, as in s1's code.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.progress import Progress

from s1_jax.curation.answers import Answer, ask_all, weights_of
from s1_jax.curation.stages import ROWS_OF_GROUP, Made, Source

NO_TRACE, NO_ATTEMPT = "no trace", "no attempt"


def generate(config: Any, source: Source, folder: Path, bar: Progress) -> Made:
    """Add `thinking`, `attempt` and `error` by the teacher, and `solver_k` and `solver_k_error` by the k-th solver.

    A trace is complete with thinking and attempt; otherwise both are null and `error` says why. A solver's text is kept
    even if it was cut off, since that is its result. Without a teacher, rows keep the traces that they came with, and
    only `error` is added. Raises as `ask_all` does.
    """
    who = config.generate
    questions: list[str] = source.column("question").to_pylist()
    columns: dict[str, Any] = {}
    if who.teacher.model:
        answers = ask_all(who.teacher, questions, folder, bar, "teacher")
        columns = _columns(("thinking", "attempt", "error"), map(_trace, answers))
    else:
        columns["error"] = _missing(source)
    for k, solver in enumerate(who.solvers, 1):
        answers = ask_all(solver, questions, folder, bar, f"solver {k}")
        columns |= _columns((f"solver_{k}", f"solver_{k}_error"), map(_attempt, answers))
    return Made(columns)


def generate_inputs(config: Any) -> list[Path]:
    """List the files that the table depends on: the weights of models decoded on this machine."""
    return [path for who in (config.generate.teacher, *config.generate.solvers) for path in weights_of(who)]


def _trace(answer: Answer) -> tuple[str | None, str | None, str | None]:
    if answer.error is None and answer.thinking and answer.text:
        return answer.thinking, answer.text, None
    return None, None, answer.error or (NO_ATTEMPT if answer.thinking else NO_TRACE)


def _attempt(answer: Answer) -> tuple[str | None, str | None]:
    return (answer.text, None) if answer.text else (None, answer.error or NO_ATTEMPT)


def _missing(source: Source) -> pa.ChunkedArray:
    """Say what is missing in the traces that rows came with."""
    chunks = []
    for batch in source.batches(["id", *(name for name in ("thinking", "attempt") if name in source.names)]):
        parts = [_is_blank(batch, name) for name in ("thinking", "attempt")]
        reasons = pc.case_when(pc.make_struct(*parts), *(pa.scalar(reason) for reason in (NO_TRACE, NO_ATTEMPT)))
        chunks.append(reasons)
    return pa.chunked_array(chunks, pa.string())


def _is_blank(batch: pa.RecordBatch, name: str) -> pa.Array:
    if name not in batch.schema.names:
        return pa.array([True] * len(batch))
    texts = batch[name].cast(pa.string())
    return pc.fill_null(pc.equal(pc.binary_length(pc.utf8_trim_whitespace(texts)), 0), True)


def _columns(names: Sequence[str], rows: Iterable[Sequence[str | None]]) -> dict[str, pa.ChunkedArray]:
    """Convert rows of strings to columns, with only a group of rows as Python objects at a time."""
    chunks: list[list[pa.Array]] = [[] for _ in names]
    left = iter(rows)
    while group := list(islice(left, ROWS_OF_GROUP)):
        for chunk, values in zip(chunks, zip(*group, strict=True), strict=True):
            chunk.append(pa.array(values, pa.string()))
    return {name: pa.chunked_array(chunk, pa.string()) for name, chunk in zip(names, chunks, strict=True)}
