"""The lines that a run prints: a table that grows by a line every few steps, in a terminal and in a log file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from s1_jax.runtime.progress import clock_time

HEADER_EVERY = 40  # lines: about a screenful


class Column(NamedTuple):
    """One figure of a step, written flush right."""

    title: str
    width: int  # characters
    key: str  # of the row
    write: Callable[[float], str]


COLUMNS = (
    Column("loss", 8, "loss", "{:.4f}".format),
    Column("grad", 8, "grad_norm", "{:.3g}".format),
    Column("lr", 8, "lr", "{:.2e}".format),
    Column("tokens/s", 9, "real_tokens_per_s", "{:,.0f}".format),
    Column("MFU", 6, "mfu", "{:.1%}".format),
    Column("HBM GiB", 7, "hbm_gib", "{:.2f}".format),
    Column("peak", 6, "hbm_peak_gib", "{:.2f}".format),
    Column("limit", 6, "hbm_limit_gib", "{:.2f}".format),
    Column("wait ms", 7, "input_wait_seconds", lambda seconds: f"{1000 * seconds:.1f}"),
    Column("real", 4, "real_share", "{:.0%}".format),
    Column("s/step", 7, "seconds", "{:.3f}".format),
    Column("to go", 8, "seconds_left", clock_time),
)


class StepTable:
    """Table of the steps that get a line, and their lines.

    Every `every`-th step, the first of a run, the last, and each that compiled or has a held-out loss. Columns of which
    the first row knows nothing (MFU and memory on a CPU) are left out, so a line stays short.
    """

    def __init__(self, total_steps: int, every: int):
        self._total_steps, self._every = total_steps, every
        self._columns: list[Column] = []
        self._lines = 0

    def lines(self, row: Mapping[str, Any]) -> list[str]:
        """Return no line, one line, or the header and a line.

        `row` is that of metrics.jsonl, and `seconds_left`, and the `shape` [M, B, T] of the step's arrays.
        """
        number, note = row["step"], _note(row)
        first, last = not self._lines, number == self._total_steps
        if not (first or last or note or number % self._every == 0):
            return []
        if first:
            self._columns = [column for column in COLUMNS if row[column.key] is not None]
        width = max(len("step"), 2 * len(str(self._total_steps)) + 1)
        cells = [column.write(row[column.key]).rjust(column.width) for column in self._columns]
        line = " ".join([f"{number}/{self._total_steps}".rjust(width), *cells, note]).rstrip()
        header = " ".join(["step".rjust(width), *(column.title.rjust(column.width) for column in self._columns)])
        self._lines += 1
        return [header, line] if self._lines % HEADER_EVERY == 1 else [line]


def _note(row: Mapping[str, Any]) -> str:
    notes = []
    if "compile_seconds" in row:
        notes.append(f"compiled {list(row['shape'])} in {row['compile_seconds']:.1f} s")
    if "held_out_loss" in row:
        notes.append(f"held out {row['held_out_loss']:.4f}")
    return ", ".join(notes)
