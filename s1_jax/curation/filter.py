"""Rows that go for their form, a rule a name; and which questions are hard.

The rules are the reference's, as its filter notebook has them. A row that several rules would drop is counted with the
first of them. Difficulty is only marked here: the paper's own ablations choose from easy questions too, so it is the
method of `select` that lets those go.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.progress import Progress

from s1_jax.config.curate import CurateConfig, FilterConfig
from s1_jax.curation.stages import Made, Source
from s1_jax.errors import UserError

NUMBERED_PART = r"p[1-9][0-9]{0,2}\."  # of a list of problems: p1. to p999.
# The reference's `\*\*(?=.*\d)[^\s\]]*\*\*`, for an engine without lookahead and with the ASCII's \d and \s alone. The
# digit may come within the bold run, or behind it on its line.
_BOLD = r"[^\s\]\p{Z}\x{0B}\x{1C}-\x{1F}\x{85}]*"
BOLD_NUMBER = rf"\*\*{_BOLD}(\p{{Nd}}{_BOLD}\*\*|\*\*.*\p{{Nd}})"


class Rule(NamedTuple):
    """What it reads, and which of these rows it drops."""

    columns: tuple[str, ...]
    drops: Callable[[FilterConfig, pa.RecordBatch], pa.BooleanArray]


def _blank(texts: pa.Array) -> pa.BooleanArray:
    return pc.invert(pc.fill_null(pc.match_substring_regex(texts, r"\S"), False))


def _no_trace(config: FilterConfig, rows: pa.RecordBatch) -> pa.BooleanArray:
    """The teacher did not answer, or not with both thinking and an attempt."""
    return pc.or_(_blank(rows["thinking"]), _blank(rows["attempt"]))


def _no_solution(config: FilterConfig, rows: pa.RecordBatch) -> pa.BooleanArray:
    """Nothing to grade an attempt by. The reference drops such rows unsaid, all of two sources with them."""
    return _blank(rows["solution"])


def _asymptote(config: FilterConfig, rows: pa.RecordBatch) -> pa.BooleanArray:
    """A figure as code, but where the source is known to give its figures so."""
    spared = pc.is_in(rows["source"], pa.array(config.asymptote_sources, pa.string()))
    return pc.and_(pc.match_substring(rows["question"], "[asy]"), pc.invert(spared))


def _images(config: FilterConfig, rows: pa.RecordBatch) -> pa.BooleanArray:
    """A picture that is not there."""
    return pc.match_substring(rows["question"], "![Image]")


def _numbered_parts(config: FilterConfig, rows: pa.RecordBatch) -> pa.BooleanArray:
    """Several problems in one."""
    return pc.match_substring_regex(rows["question"], NUMBERED_PART)


def _bold_numbers(config: FilterConfig, rows: pa.RecordBatch) -> pa.BooleanArray:
    """A problem's number in bold, and often several problems."""
    return pc.match_substring_regex(rows["question"], BOLD_NUMBER)


RULES: dict[str, Rule] = {
    "no_trace": Rule(("thinking", "attempt"), _no_trace),
    "no_solution": Rule(("solution",), _no_solution),
    "asymptote": Rule(("question", "source"), _asymptote),
    "images": Rule(("question",), _images),
    "numbered_parts": Rule(("question",), _numbered_parts),
    "bold_numbers": Rule(("question",), _bold_numbers),
}


def filter(config: CurateConfig, source: Source, folder: Path, bar: Progress) -> Made:
    """The rows that no rule of `config.filter` drops, with `hard`: no solver is known to have got it right.

    An attempt of a solver that nothing could grade does not make a question easy. Raises UserError where a column that
    a rule reads is missing.
    """
    rules = [(name, RULES[name]) for name in config.filter.rules]
    for name, rule in rules:
        if missing := [column for column in rule.columns if column not in source.names]:
            raise UserError(f"filter: rule {name} reads column {missing[0]!r}; there are {', '.join(source.names)}")
    columns = list(dict.fromkeys(column for _, rule in rules for column in rule.columns)) or ["id"]
    dropped = dict.fromkeys(config.filter.rules, 0)
    kept: list[np.ndarray] = []
    task = bar.add_task("filter", total=source.num_rows, note="")
    for batch in source.batches(columns):
        keeps = np.ones(len(batch), bool)
        for name, rule in rules:
            drops = pc.fill_null(rule.drops(config.filter, batch), False).to_numpy(zero_copy_only=False)
            dropped[name] += int((keeps & drops).sum())
            keeps &= ~drops
        kept.append(keeps)
        bar.advance(task, len(batch))
    bar.remove_task(task)
    rows = np.flatnonzero(np.concatenate(kept)) if kept else np.arange(0)
    return Made({"hard": pa.array(_hard(source)[rows])}, rows, list(dropped.items()))


def solvers_of(names: Sequence[str]) -> list[str]:
    """The columns that say what each solver got right."""
    return [name for name in names if name.startswith("solver_") and name.endswith("_correct")]


def _hard(source: Source) -> np.ndarray:
    hard = np.ones(source.num_rows, bool)
    for name in solvers_of(source.names):
        hard &= ~pc.fill_null(source.column(name), False).to_numpy()
    return hard
