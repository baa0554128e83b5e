"""The progress bar of every long-running command."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from s1_jax.runtime.terminal import in_a_line


def clock_time(seconds: float) -> str:
    """Format a duration in seconds as hours:minutes:seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


class _Bar(Progress):
    """A progress bar that notes when each row was last updated, so that the time left counts down from then."""

    def update(self, task_id: TaskID, **told: Any) -> None:
        super().update(task_id, **told)
        if told.keys() & {"completed", "advance", "seconds_left"}:
            super().update(task_id, told_at=self.get_time())

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        super().advance(task_id, advance)
        super().update(task_id, told_at=self.get_time())


class _Words(TextColumn):
    """A column of plain text: brackets are no style, and control characters do not reach the terminal."""

    def render(self, task: Task) -> Text:
        return Text(in_a_line(self.text_format.format(task=task)))


class _Elapsed(TimeElapsedColumn):
    def render(self, task: Task) -> Text:
        return Text("elapsed ") + super().render(task)  # in one cell, which a narrow terminal cannot split


class _TimeLeft(TimeRemainingColumn):
    def render(self, task: Task) -> Text:
        return Text("left ") + self._time(task)

    def _time(self, task: Task) -> Text:
        seconds = task.fields.get("seconds_left")
        if seconds is None:
            seconds = task.time_remaining
        if seconds is None or task.finished:
            return super().render(task)
        since = task.get_time() - task.fields.get("told_at", task.get_time())
        return Text(clock_time(max(seconds - since, 0)), style="progress.remaining")


BAR_COLUMNS = (  # in a narrow terminal, bar and note shrink first
    _Words("{task.description}", table_column=Column(min_width=11, no_wrap=True)),
    BarColumn(),
    MofNCompleteColumn(table_column=Column(min_width=9, no_wrap=True)),
    _Elapsed(table_column=Column(min_width=15, no_wrap=True)),
    _TimeLeft(table_column=Column(min_width=12, no_wrap=True)),
    _Words("{task.fields[note]}"),
)


def progress_bar(shown: bool = True) -> Progress:
    """Make a progress bar on standard error: description, count, time elapsed and left, and the caller's `note`.

    A caller with a better estimate than the speed so far passes `seconds_left`; either way the time left counts down
    between two updates. Other output appears above the bar in a terminal, and unchanged in the file if standard output
    is one.
    """
    return _Bar(
        *BAR_COLUMNS,
        disable=not shown,
        console=Console(stderr=True),
        redirect_stdout=sys.stdout.isatty(),  # otherwise rich would print to the terminal what belongs into the file
    )
