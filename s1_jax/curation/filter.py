"""Filter rules by name, which drop rows for their form, and the marking of hard questions.

The rules are those of s1's filter notebook. A row that several rules would drop is counted for the first of them.
Difficulty is only marked here: the paper's ablations choose from easy questions too, so `select` decides about them.
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

NUMBERED_PART = r"p[1-9][0-9]{0,2}\."  # in lists of problems: p1. to p999.
# `\*\*(?=.*\d)[^\s\]]*\*\*` in s1's code, for an engine without lookahead and with ASCII \d and \s only. The digit may
# be in the bold text, or after it on the same line.
_BOLD = r"[^\s\]\p{Z}\x{0B}\x{1C}-\x{1F}\x{85}]*"
BOLD_NUMBER = rf"\*\*{_BOLD}(\p{{Nd}}{_BOLD}\*\*|\*\*.*\p{{Nd}})"


class Rule(NamedTuple):
    """One rule: the columns that it reads, and a function that marks the rows to drop."""

    columns: tuple[str, ...]
    drops: Callable[[FilterConfig, pa.RecordBatch], pa.BooleanArray]


def _blank(texts: pa.Array) -> pa.BooleanArray:
    return pc.invert(pc.fill_null(pc.match_substring_regex(texts, r"\S"), False))


def _no_trace(config: FilterConfig, rows: pa.RecordBatch) -> pa.BooleanArray:
    """Mark rows without both thinking and an attempt of the teacher."""
    return pc.or_(_blank(rows["thinking"]), _blank(rows["attempt"]))


def _no_solution(config: FilterConfig, rows: pa.RecordBatch) -> pa.BooleanArray:
    """Mark rows without a solution to grade by; s1's code drops them silently, and with them all of two sources."""
    return _blank(rows["solution"])


def _asymptote(config: FilterConfig, rows: pa.RecordBatch) -> pa.BooleanArray:
    """Mark questions with a figure as code, except from sources that contain their figures as code."""
    spared = pc.is_in(rows["source"], pa.array(config.asymptote_sources, pa.string()))
    return pc.and_(pc.match_substring(rows["question"], "[asy]"), pc.invert(spared))


def _images(config: FilterConfig, rows: pa.RecordBatch) -> pa.BooleanArray:
    """Mark questions that refer to a missing picture."""
    return pc.match_substring(rows["question"], "![Image]")


def _numbered_parts(config: FilterConfig, rows: pa.RecordBatch) -> pa.BooleanArray:
    """Mark questions that are several problems in one."""
    return pc.match_substring_regex(rows["question"], NUMBERED_PART)


def _bold_numbers(config: FilterConfig, rows: pa.RecordBatch) -> pa.BooleanArray:
    """Mark questions with a problem's number in bold, which are often several problems."""
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
    """Keep the rows that no rule of `config.filter` drops, and add `hard`: no solver's attempt is known to be right.

    An attempt that could not be graded does not make a question easy. Raises UserError if a rule's column is missing.
    """
    rules = [(name, RULES[name]) for name in config.filter.rules]
    for name, rule in rules:
        if missing := [column for column in rule.columns if column not in source.names]:
            raise UserError(f"filter: rule {name} needs column {missing[0]!r}; the table has {', '.join(source.names)}")
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
    """List the columns that say which questions each solver got right."""
    return [name for name in names if name.startswith("solver_") and name.endswith("_correct")]


def _hard(source: Source) -> np.ndarray:
    hard = np.ones(source.num_rows, bool)
    for name in solvers_of(source.names):
        hard &= ~pc.fill_null(source.column(name), False).to_numpy()
    return hard
